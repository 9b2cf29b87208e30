"""What is refused once an expression parses: names, arguments, shapes, costs, and the rest of the request."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epochd_server.domain.errors import InvalidInput
from epochd_server.domain.expressions import ExpressionLimits
from epochd_server.engine.autodiff import differentiate
from epochd_server.engine.autodiff.shapes import ShapeError, elementwise, matrix_product


def limits(**bounds):
    return ExpressionLimits(**bounds)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("w + b", "line 1, column 5: unknown name 'b'; known here: w, rate"),
        ("w * rat", "line 1, column 5: unknown name 'rat' (did you mean rate?); known here: w, rate"),
        ("y = 1\nz = x*y", "line 2, column 5: unknown name 'x'; known here: w, rate, y"),
        ("a = b; b = w; a", "line 1, column 5: unknown name 'b'; known here: w, rate"),
        ("exp", "line 1, column 1: exp is a function; write exp(...)"),
        ("2*w(3)", "line 1, column 3: w is not a function; write w*(...) for a product"),
        ("exp()", "line 1, column 1: exp takes 1 argument, 0 given"),
        ("w*exp(w, w)", "line 1, column 3: exp takes 1 argument, 2 given"),
        ("max()", "line 1, column 1: max takes 1 or 2 arguments, 0 given"),
        ("matmul(w)", "line 1, column 1: matmul takes 2 arguments, 1 given"),
        ("matmul(w, w)", "line 1, column 1: matmul needs tensors of one dimension or more; write * to"),
        ("w = 3; w", "line 1, column 1: w is given as a variable and cannot be assigned"),
        ("a = w; a = 2; a", "line 1, column 8: a is assigned before; choose another name"),
        ("sum = w; w", "line 1, column 1: sum is a function's name; choose another"),
        ("w*2; w", "line 1, column 1: this value is not used; assign it to a name or remove"),
        ("w ** 1001", "line 1, column 3: the exponent is 1001; its magnitude may be at most 1000"),
        ("w ** -1001", "line 1, column 3: the exponent is -1001; its"),
        ("9**9**9", "line 1, column 2: the exponent is 3.8742e+08; its"),
        ("c = 10**4; w**c", "line 1, column 13: the exponent is 10000; its"),
        ("w ** (0/0)", "line 1, column 3: the exponent is nan; its"),
        ("w ** exp(10)", "line 1, column 3: the exponent is 22026.5; its"),
    ],
)
def test_an_error_is_named_with_its_place(refused, expression, expected):
    ((field, description),) = refused(expression, w=2.0, rate=1.0)
    assert field == "expression"
    assert description.startswith(expected)


def test_an_unknown_function_is_answered_with_the_closest_and_the_list(refused):
    ((_, description),) = refused("sigmod(w)", w=1.0)
    assert "unknown function 'sigmod' (did you mean sigmoid?); functions: abs, cos, exp, log, " in description


@pytest.mark.parametrize("name", ["eval", "__import__", "open", "torch", "getattr", "print"])
def test_nothing_outside_the_table_can_be_called(refused, name):
    ((_, description),) = refused(f"{name}(w)", w=1.0)
    assert description.startswith(f"line 1, column 1: unknown function '{name}'")


def test_an_error_is_reported_once_and_all_errors_together(refused):
    violations = refused("a = foo + 1\nb = a*foo + bar(w)\nc = b + sin", w=1.0, gradients_of=["d"], repeat=0)
    assert [(field, text.split(";")[0]) for field, text in violations] == [
        ("repeat", "must be 1 to 1000, is 0"),
        ("expression", "line 1, column 5: unknown name 'foo'"),
        ("expression", "line 2, column 13: unknown function 'bar'"),
        ("expression", "line 3, column 9: sin is a function"),
        ("gradients_of[0]", "unknown name 'd'"),
    ]


def test_a_syntax_error_joins_the_other_violations(refused):
    violations = refused("w +", w=torch.tensor(True), repeat=-1)
    assert [field for field, _ in violations] == ["variables.w", "repeat", "expression"]


def test_the_output_must_be_a_scalar(refused):
    ((field, description),) = refused("y = 2*w\ny + 1", w=[1.0, 2.0, 3.0])
    assert field == "expression"
    assert description == "line 2, column 1: the output has shape [3]; take sum(...) or mean(...)"
    assert refused("w", w=torch.zeros(0))[0][1].endswith(
        "the output has shape [0]; take sum(...) or mean(...)"
    )


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a + b", "shapes [2, 3] and [4] cannot be broadcast together"),
        ("max(a, b)", "shapes [2, 3] and [4] cannot be broadcast together"),
        ("matmul(a, b)", "matmul of shapes [2, 3] and [4]: the inner sizes differ"),
        ("matmul(a, a)", "matmul of shapes [2, 3] and [2, 3]: the inner sizes differ"),
        ("max(e)", "a tensor of shape [0] has no elements to choose from"),
    ],
)
def test_shapes_that_do_not_fit_are_named(refused, expression, expected):
    ((_, description),) = refused(expression, a=torch.ones(2, 3), b=torch.ones(4), e=torch.ones(0))
    assert description == f"line 1, column {expression.find('+') + 1 or 1}: {expected}"


SHAPES = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@settings(deadline=None)
@given(SHAPES, SHAPES)
def test_broadcasting_is_inferred_as_pytorch_does_it(left, right):
    try:
        expected = (torch.empty(left, device="meta") + torch.empty(right, device="meta")).shape
    except RuntimeError:
        with pytest.raises(ShapeError):
            elementwise([left, right])
        return
    outcome = elementwise([left, right])
    assert outcome.shape == tuple(expected)
    assert outcome.largest == math.prod(expected)


@settings(deadline=None)
@given(SHAPES, SHAPES)
def test_matrix_products_are_inferred_as_pytorch_does_it(left, right):
    try:
        expected = torch.matmul(torch.ones(left), torch.ones(right)).shape
    except RuntimeError:
        with pytest.raises(ShapeError):
            matrix_product([left, right])
        return
    outcome = matrix_product([left, right])
    assert outcome.shape == tuple(expected)
    assert outcome.largest >= math.prod(expected)
    assert outcome.multiplications == math.prod(expected) * left[-1]


def test_a_large_result_is_refused_before_it_is_allocated(refused):
    # Eight tebibytes: an allocation would fail with another error.
    column, row = torch.ones(2**20, 1), torch.ones(1, 2**20)
    ((_, description),) = refused("sum(column*row)", column=column, row=row)
    expected = f"'*' needs a tensor of {2**40} elements, at most {2**20} are allowed"
    assert description == f"line 1, column 11: {expected}"


def test_an_operand_that_matmul_would_copy_counts_as_well(refused):
    ((_, description),) = refused("sum(matmul(a, b))", a=torch.ones(1, 100, 100), b=torch.ones(1000, 100, 1))
    assert "needs a tensor of 10000000 elements" in description


def test_results_are_limited_together(diff, refused):
    bounds = limits(max_total_elements=100)
    assert diff("sum(w*1*1*1*1*1*1*1*1*1)", w=torch.ones(10), limits=bounds).value.item() == 10.0
    ((_, description),) = refused("sum(w*1*1*1*1*1*1*1*1*1*1*1)", w=torch.ones(10), limits=bounds)
    assert description == "line 1, column 26: from here on the results hold more than 100 elements together"


def test_multiplications_are_limited_together(refused):
    square = torch.ones(10, 10)
    ((_, description),) = refused(
        "sum(matmul(matmul(w, w), w))", w=square, limits=limits(max_multiplications=1999)
    )
    expected = "from here on the products take more than 1999 multiplications"
    assert description == f"line 1, column 5: {expected}"


def test_gradients_of_all_passes_are_limited_together(diff, refused):
    bounds = limits(max_total_elements=100)
    assert len(diff("sum(w)", w=torch.ones(10), repeat=10, limits=bounds).history) == 10
    ((field, description),) = refused("sum(w)", w=torch.ones(10), repeat=11, limits=bounds)
    assert field == "repeat"
    assert description == "gradients of 10 elements, 11 times, are more than 100 elements together"


@pytest.mark.parametrize("repeat", [0, -1, 1001, 2**31])
def test_repeat_is_bounded(refused, repeat):
    assert refused("w", w=1.0, repeat=repeat) == [("repeat", f"must be 1 to 1000, is {repeat}")]


@pytest.mark.parametrize("name", ["", "2w", "a b", "a.b", "a/b", "w\n", "ü", "x" * 65, "__class__.x"])
def test_a_variable_needs_a_name_that_an_expression_can_hold(name):
    with pytest.raises(InvalidInput) as caught:
        differentiate("1", {name: torch.tensor(1.0)})
    (violation,) = caught.value.violations
    assert violation.field == "variables"
    assert "is not a name: at most 64 ASCII letters, digits and _, no digit first" in violation.description
    assert len(violation.description) < 150


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.tensor(True), "must hold real numbers, holds bool"),
        (torch.tensor(1j), "must hold real numbers, holds complex64"),
        (torch.ones(3, dtype=torch.float8_e4m3fn), "must hold real numbers, holds float8_e4m3fn"),
        (torch.ones([1] * 9), "has 9 dimensions, at most 8 are allowed"),
        (torch.zeros(1).expand(2**20 + 1), "has 1048577 elements, at most 1048576 are allowed"),
    ],
)
def test_a_variable_must_be_a_tensor_of_reals_within_the_limits(tensor, expected):
    with pytest.raises(InvalidInput) as caught:
        differentiate("1", {"w": tensor})
    assert [(v.field, v.description) for v in caught.value.violations] == [("variables.w", expected)]


def test_a_variable_may_not_be_called_like_a_function(refused):
    assert refused("1", exp=1.0) == [("variables.exp", "exp is a function's name; choose another")]


def test_too_many_variables_are_refused_at_once():
    with pytest.raises(InvalidInput) as caught:
        differentiate("1", {f"w{i}": torch.tensor(1.0) for i in range(101)})
    (violation,) = caught.value.violations
    assert (violation.field, violation.description) == ("variables", "101 are given, at most 100 are allowed")


def test_gradients_of_names_what_exists(refused):
    violations = refused("c = 3; y = c*w", w=1.0, gradients_of=["x", "c", "w", "w", "y"])
    assert violations == [
        ("gradients_of[0]", "unknown name 'x'; names here: w, c, y"),
        ("gradients_of[1]", "c depends on no variable; give it as a variable to differentiate by it"),
        ("gradients_of[3]", "w is listed before"),
    ]


def test_an_error_answer_stays_small_however_many_errors_there_are(refused):
    names = [f"name_{i}" for i in range(300)]
    violations = refused("+".join(names), w=1.0, gradients_of=[f"x{i}" for i in range(100_000)])
    assert len(violations) == 40
    assert sum(len(description) for _, description in violations) < 8192
