"""Running kernels over tensors of any size and layout in blocks that fit the cache.

A block is padded to whole vectors, so that an element's bits depend neither on its place nor on how the
tensor was cut (see ``primitives``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from epochd_server.engine.activations.primitives import pad_to_lanes
from epochd_server.engine.activations.rounding import round_to

BLOCK = 16384
"""Elements at a time: a handful of float64 temporaries stay in the second-level cache, and PyTorch does not
split so short a tensor among threads."""

Kernel = Callable[[Tensor], Tensor]
OnBlock = Callable[[Tensor, int], None]


def run_elementwise(
    x: Tensor, kernels: Sequence[Kernel], dtype: torch.dtype, on_block: OnBlock | None = None
) -> Tensor:
    """Applies kernels in order to every element.

    Args:
        x: Any shape, layout and floating-point type.
        kernels: Functions of a one-dimensional float64 tensor of whole vectors.
        dtype: The result's type; float64 is kept from the first kernel to the last and rounded once.
        on_block: Called with each block of the float64 result and its first index in row-major order.

    Returns:
        A new contiguous tensor of the shape of ``x``.
    """
    flat = x.reshape(-1)
    result = torch.empty(flat.shape, dtype=dtype, device=x.device)
    for start in range(0, flat.numel(), BLOCK):
        chunk = flat[start : start + BLOCK]
        work = pad_to_lanes(chunk.to(torch.float64))
        for kernel in kernels:
            work = kernel(work)
        work = work[: chunk.numel()]
        if on_block is not None:
            on_block(work, start)
        result[start : start + BLOCK] = round_to(work, dtype)
    return result.view(x.shape)


def run_along_axis(x: Tensor, kernel: Kernel, axis: int, dtype: torch.dtype) -> Tensor:
    """Applies a kernel of rows to every slice along ``axis``.

    Args:
        x: Any shape with at least one dimension, any layout and floating-point type.
        kernel: Maps float64 rows ``[R, N]`` to ``[R]``, ``[R, N]`` or ``[R, N, N]``, each row alone.
        axis: The axis of the slices.
        dtype: The result's type.

    Returns:
        A new tensor: ``axis`` is dropped, kept, or kept and repeated as a new last dimension.
    """
    moved = x.movedim(axis, -1)
    length = moved.shape[-1]
    rows = moved.reshape(-1, length) if length else moved.new_empty((moved[..., 0:0].shape[:-1].numel(), 0))
    kept = kernel(rows.new_empty((0, length), dtype=torch.float64)).shape[1:]
    result = torch.empty((rows.shape[0], *kept), dtype=dtype, device=x.device)
    step = max(1, BLOCK // max(1, length, kept.numel()))
    for start in range(0, rows.shape[0], step):
        block = kernel(rows[start : start + step].to(torch.float64))
        result[start : start + step] = round_to(block, dtype)
    result = result.view((*moved.shape[:-1], *kept))
    return _restore(result, axis % x.dim(), len(kept)).contiguous()


def _restore(result: Tensor, axis: int, kept_dimensions: int) -> Tensor:
    """Moves the slice's dimension back from where ``run_along_axis`` put it."""
    return result if kept_dimensions == 0 else result.movedim(-kept_dimensions, axis)
