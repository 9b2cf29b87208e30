"""Telling that memory ran out from what was raised."""

from __future__ import annotations


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed. PyTorch's CPU allocator raises a plain RuntimeError then."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in str(error) or "not enough memory" in str(error))
    )
