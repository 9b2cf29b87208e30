"""Results in the shorter types are rounded once, to nearest, ties to even."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochd_server.domain.activations import Activation, ActivationStep
from epochd_server.engine.activations import transform
from epochd_server.engine.activations.rounding import round_to

SHORT = [torch.float16, torch.bfloat16]


def all_finite(dtype: torch.dtype) -> torch.Tensor:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    return every[torch.isfinite(every)]


@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_every_number_and_every_midpoint_is_rounded_to_the_nearest(dtype: torch.dtype) -> None:
    numbers = torch.unique(all_finite(dtype).to(torch.float64))  # sorted
    assert torch.equal(round_to(numbers, dtype).to(torch.float64), numbers)
    below, above = numbers[:-1], numbers[1:]
    middle = (below + above) / 2  # exact
    just_below = torch.nextafter(middle, torch.full_like(middle, -math.inf))
    just_above = torch.nextafter(middle, torch.full_like(middle, math.inf))
    assert torch.equal(round_to(just_below, dtype).to(torch.float64), below)
    assert torch.equal(round_to(just_above, dtype).to(torch.float64), above)
    even = round_to(middle, dtype)
    assert ((even.view(torch.int16) & 1) == 0).all()


@given(st.floats())
def test_float16_agrees_with_numpy(value: float) -> None:
    rounded = round_to(torch.tensor([value], dtype=torch.float64), torch.float16)
    with np.errstate(all="ignore"):
        expected = np.float64(value).astype(np.float16)
    np.testing.assert_array_equal(rounded.numpy(), np.array([expected]))


def test_pytorch_rounds_twice_where_this_rounds_once() -> None:
    above_a_tie = torch.tensor([1 + 2**-11 + 2**-30], dtype=torch.float64)
    assert above_a_tie.to(torch.float16).item() == 1.0
    assert round_to(above_a_tie, torch.float16).item() == 1 + 2**-10


@pytest.mark.parametrize("dtype", SHORT, ids=str)
@pytest.mark.parametrize("function", [Activation.SIGMOID, Activation.GELU, Activation.SOFTPLUS])
def test_half_types_are_the_double_result_rounded(function: Activation, dtype: torch.dtype) -> None:
    x = all_finite(dtype)
    step = ActivationStep(function=function)
    in_double = transform(x.to(torch.float64), [step])
    assert torch.equal(transform(x, [step]), round_to(in_double, dtype))


@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_softmax_of_half_types_is_rounded_once_too(dtype: torch.dtype) -> None:
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    step = ActivationStep(function=Activation.SOFTMAX)
    assert torch.equal(transform(x, [step]), round_to(transform(x.double(), [step]), dtype))


@pytest.mark.parametrize("special", [math.inf, -math.inf, math.nan, 0.0, -0.0, 1e300, -1e300, 1e-300])
@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_special_values_survive(special: float, dtype: torch.dtype) -> None:
    value = torch.tensor([special], dtype=torch.float64)
    actual, expected = round_to(value, dtype), value.to(dtype)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(torch.signbit(actual), torch.signbit(expected)) or math.isnan(special)
