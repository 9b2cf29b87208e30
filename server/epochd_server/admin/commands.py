"""The commands of `epochd admin`, and their options."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from epochd.cli.output import Output
from epochd_server import settings as all_settings
from epochd_server.admin import showing
from epochd_server.admin.backing_up import back_up
from epochd_server.admin.checking import check as check_all
from epochd_server.admin.collecting import Retention, collect
from epochd_server.admin.place import open_place
from epochd_server.admin.restoring import restore as restore_all
from epochd_server.settings import Settings, flag
from epochd_server.storage.pairing import adopt as adopt_artifacts

app = typer.Typer(
    name="admin",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Check, clean, back up and restore what a server has stored, also while it runs. Where that is, the "
    "server's own settings say: flags, or `EPOCHD_…` variables.",
)

_DataDir = Annotated[str | None, typer.Option("--data-dir", metavar="DIR", help="The server's data folder.")]
_Database = Annotated[
    str | None, typer.Option("--database-url", metavar="URL", help="Its database, where it has another one.")
]
_Artifacts = Annotated[
    str | None,
    typer.Option("--artifacts", metavar="URL", help="Its artifact store, where that is elsewhere."),
]
_Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]
_Copy = Annotated[bool, typer.Option("--copy", help="Copy artifacts even where they could be linked.")]


@app.command("check")
def check(
    data_dir: _DataDir = None,
    database_url: _Database = None,
    artifacts: _Artifacts = None,
    as_json: _Json = False,
) -> None:
    """Verify every digest and every reference; exit code 1 where something is damaged.

    Reads the database, weights, members and datasets whole. Files that nothing refers to are listed; they are no
    damage, and `gc` deletes them.
    """
    chosen, output = _settings(data_dir, database_url, artifacts), Output(as_json=as_json)
    with open_place(chosen, writing=False) as place, showing.progress(output) as progress:
        report = asyncio.run(check_all(place, progress))
    showing.report(output, report)
    raise typer.Exit(0 if report.sound else 1)


@app.command("gc")
def gc(
    data_dir: _DataDir = None,
    database_url: _Database = None,
    artifacts: _Artifacts = None,
    orphan_hours: Annotated[
        float, typer.Option(min=1, help="Delete what nothing refers to when it is older than this.")
    ] = 24.0,
    keep_runs: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Delete runs that ended longer ago; 0: none.")
    ] = None,
    keep_datasets: Annotated[
        float | None,
        typer.Option(
            metavar="DAYS", help="Delete datasets uploaded, and last trained on, longer ago; 0: none."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    as_json: _Json = False,
) -> None:
    """Delete files that nothing refers to, and runs and datasets that are kept no longer.

    How long is said by the settings `--keep-runs` and `--keep-datasets`; models are never deleted.
    """
    given = {"keep_runs": keep_runs, "keep_datasets": keep_datasets}
    chosen, output = _settings(data_dir, database_url, artifacts, **given), Output(as_json=as_json)
    retention = Retention(
        orphans=timedelta(hours=orphan_hours),
        runs=_days(chosen.keep_runs),
        datasets=_days(chosen.keep_datasets),
    )
    with open_place(chosen, writing=True) as place:
        collected = asyncio.run(collect(place, retention, dry_run=dry_run))
    showing.collected(output, collected, dry_run=dry_run)


@app.command("backup")
def backup(
    destination: Annotated[
        Path, typer.Argument(metavar="DEST", help="A folder that is not there, or is empty.")
    ],
    data_dir: _DataDir = None,
    database_url: _Database = None,
    artifacts: _Artifacts = None,
    copy: _Copy = False,
    as_json: _Json = False,
) -> None:
    """Copy a server on SQLite and a folder, while it runs.

    The copy is of one instant. Artifacts, which never change, are hard links where DEST is on the same file system:
    that takes no room, and saves them from being deleted, but not from a failing disk.
    """
    manifest, damage = back_up(
        _settings(data_dir, database_url, artifacts), destination.absolute(), copy=copy
    )
    showing.backed_up(Output(as_json=as_json), manifest, damage, destination)
    raise typer.Exit(1 if damage else 0)


@app.command("restore")
def restore(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A folder that `backup` made.")],
    data_dir: _DataDir = None,
    copy: _Copy = False,
    as_json: _Json = False,
) -> None:
    """Make a data folder of a backup; refuses one that is not empty.

    Every digest is verified. What is damaged in the backup is named, and restored as it is: exit code 1.
    """
    chosen = _settings(data_dir, None, None)
    target = chosen.data_dir.absolute()
    manifest, damage = restore_all(source.absolute(), target, copy=copy)
    showing.restored(Output(as_json=as_json), manifest, damage, target)
    raise typer.Exit(1 if damage else 0)


@app.command("adopt")
def adopt(
    data_dir: _DataDir = None,
    database_url: _Database = None,
    artifacts: _Artifacts = None,
    as_json: _Json = False,
) -> None:
    """Say that these artifacts are those of this database from now on, where they were moved or lost.

    A server, `check` and `gc` refuse artifacts that the database did not have before. Stop all servers first: every
    one of them must be started with the same artifacts. `check` then says what is missing.
    """
    chosen = _settings(data_dir, database_url, artifacts)
    with open_place(chosen, writing=True, together=False) as place:
        with place.engine.begin() as connection:
            adopt_artifacts(connection, place.artifacts, place.store)
        showing.adopted(Output(as_json=as_json), place.store)


def _settings(
    data_dir: str | None, database_url: str | None, artifacts: str | None, **others: float | None
) -> Settings:
    """The server's settings by flags, environment and defaults.

    Raises:
        BadSettings: A value cannot be used.
    """
    given = {"data_dir": data_dir, "database_url": database_url, "artifacts": artifacts, **others}
    arguments: Sequence[str] = [
        word for name, value in given.items() if value is not None for word in (flag(name), str(value))
    ]
    return all_settings.load(arguments, program="epochd admin")


def _days(value: float) -> timedelta | None:
    return timedelta(days=value) if value else None
