"""One decorator for every compiled kernel of the engine.

Kernels are compiled by numba, kept on disk where that is possible, and never with fast-math: each is a fixed
sequence of IEEE operations for one member, whichever vector lane or loop form the compiler puts it in. That
is what makes a member's bits independent of its neighbours.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {
    # A division by zero gives inf or NaN, as IEEE says, with no branch that keeps a loop from being vectorised.
    "error_model": "numpy",
    "nogil": True,
    # Kernels allocate nothing, so arrays need no reference counts: those are atomic operations, and took
    # as long as the arithmetic of a small model.
    "_nrt": False,
    "no_cfunc_wrapper": True,
}


def kernel(function: _Function) -> _Function:
    """Compiles ``function`` at its first call for each combination of argument types.

    The machine code is cached in ``NUMBA_CACHE_DIR``, else beside the source, else in the user's cache
    folder; where none of them can be written (a read-only installation) it lives in this process only.
    A kernel must not allocate arrays.
    """
    compiled: Any
    try:
        compiled = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        compiled = numba.njit(**_OPTIONS)(function)
    else:
        _stamp_cache(compiled, Path(function.__code__.co_filename).parent)
    return cast("_Function", compiled)


def _stamp_cache(compiled: Any, folder: Path) -> None:
    """Makes the cached code valid for exactly these sources.

    numba looks at the time and size of the one file that holds the function. That misses a change in a function
    it calls, and an upgrade by a wheel, whose files all have one constant time.
    """
    files: Any = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if files is not None and hasattr(files, "_source_stamp"):
        files._source_stamp = _digest(folder)  # noqa: SLF001 - numba has no public way


@functools.cache
def _digest(folder: Path) -> str:
    """A digest of all sources of the engine that go into the machine code of a folder's kernels."""
    digest = hashlib.sha256()
    engine = Path(__file__).parent
    folders = dict.fromkeys((engine, engine / "programs", folder))
    for path in (path for each in folders for path in sorted(each.glob("*.py"))):
        source = path.read_bytes()
        if any(sign in source for sign in (b"@kernel", b"NamedTuple", b"intrinsic(")):
            digest.update(source)
    return digest.hexdigest()
