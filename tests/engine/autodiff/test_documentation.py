"""``docs/differentiate.md`` says what is so: its tables are run, its lists held against the code."""

import dataclasses
import math
import re
from pathlib import Path

import pytest
import torch

from epochd_server.domain.expressions import ExpressionLimits
from epochd_server.engine.autodiff import FUNCTIONS
from epochd_server.engine.autodiff.functions import OPERATIONS

PAGE = Path(__file__).parents[3].joinpath("docs", "differentiate.md").read_text(encoding="utf-8")


def table(first_heading, columns):
    """The rows of the table with this many columns whose first heading is this, backticks removed."""
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    start = next(i for i, row in enumerate(cells) if row[0] == first_heading and len(row) == columns)
    body = []
    for row in cells[start + 2 :]:
        if len(row) != columns or not row[0].startswith("`"):
            break
        body.append(tuple(row))
    assert body
    return body


def code(cell):
    return re.fullmatch(r"`(.*)`", cell).group(1)


def assignments(cell):
    """``w=[1, 2], b=3`` as float64 tensors by name."""
    pairs = re.findall(r"(\w+)=((?:[^,\[]|\[.*?\](?=,\s\w+=|$))+)", code(cell))
    return {name: number(text) for name, text in pairs}


def number(text):
    value = eval(text, {"inf": math.inf, "nan": math.nan})
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(("expression", "variables", "value", "gradients"), table("Expression", 4))
def test_the_examples_give_what_they_say(diff, expression, variables, value, gradients):
    result = diff(code(expression), **assignments(variables))
    torch.testing.assert_close(result.value, number(code(value)))
    expected = assignments(gradients)
    assert set(result.gradients) == set(expected)
    for name, gradient in result.gradients.items():
        torch.testing.assert_close(gradient, expected[name])


@pytest.mark.parametrize(
    ("expression", "variables", "repeat", "accumulate", "history"), table("Expression", 5)
)
def test_the_repetitions_give_what_they_say(diff, expression, variables, repeat, accumulate, history):
    result = diff(
        code(expression), **assignments(variables), repeat=int(repeat), accumulate=accumulate == "yes"
    )
    assert [passed["w"].item() for passed in result.history] == [float(x) for x in code(history).split(",")]


@pytest.mark.parametrize(("expression", "description"), table("Expression", 2))
def test_the_errors_read_as_they_say(refused, expression, description):
    assert refused(code(expression), w=[1.0, 2.0, 3.0]) == [("expression", code(description))]


def test_the_limits_are_the_defaults():
    documented = {re.match(r"`(\w+)`", name).group(1): float(value) for name, value in table("Limit", 2)}
    assert documented == dataclasses.asdict(ExpressionLimits())


def test_the_functions_are_all_there_with_their_arguments():
    documented = {
        name: tuple(map(int, counts.split(" or ")))
        for names, counts, _ in table("Function", 3)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert documented == {name: operation.counts for name, operation in FUNCTIONS.items()}


def test_the_grammar_names_every_operator():
    grammar = re.search(r"```ebnf\n(.*?)```", PAGE, re.DOTALL).group(1)
    terminals = set(re.findall(r'"([^"]+)"', grammar))
    operators = {name.split()[-1] for name in set(OPERATIONS) - set(FUNCTIONS)}
    assert terminals == operators | {"(", ")", ",", ";", "="}
