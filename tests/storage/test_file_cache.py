"""Local copies: downloaded once, checked, and let go of in order of their last use."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from epochd_server.storage.artifacts import ArtifactDamagedError
from epochd_server.storage.durable_files import digest_of
from epochd_server.storage.file_cache import HOLD_SECONDS, FileCache


class Origin:
    """Where files come from; counts how often."""

    def __init__(self) -> None:
        self.downloads = 0

    def of(self, data: bytes):
        def download(path) -> None:
            self.downloads += 1
            path.write_bytes(data)

        return download


@pytest.fixture
def origin():
    return Origin()


@pytest.fixture
def cache(tmp_path):
    return FileCache(tmp_path / "cache", 250)


def age(path, seconds: float) -> None:
    """Makes a copy's last use so long ago."""
    used = time.time() - seconds
    os.utime(path, (used, used))


def test_a_file_is_downloaded_once(cache, origin):
    for _ in range(3):
        assert cache.get("a/b", digest_of(b"x"), origin.of(b"x")).read_bytes() == b"x"
    assert origin.downloads == 1


def test_copies_outlive_a_restart(cache, origin, tmp_path):
    cache.get("a", digest_of(b"x"), origin.of(b"x"))
    FileCache(tmp_path / "cache", 250).get("a", digest_of(b"x"), origin.of(b"x"))
    assert origin.downloads == 1


def test_a_damaged_copy_is_downloaded_again(cache, origin):
    cache.get("a", digest_of(b"x"), origin.of(b"x")).write_bytes(b"garbage")
    assert cache.get("a", digest_of(b"x"), origin.of(b"x")).read_bytes() == b"x"
    assert origin.downloads == 2


def test_what_comes_damaged_is_refused_and_not_kept(cache, origin, tmp_path):
    with pytest.raises(ArtifactDamagedError):
        cache.get("a", digest_of(b"x"), origin.of(b"y"))
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_those_used_longest_ago_make_room(cache, origin):
    paths = {name: cache.get(name, None, origin.of(bytes(100))) for name in "ab"}
    age(paths["a"], 2 * HOLD_SECONDS)
    age(paths["b"], 3 * HOLD_SECONDS)
    cache.get("c", None, origin.of(bytes(100)))
    assert (paths["a"].exists(), paths["b"].exists()) == (True, False)


def test_a_use_makes_a_copy_young_again(cache, origin):
    paths = {name: cache.get(name, None, origin.of(bytes(100))) for name in "ab"}
    age(paths["a"], 3 * HOLD_SECONDS)
    age(paths["b"], 2 * HOLD_SECONDS)
    cache.get("a", None, origin.of(bytes(100)))
    cache.get("c", None, origin.of(bytes(100)))
    assert (paths["a"].exists(), paths["b"].exists()) == (True, False)


def test_what_was_just_given_out_is_kept_whatever_comes(cache, origin):
    paths = [cache.get(name, None, origin.of(bytes(100))) for name in "abcdef"]
    assert all(path.exists() for path in paths)


def test_one_larger_than_the_limit_is_given_all_the_same(cache, origin):
    path = cache.get("a", None, origin.of(bytes(1000)))
    assert path.stat().st_size == 1000


def test_threads_that_ask_at_the_same_time_download_once(cache, origin):
    started = threading.Barrier(8)

    def ask(_: int) -> bytes:
        started.wait()
        return cache.get("a", None, origin.of(b"x")).read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {b"x"}
    assert origin.downloads == 1


def test_a_download_that_breaks_off_leaves_nothing(cache, tmp_path):
    def fail(path) -> None:
        path.write_bytes(b"half")
        raise ConnectionError

    with pytest.raises(Exception, match="STORAGE_UNAVAILABLE"):
        cache.get("a", None, fail)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_what_a_crash_left_half_downloaded_goes_at_the_next_start(cache, tmp_path):
    left, going = tmp_path / "cache" / "a.0123.tmp", tmp_path / "cache" / "b.4567.tmp"
    for path in (left, going):
        path.write_bytes(b"half")
    age(left, 7200)
    FileCache(tmp_path / "cache", 250)
    assert (left.exists(), going.exists()) == (False, True)


def test_forgetting_deletes_the_copy(cache, origin):
    path = cache.get("a", None, origin.of(b"x"))
    for _ in range(2):
        cache.forget("a")
    assert not path.exists()
