"""The softmax family: every slice alone, within 4 ulp of the true value, with limits at infinity."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from epochd_server.domain.activations import Activation, ActivationStep, Operation, output_shape
from epochd_server.engine.activations import transform

INF = math.inf
SOFTMAX = ActivationStep(function=Activation.SOFTMAX)
LOG_SOFTMAX = ActivationStep(function=Activation.LOG_SOFTMAX)
LOGSUMEXP = ActivationStep(function=Activation.LOGSUMEXP)
SOFTMAX_JACOBIAN = ActivationStep(function=Activation.SOFTMAX, operation=Operation.DERIVATIVE)
LOG_SOFTMAX_JACOBIAN = ActivationStep(function=Activation.LOG_SOFTMAX, operation=Operation.DERIVATIVE)
STEPS = [SOFTMAX, LOG_SOFTMAX, LOGSUMEXP, SOFTMAX_JACOBIAN, LOG_SOFTMAX_JACOBIAN]

HARD_ROWS = [
    [20.0, -20.0],
    [-20.0, 20.0, 20.0],
    [0.0],
    [3.0, 3.0, 3.0],
    [1e300, -1e300, 0.0],
    [0.0, -37.0, -745.5],
    [700.3, 0.1, -0.2, 699.9],
    [-math.log(2), -math.log(2)],
    [-1.0986122886681098] * 3,
    [math.log(0.9), math.log(0.1)],
    [-0.1, -3.0, -2.9],
    [1e-300, 1e-20, -1e-8],
    [-710.0, -720.0],
]


def true_rows(row: list[float], step: ActivationStep) -> list[mpf]:
    """mpmath's result for one slice, flattened."""
    with mpmath.workprec(2400):
        weights = [mpmath.exp(max(mpf(x) - max(row), -20000)) for x in row]
        total = mpmath.fsum(weights)
        s = [w / total for w in weights]
        log_total = max(row) + mpmath.log(total)
        identity = [[mpf(i == j) for j in range(len(row))] for i in range(len(row))]
        if step is SOFTMAX:
            return s
        if step is LOG_SOFTMAX:
            return [x - log_total for x in row]
        if step is LOGSUMEXP:
            return [log_total]
        scale = s if step is SOFTMAX_JACOBIAN else [mpf(1)] * len(s)
        return [scale[i] * (identity[i][j] - s[j]) for i in range(len(s)) for j in range(len(s))]


def worst_ulps(oracle: Any, row: list[float], step: ActivationStep, dtype: torch.dtype) -> float:
    x = torch.tensor(row, dtype=dtype)
    actual = transform(x, [step]).reshape(-1).tolist()
    expected = true_rows(x.tolist(), step)
    return max(oracle.ulps(a, e, dtype) for a, e in zip(actual, expected, strict=True))


def random_rows() -> list[list[float]]:
    g = torch.Generator().manual_seed(3)
    spreads = (1e-3, 0.3, 1.0, 4.0, 30.0, 300.0)
    sizes = (2, 3, 5, 17)
    return [
        (torch.randn(size, generator=g, dtype=torch.float64) * spread).tolist()
        for spread in spreads
        for size in sizes
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("step", STEPS, ids=lambda s: f"{s.function.value}-{s.operation.value}")
def test_within_four_ulp(oracle: Any, step: ActivationStep, dtype: torch.dtype) -> None:
    limit = 1e38 if dtype == torch.float32 else INF
    rows = [row for row in HARD_ROWS if max(map(abs, row)) < limit] + random_rows()
    assert max((worst_ulps(oracle, row, step, dtype), row) for row in rows)[0] <= 4.0


def test_logsumexp_of_log_probabilities_keeps_its_accuracy_where_it_cancels_to_almost_0(oracle: Any) -> None:
    """Rounded log-probabilities sum to 1 but for their own rounding errors, which are the answer."""
    g = torch.Generator().manual_seed(5)
    logits = torch.randn(60, 4, generator=g, dtype=torch.float64)
    rows = torch.log_softmax(logits, 1)
    worst = max(worst_ulps(oracle, row, LOGSUMEXP, torch.float64) for row in rows.tolist())
    assert transform(rows, [LOGSUMEXP]).abs().max() < 1e-15
    assert worst <= 4.0


@settings(max_examples=60, deadline=None)
@given(row=st.lists(st.floats(-800, 800), min_size=1, max_size=6), step=st.sampled_from(STEPS))
def test_within_four_ulp_on_any_row(oracle: Any, row: list[float], step: ActivationStep) -> None:
    assert worst_ulps(oracle, row, step, torch.float64) <= 4.0


@pytest.mark.parametrize("length", [1, 2, 7, 100, 16385])
def test_a_slice_gets_the_same_bits_alone_and_among_others(length: int) -> None:
    g = torch.Generator().manual_seed(length)
    x = torch.randn(9, length, generator=g, dtype=torch.float64) * 5
    for step in [SOFTMAX, LOG_SOFTMAX, LOGSUMEXP]:
        whole = transform(x, [step])
        for i in range(len(x)):
            assert torch.equal(transform(x[i], [step]), whole[i])


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_any_axis_of_any_layout_agrees_with_pytorch(axis: int) -> None:
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for view in (x, x.transpose(0, 2), x[::2, 1:]):
        for function in (Activation.SOFTMAX, Activation.LOG_SOFTMAX, Activation.LOGSUMEXP):
            step = ActivationStep(function=function, axis=axis)
            expected = getattr(torch, function.value)(view, axis)
            actual = transform(view, [step])
            torch.testing.assert_close(actual, expected, rtol=1e-14, atol=1e-15)
            assert tuple(actual.shape) == output_shape(view.shape, [step])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_jacobian_has_the_output_index_on_the_axis_and_the_input_index_last(axis: int) -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for step in (SOFTMAX_JACOBIAN, LOG_SOFTMAX_JACOBIAN):
        function = getattr(torch, step.function.value)
        at_axis = ActivationStep(function=step.function, operation=step.operation, axis=axis)
        full = torch.autograd.functional.jacobian(lambda t, f=function: f(t, axis), x)
        # full[i0, i1, j0, j1]; slices do not mix, so the two indices off the axis are equal
        expected = torch.einsum("abcb->abc", full) if axis == 0 else torch.einsum("abac->abc", full)
        actual = transform(x, [at_axis])
        torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-15)
        assert tuple(actual.shape) == output_shape(x.shape, [at_axis])


def test_the_gradient_and_the_potential() -> None:
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    gradient = ActivationStep(function=Activation.LOGSUMEXP, operation=Operation.DERIVATIVE)
    potential = ActivationStep(function=Activation.SOFTMAX, operation=Operation.ANTIDERIVATIVE)
    assert torch.equal(transform(x, [gradient]), transform(x, [SOFTMAX]))
    assert torch.equal(transform(x, [potential]), transform(x, [LOGSUMEXP]))


def test_infinite_elements_are_limits() -> None:
    x = torch.tensor([[INF, 1.0], [1.0, -INF], [INF, -INF]], dtype=torch.float64)
    assert transform(x, [SOFTMAX]).tolist() == [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]
    assert transform(x, [LOG_SOFTMAX]).tolist() == [[0.0, -INF], [0.0, -INF], [0.0, -INF]]
    assert transform(x, [LOGSUMEXP]).tolist() == [INF, 1.0, INF]
    assert transform(x, [SOFTMAX_JACOBIAN]).abs().max() == 0.0


def test_a_slice_without_a_limit_is_nan_and_leaves_its_neighbours_alone() -> None:
    x = torch.tensor([[INF, INF], [-INF, -INF], [math.nan, 1.0], [0.0, 0.0]], dtype=torch.float64)
    for step in (SOFTMAX, LOG_SOFTMAX, SOFTMAX_JACOBIAN, LOG_SOFTMAX_JACOBIAN):
        result = transform(x, [step])
        assert torch.isnan(result[:3]).all()
        assert torch.isfinite(result[3]).all()
    sums = transform(x, [LOGSUMEXP]).tolist()
    assert sums[:2] == [INF, -INF]
    assert math.isnan(sums[2])


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 4)])
@pytest.mark.parametrize("step", STEPS, ids=lambda s: f"{s.function.value}-{s.operation.value}")
def test_empty_tensors_have_the_right_shape(shape: tuple[int, ...], step: ActivationStep) -> None:
    for axis in range(len(shape)):
        at_axis = ActivationStep(function=step.function, operation=step.operation, axis=axis)
        result = transform(torch.empty(shape), [at_axis])
        assert tuple(result.shape) == output_shape(shape, [at_axis])
        assert result.dtype == torch.float32


def test_the_logsumexp_of_nothing_is_minus_infinity() -> None:
    assert transform(torch.empty(2, 0), [LOGSUMEXP]).tolist() == [-INF, -INF]
