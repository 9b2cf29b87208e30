"""Kernels compile wherever they come from, and their cached code follows the sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from epochd_server.engine import compiling
from epochd_server.engine.shuffling import permute


def test_without_a_place_to_cache_a_kernel_lives_in_the_process() -> None:
    names: dict[str, Any] = {}
    exec("def twice(x):\n    return 2 * x\n", names)  # numba finds no file, so no folder to cache in
    assert compiling.kernel(names["twice"])(21) == 42


def test_cached_code_is_stamped_with_the_sources() -> None:
    stamp = permute._cache._cache_file._source_stamp  # type: ignore[attr-defined]
    assert stamp == compiling._digest(Path(compiling.__file__).parent)
    assert len(stamp) == 64
