"""`epochd activation` and `epochd diff`."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from scipy import special


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.split()]


def test_an_activation_of_arguments_is_a_number_a_line(cli):
    done = cli("activation", "sigmoid", "0.3", "-1", "-1e2", "inf")
    assert done.code == 0
    np.testing.assert_allclose(numbers(done.out), special.expit([0.3, -1, -1e2, np.inf]), rtol=1e-15)


def test_a_derivative_is_right_where_plain_floating_point_is_not(cli):
    mpmath.mp.dps = 40
    s = 1 / (1 + mpmath.exp(-37))
    (value,) = numbers(cli("activation", "sigmoid", "37", "--op", "derivative").out)
    assert value == pytest.approx(float(s * (1 - s)), rel=1e-15)


def test_values_come_from_standard_input_by_spaces_lines_or_commas(cli):
    assert numbers(cli("activation", "relu", stdin="1, -2\n3 4\n").out) == [1, 0, 3, 4]


def test_parameters_and_chains_are_part_of_the_name(cli):
    assert numbers(cli("activation", "leaky_relu:negative_slope=0.25", "-4", "8").out) == [-1, 8]
    assert numbers(cli("activation", "exp,log", "3").out) == pytest.approx([3])


def test_a_jacobian_is_a_row_a_line(cli):
    rows = [
        numbers(line)
        for line in cli("activation", "softmax", "1", "2", "3", "--op", "derivative").out.splitlines()
    ]
    p = special.softmax([1, 2, 3])
    np.testing.assert_allclose(rows, np.diag(p) - np.outer(p, p), rtol=1e-14)


def test_as_json_infinities_and_nan_are_text(cli):
    assert cli("activation", "log", "0", "-1", "--json").json == {
        "function": "log",
        "input": [0, -1],
        "output": ["-Infinity", "NaN"],
    }


def test_strict_refuses_what_has_no_result(cli):
    done = cli("activation", "log", "1", "-1", "--strict")
    assert done.code == 1
    assert "[1]" in done.err


def test_on_a_terminal_each_value_stands_beside_its_argument(terminal: Callable):
    text = terminal("activation", "tanh", "0", "--op", "derivative").read_all()
    assert "tanh.derivative(0.0) = " in text
    assert "1.0" in text


@pytest.mark.parametrize(
    "arguments", [("sigmoid", "x"), ("sigmoid", "1", "--slope", "2"), ("sigmoid", "1", "--dtype", "int8")]
)
def test_what_is_no_number_or_option_is_wrong_usage(offline_cli, arguments: tuple[str, ...]):
    assert offline_cli("activation", *arguments).code == 2


def test_an_unknown_function_is_refused_by_the_server(cli):
    done = cli("activation", "sigmoyd", "1")
    assert done.code == 1
    assert "sigmoyd" in done.err


def test_diff_shows_value_and_gradients(cli):
    assert cli("diff", "2*w**2+5", "w=2").out.split() == ["value", "13.0", "d/dw", "8.0"]
    shown = cli("diff", "mean((x*w - y)**2)", "x=[1,2,3]", "y=[2,4,6]", "w=0", "--of", "w", "--json").json
    assert shown["gradients"]["w"] == pytest.approx(-56 / 3)


def test_diff_accumulates_as_pytorch_does(cli):
    shown = cli("diff", "2*w", "w=2", "--repeat", "21", "--accumulate", "--json").json
    assert [one["w"] for one in shown["history"]] == [2.0 * count for count in range(1, 22)]
    assert "2.0 4.0 6.0" in cli("diff", "2*w", "w=2", "--repeat", "3", "--accumulate").out


def test_diff_says_what_is_wrong_with_an_expression(cli):
    done = cli("diff", "2*v", "w=2")
    assert done.code == 1
    assert "v" in done.err


@pytest.mark.parametrize("variable", ["w", "2=w", "w=[1,", "w=two"])
def test_diff_refuses_what_is_no_variable(offline_cli, variable: str):
    assert offline_cli("diff", "2*w", variable).code == 2
