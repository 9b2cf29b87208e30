"""One decorator for every compiled kernel of the engine.

Kernels are compiled by numba, kept on disk where that is possible, and never with fast-math: each is a fixed
sequence of IEEE operations for one member, whichever vector lane or loop form the compiler puts it in. That
is what makes a member's bits independent of its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(function: _Function) -> _Function:
    """Compiles ``function`` at its first call for each combination of argument types.

    The machine code is cached in ``NUMBA_CACHE_DIR``, else beside the source, else in the user's cache
    folder; where none of them can be written (a read-only installation) it lives in this process only.
    """
    # error_model="numpy": a division by zero gives inf or NaN as IEEE says, with no branch that would
    # keep the loop around it from being vectorised.
    compiled: Any
    try:
        compiled = numba.njit(cache=True, error_model="numpy", nogil=True)(function)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        compiled = numba.njit(error_model="numpy", nogil=True)(function)
    return cast("_Function", compiled)
