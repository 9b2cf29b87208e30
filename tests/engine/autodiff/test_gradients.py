"""Values, gradients and accumulation, each against the same computation written by hand in PyTorch."""

import pytest
import torch
import torch.nn.functional as F

from epochd_server.engine.autodiff import FUNCTIONS, differentiate

F64 = torch.float64
BY_HAND = {
    "abs": torch.abs,
    "cos": torch.cos,
    "exp": torch.exp,
    "log": torch.log,
    "logit": torch.logit,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
    "softplus": F.softplus,
    "sqrt": torch.sqrt,
    "tanh": torch.tanh,
    "sum": torch.sum,
    "mean": torch.mean,
    "max": torch.max,
    "min": torch.min,
    "matmul": lambda x: torch.matmul(x, x),
}


def leaf(value, dtype=F64):
    return torch.tensor(value, dtype=dtype, requires_grad=True)


def same(left, right):
    """Equal in type, shape and every bit that is not the sign of a NaN."""
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and torch.equal(left.isnan(), right.isnan())
        and torch.equal(left.nan_to_num(nan=0.0), right.nan_to_num(nan=0.0))
    )


def test_the_example_of_the_interface(diff):
    result = diff("2*w**2 + 5", w=2.0)
    assert result.value.item() == 13.0
    assert {name: gradient.item() for name, gradient in result.gradients.items()} == {"w": 8.0}


def test_gradients_accumulate_as_in_the_classic_loop(diff):
    w = leaf(2.0)
    expected = []
    for _ in range(21):
        (2 * w).backward()
        expected.append(w.grad.item())
    history = diff("z = 2*w", w=2.0, repeat=21, accumulate=True).history
    assert [passed["w"].item() for passed in history] == expected == [2.0 * k for k in range(1, 22)]


def test_gradients_are_zeroed_before_each_pass_by_default(diff):
    history = diff("z = 2*w", w=2.0, repeat=21).history
    assert [passed["w"].item() for passed in history] == [2.0] * 21


def test_the_derivative_goes_through_an_intermediate(diff):
    result = diff("y = w**2\nz = 2*y + 5", w=2.0)
    assert result.gradients["w"].item() == 8.0
    assert {name: value.item() for name, value in result.intermediates.items()} == {"y": 4.0, "z": 13.0}


def test_gradients_of_intermediates_are_those_retain_grad_keeps(diff):
    w = leaf(3.0)
    y = w**2
    y.retain_grad()
    z = torch.sin(y) * w
    z.backward()
    result = diff("y = w**2; z = sin(y) * w", w=3.0, gradients_of=["y", "w", "z"])
    assert list(result.gradients) == ["y", "w", "z"]
    assert same(result.gradients["y"], y.grad)
    assert same(result.gradients["w"], w.grad)
    assert result.gradients["z"].item() == 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_accumulated_gradients_round_as_pytorch_rounds_them(dtype):
    w = leaf([0.1, 0.7, -1.3], dtype)
    y = w * w * 0.3
    y.retain_grad()
    z = torch.exp(y).sum() / 3
    result = differentiate(
        "y = w*w*0.3; z = sum(exp(y))/3",
        {"w": w},
        gradients_of=["w", "y"],
        repeat=30,
        accumulate=True,
    )
    for passed in result.history:
        z.backward(retain_graph=True)
        assert same(passed["w"], w.grad)
        assert same(passed["y"], y.grad)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_every_function_is_pytorchs_in_every_type(name, dtype):
    values = [0.0, 0.25, 0.5, 0.75, 1.0, -2.0, 30.0]
    w = leaf(values, dtype)
    call = "matmul(w, w)" if name == "matmul" else f"{name}(w)"
    expected = BY_HAND[name](w).sum()
    expected.backward()
    result = differentiate(f"sum({call})", {"w": w.detach()})
    assert same(result.value, expected.detach())
    assert same(result.gradients["w"], w.grad)


@pytest.mark.parametrize(
    ("expression", "by_hand"),
    [
        ("sum(a + b)", lambda a, b: (a + b).sum()),
        ("sum(a - b)", lambda a, b: (a - b).sum()),
        ("sum(a * b)", lambda a, b: (a * b).sum()),
        ("sum(a / b)", lambda a, b: (a / b).sum()),
        ("sum(a ** b)", lambda a, b: (a**b).sum()),
        ("sum(-a * b)", lambda a, b: (-a * b).sum()),
        ("sum(max(a, b))", lambda a, b: torch.maximum(a, b).sum()),
        ("sum(min(a, b))", lambda a, b: torch.minimum(a, b).sum()),
        ("sum(matmul(a, b))", lambda a, b: torch.matmul(a, b).sum()),
        (
            "sum(max(a, 0.5)) + sum(min(0.25, b))",
            lambda a, b: a.clamp_min(0.5).sum() + b.clamp_max(0.25).sum(),
        ),
    ],
)
def test_operators_on_matrices(expression, by_hand):
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(3, 3, dtype=F64, generator=generator, requires_grad=True)
    b = torch.rand(3, 3, dtype=F64, generator=generator, requires_grad=True)
    by_hand(a, b).backward()
    result = differentiate(expression, {"a": a, "b": b})
    assert same(result.value, by_hand(a, b).detach())
    assert same(result.gradients["a"], a.grad)
    assert same(result.gradients["b"], b.grad)


@pytest.mark.parametrize(
    ("left", "right"),
    [((4,), (4,)), ((2, 4), (4,)), ((4,), (4, 3)), ((5, 2, 4), (4, 3)), ((1, 2, 4), (5, 4, 3))],
)
def test_matmul_takes_vectors_matrices_and_batches(left, right):
    a = torch.ones(left, dtype=F64, requires_grad=True)
    b = torch.full(right, 0.5, dtype=F64, requires_grad=True)
    torch.matmul(a, b).sum().backward()
    result = differentiate("sum(matmul(a, b))", {"a": a, "b": b})
    assert same(result.gradients["a"], a.grad)
    assert same(result.gradients["b"], b.grad)


def test_a_least_squares_loss_over_tensors():
    x = torch.tensor([[1.0], [2.0], [3.0]])
    y = torch.tensor([[2.0], [4.0], [6.0]])
    w, b = leaf([[0.0]], torch.float32), leaf([0.0], torch.float32)
    loss = F.mse_loss(x @ w + b, y)
    loss.backward()
    result = differentiate(
        "mean((matmul(x, w) + b - y)**2)", {"x": x, "y": y, "w": w, "b": b}, gradients_of=["w", "b"]
    )
    assert result.value.item() == pytest.approx(18.666666, abs=1e-6)
    torch.testing.assert_close(result.gradients["w"], w.grad)
    torch.testing.assert_close(result.gradients["b"], b.grad)


@pytest.mark.parametrize(
    ("expression", "w", "value"),
    [
        ("1/w", 0.0, float("inf")),
        ("-1/w", 0.0, float("-inf")),
        ("w/0", 0.0, float("nan")),
        ("w + 1/0", 1.0, float("inf")),
        ("w + 0/0", 1.0, float("nan")),
        ("log(w)", -1.0, float("nan")),
        ("log(w)", 0.0, float("-inf")),
        ("sqrt(w)", -1.0, float("nan")),
        ("exp(w)", 1e4, float("inf")),
        ("w + 10**999", 1.0, float("inf")),
        ("w + (-8)**0.5", 1.0, float("nan")),
        ("logit(w)", 1.0, float("inf")),
        ("w**0", float("nan"), 1.0),
    ],
)
def test_arithmetic_follows_ieee_754_and_does_not_fail(diff, expression, w, value):
    assert diff(expression, w=w).value.item() == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_an_integer_variable_is_taken_as_float64(dtype):
    result = differentiate("w**2", {"w": torch.tensor(3, dtype=dtype)})
    assert same(result.value, torch.tensor(9.0, dtype=F64))
    assert same(result.gradients["w"], torch.tensor(6.0, dtype=F64))


def test_a_constant_takes_on_the_type_of_the_tensor_it_meets():
    w = torch.tensor(2.0, dtype=torch.float32)
    assert differentiate("half = 1/2; w * half + exp(1)", {"w": w}).value.dtype == torch.float32
    assert differentiate("max(w, 1/3)", {"w": w}).value.dtype == torch.float32


def test_mixed_types_are_promoted_and_gradients_keep_the_type_of_their_variable():
    a = torch.ones(2, 2, dtype=torch.float32)
    b = torch.ones(2, 2, dtype=F64)
    for expression in ("sum(a * b)", "sum(matmul(a, b))", "sum(max(a, b))"):
        result = differentiate(expression, {"a": a, "b": b})
        assert result.value.dtype == F64
        assert result.gradients["a"].dtype == torch.float32
        assert result.gradients["b"].dtype == F64


@pytest.mark.parametrize("expression", ["5", "b", "c = 3; c*b", "b + 0*sum(b)"])
def test_a_gradient_is_zero_where_the_output_does_not_depend_on_the_name(diff, expression):
    result = diff(expression, w=[1.0, 2.0], b=4.0, gradients_of=["w"], repeat=2, accumulate=True)
    assert [passed["w"].tolist() for passed in result.history] == [[0.0, 0.0]] * 2


def test_an_expression_needs_no_variables(diff):
    result = diff("a = 2**10; a - 1")
    assert result.value.item() == 1023.0
    assert (result.gradients, result.intermediates["a"].item()) == ({}, 1024.0)


def test_no_gradients_asked_for_means_those_of_all_variables(diff):
    assert list(diff("w*b", w=1.0, b=2.0, gradients_of=[]).gradients) == ["w", "b"]


def test_an_output_of_one_element_may_have_any_shape():
    w = torch.tensor([[1.0, 2.0]])
    result = differentiate("matmul(w, v)", {"w": w, "v": torch.tensor([[3.0], [4.0]])})
    assert same(result.value, torch.tensor([[11.0]]))
    assert same(result.gradients["w"], torch.tensor([[3.0, 4.0]]))


def test_a_second_name_for_a_value_has_the_same_gradient_as_the_value(diff):
    w = leaf(2.0)
    y = w
    (y * w).backward()
    gradients = diff("y = w; y*w", w=2.0, gradients_of=["y", "w"]).gradients
    assert gradients["y"].item() == gradients["w"].item() == w.grad.item() == y.grad.item()


def test_empty_tensors_reduce_as_in_pytorch(diff):
    result = diff("sum(w) + sum(w*v)", w=torch.zeros(0, 3), v=torch.zeros(3))
    assert result.value.item() == 0.0
    assert result.gradients["w"].shape == (0, 3)
    assert torch.isnan(diff("mean(w)", w=torch.zeros(0)).value)


def test_the_given_tensors_are_left_alone():
    w = leaf([1.0, 2.0])
    result = differentiate("sum(w*w)", {"w": w}, accumulate=True, repeat=2)
    assert w.grad is None
    result.gradients["w"].zero_()
    assert w.tolist() == [1.0, 2.0]


def test_the_value_is_a_copy_even_when_the_expression_is_a_bare_name():
    w = torch.tensor(1.0)
    differentiate("w", {"w": w}).value.zero_()
    assert w.item() == 1.0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_autograd_mode_does_not_matter(mode):
    with mode():
        result = differentiate("w**3", {"w": torch.tensor(2.0)})
    assert result.gradients["w"].item() == 12.0


def test_results_are_plain_contiguous_tensors(diff):
    result = diff("y = w + v; sum(y)", w=torch.ones(3, 4).t(), v=1.0, gradients_of=["w", "v", "y"])
    tensors = [result.value, *result.intermediates.values(), *result.gradients.values()]
    assert not any(tensor.requires_grad for tensor in tensors)
    assert all(gradient.is_contiguous() for gradient in result.gradients.values())
