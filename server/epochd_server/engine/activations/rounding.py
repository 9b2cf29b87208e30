"""Rounding float64 results to the type of the input, once."""

from __future__ import annotations

import torch
from torch import Tensor


def round_to(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns float64 ``value`` in ``dtype``, rounded to nearest, ties to even.

    PyTorch converts float64 to the 16-bit types by way of float32, which rounds twice. The first of the two
    is made harmless by rounding to odd (Boldo and Melquiond 2008): float32 has more than two bits to spare.
    """
    if dtype in (torch.float64, torch.float32):
        return value.to(dtype)
    return _to_float32_odd(value).to(dtype)


def _to_float32_odd(value: Tensor) -> Tensor:
    """Rounds to float32: a value that is not exact becomes its neighbour with the odd last bit."""
    nearest = value.to(torch.float32)
    back = nearest.to(torch.float64)
    bits = nearest.view(torch.int32)
    towards_0 = bits - (torch.abs(back) > torch.abs(value)).to(torch.int32)
    return (towards_0 | (back != value).to(torch.int32)).view(torch.float32)
