"""The schema: made once, held against the tables' description, and never touched when it is newer."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

import epochd_server.storage.migrations as migrations
from epochd.v1.models_pb2 import ImportHeader, PromoteMemberRequest
from epochd.v1.trainer_pb2 import TrainRequest
from epochd_server.codec.asked import asked
from epochd_server.codec.models import encode_card
from epochd_server.domain.commands import AliasCommand
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.resources import VersionReference
from epochd_server.storage import Database, StorageUnusableError, open_storage
from epochd_server.storage.engines import parse_url
from epochd_server.storage.migrating import KNOWN, upgrade
from epochd_server.storage.schema import HEAD, metadata
from epochd_server.storage.weights import pack


@pytest.fixture
def bare_url(database_url):
    """A database without any table."""
    engine = create_engine(parse_url(database_url))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return database_url


def test_makes_exactly_the_tables_that_are_described(bare_url):
    Database(bare_url).close()
    engine = create_engine(parse_url(bare_url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == HEAD
    engine.dispose()


def test_knows_every_migration_there_is():
    scripts = ScriptDirectory(migrations.__path__[0])
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == KNOWN
    assert KNOWN[-1] == HEAD == scripts.get_current_head()


async def test_versions_of_the_first_schema_keep_their_weights(bare_url, tmp_path, make):
    """As they were stored by a server that knew no fleets, whose tables are made here by its migration."""
    engine = create_engine(parse_url(bare_url))
    with engine.begin() as connection:
        upgrade(connection, "0001")
        data = pack(make.trained("01J" + "0" * 23).parameters)
        _insert_version(connection, make, data)
    engine.dispose()
    storage = open_storage(
        tmp_path / "data", convert=lambda *_: None, most_dataset_bytes=1, database_url=bare_url
    )
    try:
        assert (await storage.models.get_version(VersionReference("old"))).card.rows == 3
        found = await storage.models.load_parameters("old", 1)
        assert found["linear.weight"].tolist() == [[0, 1, 2, 3]]
    finally:
        storage.close()


def _insert_version(connection, make, data) -> None:
    run_id = "01J" + "0" * 23
    card = encode_card(make.trained(run_id).card)
    connection.execute(text("INSERT INTO models VALUES ('old', 1, 0, 0)"))
    connection.execute(
        text("INSERT INTO versions VALUES ('old', 1, :run, 0, :card, :digest, :size, NULL)"),
        {"run": run_id, "card": card, "digest": hashlib.sha256(data).hexdigest(), "size": len(data)},
    )
    connection.execute(text("INSERT INTO version_weights VALUES ('old', 1, :data)"), {"data": data})


async def test_aliases_of_the_second_schema_begin_their_history_where_they_point(bare_url, tmp_path, make):
    """As they were stored by a server that knew no canaries, whose tables are made here by its migration."""
    engine = create_engine(parse_url(bare_url))
    with engine.begin() as connection:
        upgrade(connection, "0002")
        _insert_version(connection, make, pack(make.trained("01J" + "0" * 23).parameters))
        connection.execute(text("INSERT INTO aliases VALUES ('old', 'best', 1)"))
    engine.dispose()
    storage = open_storage(
        tmp_path / "data", convert=lambda *_: None, most_dataset_bytes=1, database_url=bare_url
    )
    try:
        model = await storage.models.get_model("old")
        assert (model.aliases["best"].version, model.aliases["best"].canary) == (1, None)
        [move] = await storage.models.list_alias_moves("old", "best", 9)
        assert (move.move, move.version, move.time) == (1, 1, model.update_time)
        again = AliasCommand(model="old", alias="best", version=1, etag=model.aliases["best"].etag)
        assert await storage.models.set_alias(again, model.update_time) == model
        assert (await storage.models.get_version(VersionReference("old", alias="best"))).labels == {}
    finally:
        storage.close()


async def test_request_ids_of_the_third_schema_are_still_known(bare_url, tmp_path, make):
    """As they were stored with runs and promotions, in tables that are made here by their migrations."""
    engine = create_engine(parse_url(bare_url))
    trained, promoted, imported = make.asked("t"), _asked(PROMOTION, "p"), _asked(IMPORT, "i")
    with engine.begin() as connection:
        upgrade(connection, "0003")
        run = (
            "INSERT INTO runs (run_id, state, model, client, request_id, fingerprint, spec, create_time, "
            "latest_sequence) VALUES (:run, 'FAILED', 'old', '', :id, :fingerprint, :spec, 0, 1)"
        )
        values = {"run": "01J" + "0" * 23, "id": "t", "fingerprint": trained.fingerprint, "spec": b""}
        connection.execute(text(run), values)
        connection.execute(text(run), {**values, "run": "01J" + "0" * 22 + "1", "id": None})
        connection.execute(text("INSERT INTO models VALUES ('old', 2, 0, 0, NULL)"))
        version = "INSERT INTO versions VALUES ('old', :version, :run, 0, :card, '', 0, NULL, NULL)"
        for number, one in enumerate((promoted, imported), 1):
            connection.execute(text(version), {"version": number, "run": f"r{number}", "card": b""})
            made = {"id": one.request_id, "fingerprint": one.fingerprint, "version": number}
            connection.execute(
                text("INSERT INTO promotions VALUES (:id, :fingerprint, 'old', :version)"), made
            )
    engine.dispose()
    storage = open_storage(
        tmp_path / "data", convert=lambda *_: None, most_dataset_bytes=1, database_url=bare_url
    )
    try:
        assert await storage.runs.find_made(trained) == "01J" + "0" * 23
        assert await storage.answers.find(promoted) == b"models/old/versions/1"
        assert await storage.answers.find(imported) == b"models/old/versions/2"
        for other in (make.asked("t", "other"), make.asked("p"), _asked(PROMOTION, "i")):
            with pytest.raises(EpochdError) as caught:
                await storage.answers.find(other)
            assert caught.value.reason is Reason.REQUEST_ID_REUSED
            assert caught.value.metadata == {"request_id": other.request_id}
    finally:
        storage.close()


def test_runs_of_the_seventh_schema_keep_the_datasets_by_which_they_are_validated(bare_url):
    engine = create_engine(parse_url(bare_url))
    requests = {"a": _validated_by("ab" * 32), "b": b"\xff no request", "c": _validated_by("cd" * 32)}
    with engine.begin() as connection:
        upgrade(connection, "0007")
        run = (
            "INSERT INTO runs (run_id, state, model, client, fingerprint, spec, create_time, latest_sequence) "
            "VALUES (:run, :state, 'old', '', :spec, :spec, 0, 1)"
        )
        for name, request in requests.items():
            state = "cancelled" if name == "c" else "queued"
            connection.execute(text(run), {"run": name, "state": state, "spec": b""})
            values = {"run": name, "request": request}
            connection.execute(text("INSERT INTO run_requests VALUES (:run, :request)"), values)
        upgrade(connection)
        found = connection.execute(text("SELECT run_id, validation_dataset FROM runs")).all()
    engine.dispose()
    assert dict(map(tuple, found)) == {"a": "ab" * 32, "b": None, "c": None}


def _validated_by(digest):
    request = TrainRequest()
    request.validation.dataset = f"datasets/{digest}"
    return request.SerializeToString()


PROMOTION = PromoteMemberRequest(name="models/old", model_name="old")
IMPORT = ImportHeader(model_name="old", size_bytes=3)


def _asked(request, request_id):
    data = request.SerializeToString(deterministic=True)
    before = {ImportHeader: b"import"}.get(type(request), b"")
    found = asked(request, request_id, data)
    # As the servers of that schema made it.
    assert found.fingerprint == hashlib.sha256(before + data).digest()
    return found


def test_many_servers_may_start_at_once(bare_url):
    with ThreadPoolExecutor(8) as pool:
        for database in pool.map(lambda _: Database(bare_url), range(8)):
            database.close()


def test_a_newer_schema_is_refused_in_one_clear_line_and_left_alone(bare_url):
    Database(bare_url).close()
    engine = create_engine(parse_url(bare_url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        before = inspect(connection).get_table_names()
    with pytest.raises(StorageUnusableError) as caught:
        Database(bare_url)
    message = str(caught.value)
    assert "schema 9999 of a newer epochd" in message
    assert "Upgrade epochd" in message
    assert "\n" not in message
    with engine.begin() as connection:
        assert inspect(connection).get_table_names() == before
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{HEAD}'"))
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "cannot be read"),
        ("mysql://root@localhost/epochd", "neither a SQLite file nor PostgreSQL"),
        ("sqlite://", "neither a SQLite file nor PostgreSQL"),
        ("postgresql://epochd:secret@127.0.0.1:1/epochd", "cannot be used: connection"),
        ("sqlite:////proc/nowhere/epochd.db", "cannot be used: unable to open database file"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_clear_line(url, said):
    with pytest.raises(StorageUnusableError) as caught:
        Database(url)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
