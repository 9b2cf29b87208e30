"""Which artifacts a database has: they are marked at the first start, and others are refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, delete, select

from epochd_server.storage import StorageUnusableError, open_storage
from epochd_server.storage.artifact_urls import open_artifacts
from epochd_server.storage.engines import parse_url
from epochd_server.storage.pairing import adopt
from epochd_server.storage.schema import artifact_stores


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path) -> str:
    """Where artifacts are."""
    return str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("bucket")


@pytest.fixture
def start(tmp_path, database_url):
    """Starts and stops a server's storage, as the only one with its data folder."""

    def start(store: str, name: str = "data") -> None:
        opened = open_storage(
            tmp_path / name,
            convert=lambda *_: None,
            most_dataset_bytes=1,
            database_url=database_url,
            artifacts_url=store,
        )
        opened.close()

    return start


@pytest.fixture
def engine(database_url):
    """The database."""
    engine = create_engine(parse_url(database_url))
    yield engine
    engine.dispose()


def marks(store: str, tmp_path) -> frozenset[str]:
    return open_artifacts(store, cache=tmp_path / "none", cache_bytes=0).marks()


def known(engine) -> tuple[str, str]:
    with engine.begin() as connection:
        row = connection.execute(select(artifact_stores)).one()
    return row.mark, row.place


def test_the_first_start_marks_them_and_the_next_one_finds_the_mark(start, store, engine, tmp_path):
    for _ in range(2):
        start(store)
        mark, place = known(engine)
        assert marks(store, tmp_path) == {mark}
        assert place.startswith(store)


def test_others_are_refused_with_both_places_and_the_way_out(start, store, engine, tmp_path):
    """Also those of another database, through a cache that knows the right ones."""
    start(store)
    before = known(engine)
    for other in (f"{store}-2", str(tmp_path / "folder")):
        open_artifacts(other, cache=tmp_path / "none", cache_bytes=0).mark("0" * 32)
        with pytest.raises(StorageUnusableError) as caught:
            start(other)
        said = str(caught.value)
        assert other in said
        assert before[1] in said
        assert "epochd admin adopt" in said
        assert "\n" not in said
        assert marks(other, tmp_path) == {"0" * 32}
    assert known(engine) == before
    start(store)


def test_a_copy_has_the_mark_and_is_remembered(start, engine, tmp_path):
    start(str(tmp_path / "one"))
    mark, _ = known(engine)
    (tmp_path / "one").rename(tmp_path / "two")
    start(str(tmp_path / "two"))
    assert known(engine)[0] == mark
    assert known(engine)[1].startswith(str(tmp_path / "two"))


def test_those_that_are_adopted_are_served_and_keep_the_marks_of_others(start, store, engine, tmp_path):
    start(str(tmp_path / "lost"))
    artifacts = open_artifacts(store, cache=tmp_path / "none", cache_bytes=0)
    artifacts.mark("0" * 32)
    with engine.begin() as connection:
        adopt(connection, artifacts, store)
    start(store)
    mark, place = known(engine)
    assert marks(store, tmp_path) == {"0" * 32, mark}
    assert place.startswith(store)


def test_a_database_without_a_row_gets_a_mark_of_its_own(start, store, engine, tmp_path):
    """One of before there were marks, or one that a crash kept from noting the mark that is there."""
    start(store)
    first, _ = known(engine)
    with engine.begin() as connection:
        connection.execute(delete(artifact_stores))
    start(store)
    second, _ = known(engine)
    assert first != second
    assert marks(store, tmp_path) == {first, second}


def test_of_servers_that_start_at_once_with_different_ones_those_of_one_start(start, engine, tmp_path):
    start(str(tmp_path / "before"))
    with engine.begin() as connection:
        connection.execute(delete(artifact_stores))

    def outcome(number: int) -> bool:
        try:
            start(str(tmp_path / f"store-{number % 2}"), f"data-{number}")
        except StorageUnusableError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(outcome, range(4)))
    assert started in ([True, False] * 2, [False, True] * 2)
