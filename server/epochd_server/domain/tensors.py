"""Tensors as plain bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class RawTensor:
    """A tensor as bytes, for whoever has a tensor library that knows bfloat16.

    Attributes:
        dtype: Name in PyTorch and NumPy, such as ``bfloat16``.
        shape: Size of each dimension.
        data: Little-endian row-major elements, exactly as many as the shape says. Read-only.
    """

    dtype: str
    shape: tuple[int, ...]
    data: memoryview
