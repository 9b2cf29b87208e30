"""`epochd admin restore`: a data folder out of a backup."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import inspect

from epochd_server.admin.backing_up import link_or_copy, new_folder
from epochd_server.admin.checking import CHANGED, MISSING, Damage
from epochd_server.admin.manifest import ARTIFACTS, DATABASE, BackedUp, Manifest
from epochd_server.storage.durable_files import copy_synced, digest_of_file
from epochd_server.storage.engines import make_engine, parse_url
from epochd_server.storage.failures import StorageUnusableError
from epochd_server.storage.local_artifacts import LocalArtifacts
from epochd_server.storage.pairing import mark_of
from epochd_server.storage.schema import artifact_stores


def restore(source: Path, data_dir: Path, *, copy: bool) -> tuple[Manifest, list[Damage]]:
    """Makes a data folder of a backup, whole or not at all.

    Args:
        source: The backup.
        data_dir: Must not be there, or be empty.
        copy: Whether artifacts are copied where they could be linked.

    Returns:
        What was restored, and which of it is damaged: that is restored as it is, so that everything else is served.

    Raises:
        StorageUnusableError: The source is no whole backup, its database is damaged, or the target is not empty.
    """
    manifest = Manifest.read(source)
    damage: list[Damage] = []
    with new_folder(data_dir) as fresh:
        for file in manifest.files:
            problem = _restore_file(source, fresh, file, copy=copy)
            if problem is None:
                continue
            if file.path == DATABASE:
                raise StorageUnusableError(f"the database of the backup {source} {_says(problem)}")
            damage.append(Damage(file.owner, "backup", problem, file.path.partition("/")[2]))
        _hold_together(fresh)
    return manifest, damage


def _restore_file(source: Path, fresh: Path, file: BackedUp, *, copy: bool) -> str | None:
    """What is wrong with a file, which is restored all the same where it is there."""
    given, target = source / file.path, fresh / file.path
    if not given.is_file():
        return MISSING
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.path == DATABASE:
        copy_synced(given, target)
    else:
        link_or_copy(given, target, copy=copy)
    if given.stat().st_size != file.size:
        return CHANGED
    return CHANGED if file.digest is not None and digest_of_file(target) != file.digest else None


def _hold_together(folder: Path) -> None:
    """Marks the artifacts as those of the database, unless that is of an epochd which knew no marks."""
    engine = make_engine(parse_url(f"sqlite:///{folder / DATABASE}"), connections=1, read_only=True)
    try:
        with engine.begin() as connection:
            known = inspect(connection).has_table(artifact_stores.name)
            mark = mark_of(connection) if known else None
    finally:
        engine.dispose()
    if mark is not None:
        LocalArtifacts(folder / ARTIFACTS).mark(mark)


def _says(problem: str) -> str:
    return "is missing" if problem == MISSING else problem
