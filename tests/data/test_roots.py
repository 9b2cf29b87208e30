"""Which files of the server a client may name."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd_server.data.roots import DataRoots
from epochd_server.domain.errors import EpochdError, Reason


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``root`` with files and links, and ``secret`` beside it."""
    folder = tmp_path_factory.mktemp("roots")
    (folder / "root" / "deep").mkdir(parents=True)
    (folder / "root2").mkdir()
    (folder / "root" / "deep" / "a.csv").write_text("x\n1\n")
    for secret in (folder / "secret.csv", folder / "root2" / "b.csv"):
        secret.write_text("secret")
    (folder / "root" / "link.csv").symlink_to(folder / "secret.csv")
    (folder / "root" / "out").symlink_to(folder)
    (folder / "root" / "in.csv").symlink_to("deep/a.csv")
    os.mkfifo(folder / "root" / "pipe")
    return folder


def make_roots(roots: list[str]) -> DataRoots:
    return DataRoots(roots, copies=Path("nowhere"), most_bytes=100)


def reason(roots: DataRoots, path: str) -> Reason:
    with pytest.raises(EpochdError) as caught:
        roots.open(path)
    return caught.value.reason


def test_a_file_below_a_root_is_opened(folder: Path) -> None:
    roots = make_roots([str(folder / "other"), str(folder / "root")])
    with roots.open(f"{folder}/root/deep/a.csv") as file:
        assert file.read() == b"x\n1\n"


@pytest.mark.parametrize(
    "path",
    [
        "{}/secret.csv",
        "{}/root2/b.csv",
        "{}/root",
        "{}/root/deep",
        "{}/root/../secret.csv",
        "{}/root/deep/../../secret.csv",
        "{}/root/link.csv",
        "{}/root/out/secret.csv",
        "{}/root/in.csv",
        "{}/root/pipe",
        "{}/root/deep/a.csv/x",
        "/{}/root/deep/a.csv",
        "file://{}/root/deep/a.csv",
        "s3://bucket/a.csv",
        "{}/root/deep/a.csv\0.csv",
        "root/deep/a.csv",
        "/etc/passwd",
        "/proc/self/environ",
        "",
    ],
)
def test_everything_else_is_denied(folder: Path, path: str) -> None:
    roots = make_roots([str(folder / "root")])
    assert reason(roots, path.format(folder)) is Reason.PATH_NOT_ALLOWED


def test_without_roots_nothing_is_readable(folder: Path) -> None:
    assert reason(make_roots([]), f"{folder}/root/deep/a.csv") is Reason.PATH_NOT_ALLOWED


def test_a_missing_file_below_a_root_is_told_as_such(folder: Path) -> None:
    assert reason(make_roots([str(folder / "root")]), f"{folder}/root/none.csv") is Reason.FILE_NOT_FOUND


@given(
    st.lists(
        st.sampled_from(["..", ".", "", "root", "deep", "out", "link.csv", "secret.csv", "a.csv"]), max_size=6
    )
)
def test_no_path_leads_to_a_secret(folder: Path, parts: list[str]) -> None:
    with contextlib.suppress(EpochdError):
        file = make_roots([str(folder / "root")]).open("/".join([f"{folder}/root", *parts]))
        with file:
            assert file.read() == b"x\n1\n"


def test_a_root_that_is_a_link_is_followed_once(folder: Path) -> None:
    (folder / "alias").symlink_to(folder / "root")
    with make_roots([str(folder / "alias")]).open(f"{folder}/alias/deep/a.csv") as file:
        assert file.read() == b"x\n1\n"
