"""Arrays as compiled kernels want them: of one type only, so that nothing is compiled while a client waits."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class _Lender:
    """Shows an array's memory to numpy as writable, and keeps it alive."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        self.__array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.__array_interface__["data"][0], False),
            "version": 3,
        }


def kernel_array(array: Any, dtype: DTypeLike) -> NDArray[Any]:
    """``array`` as C-contiguous, aligned, of ``dtype`` and formally writable; copied only where it must be.

    numba compiles a kernel again for read-only arrays, such as memory-mapped files and received messages are.
    So they are passed as if writable: kernels write to no array that a caller handed in.
    """
    if isinstance(array, np.ndarray) and array.dtype == dtype and array.flags.carray:
        return array
    ready: NDArray[Any] = np.require(array, dtype, ("C_CONTIGUOUS", "ALIGNED"))
    if ready.flags.writeable:
        return ready
    lent: NDArray[Any] = np.asarray(_Lender(ready)) if ready.size else ready.copy()
    return lent


def release(array: NDArray[Any]) -> None:
    """Lets go of the pages of the file that an array is mapped from; nothing where it is in memory of its own.

    They are read again when they are needed, from the page cache as a rule. Nothing may have been written to them.
    """
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)
