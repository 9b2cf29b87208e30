"""Generated expressions against two oracles: PyTorch driven by Python's own parser, and SymPy's derivatives."""

import sympy
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from epochd_server.domain.errors import InvalidInput
from epochd_server.engine.autodiff import FUNCTIONS, Differentiation, differentiate

F64 = torch.float64
UNARY = sorted(set(FUNCTIONS) - {"matmul", "max", "min"})
NUMBERS = st.sampled_from(["0.5", "1", "2", "3.25", ".125", "1e-1", "1000"])
POINTS = st.floats(-3.0, 3.0)


def maximum(left, right):
    return torch.maximum(left, torch.as_tensor(right, dtype=F64))


def minimum(left, right):
    return torch.minimum(left, torch.as_tensor(right, dtype=F64))


TORCH = {name: getattr(torch, name) for name in UNARY if name not in {"softplus", "relu"}}
TORCH |= {"softplus": F.softplus, "relu": F.relu, "max": maximum, "min": minimum}


def _torch_compound(parts):
    """Larger expressions, mostly without parentheses: Python's parser is the oracle of precedence.

    A number always stands beside a tensor, since Python's arithmetic on two numbers raises where ours must not.
    """
    operators = st.sampled_from([" + ", "-", " * ", "/", "**"])
    call = st.tuples(st.sampled_from(UNARY), parts).map(lambda p: f"{p[0]}({p[1]})")
    minus = parts.map(lambda part: f"-{part}")
    binary = st.tuples(parts, operators, parts).map("".join)
    number_left = st.tuples(NUMBERS, operators, parts).map(lambda p: f"({p[0]}{p[1]}({p[2]}))")
    number_right = st.tuples(parts, operators, NUMBERS).map(lambda p: f"(({p[0]}){p[1]}{p[2]})")
    extremum = st.tuples(st.sampled_from(["max", "min"]), parts, parts | NUMBERS)
    return (
        call | minus | binary | number_left | number_right | extremum.map(lambda p: f"{p[0]}({p[1]}, {p[2]})")
    )


@settings(deadline=None, max_examples=300)
@given(st.recursive(st.sampled_from(["a", "b", "c"]), _torch_compound, max_leaves=10), POINTS, POINTS, POINTS)
def test_any_expression_has_pytorchs_value_and_gradients_to_the_bit(expression, a, b, c):
    leaves = {name: torch.tensor(value, dtype=F64) for name, value in zip("abc", (a, b, c), strict=True)}
    result = differentiate(expression, leaves)

    for leaf in leaves.values():
        leaf.requires_grad_()
    expected = eval(expression, {**TORCH, **leaves})
    expected.backward()
    torch.testing.assert_close(result.value, expected.detach(), rtol=0, atol=0, equal_nan=True)
    for name, leaf in leaves.items():
        gradient = leaf.grad if leaf.grad is not None else torch.zeros((), dtype=F64)
        torch.testing.assert_close(result.gradients[name], gradient, rtol=0, atol=0, equal_nan=True)


SMOOTH = ["sin", "cos", "tanh", "sigmoid", "softplus"]
SYMPY = {
    "sigmoid": lambda x: 1 / (1 + sympy.exp(-x)),
    "softplus": lambda x: sympy.log(1 + sympy.exp(x)),
    "logit": lambda p: sympy.log(p / (1 - p)),
}


def _smooth_compound(parts):
    """Functions without kinks, kept where they are defined and of moderate size."""
    call = st.tuples(st.sampled_from(SMOOTH), parts).map(lambda p: f"{p[0]}({p[1]})")
    guarded = st.sampled_from(
        ["log(1 + ({})**2)", "sqrt(1 + ({})**2)", "exp(-({})**2)", "logit(0.25 + sigmoid({})/2)"]
    )
    binary = st.tuples(parts, st.sampled_from([" + ", " - ", "*"]), parts).map("".join)
    quotient = st.tuples(parts, parts).map(lambda p: f"({p[0]})/(2 + sin({p[1]}))")
    return call | st.tuples(guarded, parts).map(lambda p: p[0].format(p[1])) | binary | quotient


@settings(deadline=None, max_examples=60)
@given(st.recursive(st.sampled_from(["a", "b"]), _smooth_compound, max_leaves=5), POINTS, POINTS)
def test_a_smooth_expression_has_the_derivative_that_sympy_derives(expression, a, b):
    result = differentiate(expression, {"a": torch.tensor(a, dtype=F64), "b": torch.tensor(b, dtype=F64)})
    symbols = {name: sympy.Symbol(name, real=True) for name in "ab"}
    formula = sympy.sympify(expression, locals={**SYMPY, **symbols})
    point = {symbols["a"]: sympy.Float(a, 40), symbols["b"]: sympy.Float(b, 40)}
    # PyTorch's softplus is x above 20, which costs 2e-9 of the derivative.
    pairs = [(result.value, formula)]
    pairs += [(result.gradients[name], sympy.diff(formula, symbol)) for name, symbol in symbols.items()]
    for found, exact in pairs:
        true = float(exact.evalf(40, subs=point))
        assert abs(found.item() - true) <= 1e-8 * (1 + abs(true)), (expression, exact)


SIGNS = ["=", "=", ";", "\n", "(", "(", ")", ")", ",", "+", "-", "−", "*", "/", "**", " "]
ALIENS = ["__import__", ".", "_", "[", "lambda", "é", "\x00", "\u202e"]
WORDS = [*FUNCTIONS, "w", "v", "w", "v", "y", "z", "0", "1", "2.5", "1e308", "999"]
TOKENS = st.sampled_from([*SIGNS, *ALIENS, *WORDS])
SOUP = st.lists(TOKENS, max_size=40).map("".join)
CALLS = st.lists(TOKENS, max_size=40).map(" ".join)


@settings(deadline=None, max_examples=800)
@given(st.text(max_size=80) | SOUP | CALLS)
def test_whatever_the_text_it_is_answered_or_refused(text):
    variables = {"w": torch.tensor(2.0), "v": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
    try:
        result = differentiate(text, variables, repeat=2, accumulate=True)
    except InvalidInput as error:
        fields = {violation.field for violation in error.violations}
        assert fields == {"expression"}
        return
    assert isinstance(result, Differentiation)
    assert result.value.numel() == 1
    assert {name: gradient.shape for name, gradient in result.gradients.items()} == {"w": (), "v": (2, 2)}


VALUES = st.floats(allow_nan=True, allow_infinity=True)
DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, F64, torch.int64, torch.uint8])


@settings(deadline=None, max_examples=200)
@given(
    st.recursive(st.sampled_from(["a", "b", "2", "1e300", "0"]), _torch_compound, max_leaves=6),
    st.lists(st.floats(-1e3, 1e3), min_size=0, max_size=3),
    VALUES,
    DTYPES,
    DTYPES,
)
def test_whatever_the_types_and_values_an_accepted_expression_evaluates(expression, a, b, a_dtype, b_dtype):
    b = b if b_dtype.is_floating_point else 3
    variables = {"a": torch.tensor(a).to(a_dtype), "b": torch.tensor(b, dtype=F64).to(b_dtype)}
    try:
        result = differentiate(f"sum({expression})", variables)
    except InvalidInput as error:
        descriptions = [violation.description for violation in error.violations]
        assert all("exponent" in text or "no elements" in text for text in descriptions)
        return
    assert result.gradients["a"].shape == (len(a),)
    assert result.gradients["a"].dtype == (a_dtype if a_dtype.is_floating_point else F64)
