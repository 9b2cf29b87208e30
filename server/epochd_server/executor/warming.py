"""Warming a worker up: ``python -m epochd_server.executor.warming`` only fills the cache of compiled kernels."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from epochd_server.domain.specs import Precision
from epochd_server.engine.warmup import warm_up


def warm_up_side_by_side() -> None:
    """Warms this process up; what is not in the cache on disk yet is compiled once for this machine.

    Of processes that start together each compiles another precision, while the rest wait to find it in the cache.
    """
    taken = []
    for precision in Precision:
        with _lock(precision, wait=False) as held:
            if held:
                warm_up(precision)
            else:
                taken.append(precision)
    for precision in taken:
        with _lock(precision, wait=True):
            warm_up(precision)


@contextmanager
def _lock(precision: Precision, *, wait: bool) -> Iterator[bool]:
    """Lets one process of this user compile a precision; gives whether this one may."""
    folder = os.environ.get("NUMBA_CACHE_DIR") or tempfile.gettempdir()
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        file = os.open(Path(folder) / f"epochd-warm-up-{os.getuid()}-{precision.value}.lock", flags, 0o600)
    except OSError:  # a folder that nobody can write to holds no cache either
        yield True
        return
    try:
        yield _take(file, wait=wait)
    finally:
        os.close(file)


def _take(file: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    warm_up_side_by_side()
