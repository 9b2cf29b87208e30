"""How the results of `epochd admin` look: to people, in a pipe, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from epochd.cli.output import Column, Output, ago
from epochd_server.admin import checking
from epochd_server.admin.checking import Damage, Report
from epochd_server.admin.collecting import Collected
from epochd_server.admin.manifest import Manifest

_DAMAGE: Final = (
    Column("DAMAGED", lambda damage: damage.name or damage.part, style="red"),
    Column("PART", lambda damage: damage.part),
    Column("PROBLEM", lambda damage: damage.problem),
    Column("ARTIFACT", lambda damage: damage.artifact or ""),
)
_ORPHANS: Final = (
    Column("ORPHAN", lambda found: found.name),
    Column("SIZE", lambda found: size(found.size), right=True),
    Column("STORED", lambda found: ago(found.modified)),
)
_NAMES: Final = (Column("DELETED", lambda name: name),)
_WOULD_BE: Final = (Column("WOULD BE DELETED", lambda name: name),)


def size(count: int) -> str:
    """Bytes as people read them, such as ``3.2 MB``."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"


@contextmanager
def progress(output: Output) -> Iterator[checking.Progress]:
    """A bar on the terminal's standard error while artifacts are read; nothing in a pipe."""
    if output.as_json or not output.errors.is_terminal:
        yield lambda _done, _of: None
        return
    columns = TextColumn("checking artifacts"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=output.errors, transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, of: bar.update(task, completed=done, total=of)


def report(output: Output, found: Report) -> None:
    """Shows what a check found."""
    if output.as_json:
        output.json({"sound": found.sound, **asdict(found)})
        return
    facts = {
        "versions": f"{found.versions:,}",
        "datasets": f"{found.datasets:,}",
        "runs": f"{found.runs:,}",
        "artifacts": f"{found.artifacts:,} checked ({size(found.artifact_bytes)} stored)",
        "orphans": _orphan_summary(found),
    }
    output.record(found, facts)
    if found.orphans:
        output.line("")
        output.rows(_ORPHANS, found.orphans, empty="")
    _damage(output, found.damage)
    if found.sound:
        output.text(Text("Everything is as it was stored.", style="green"))


def collected(output: Output, found: Collected, *, dry_run: bool) -> None:
    """Shows what was, or would be, deleted."""
    if output.as_json:
        output.json({"dry_run": dry_run, **asdict(found)})
        return
    names = [*found.runs, *found.datasets]
    names += [orphan.name for orphan in found.orphans] + [f"uploads/{name}" for name in found.uploads]
    output.rows(_WOULD_BE if dry_run else _NAMES, names, empty="There is nothing to delete.")
    if names:
        begin = "Would delete" if dry_run else "Deleted"
        output.text(
            Text(
                f"{begin} {_count(found.runs, 'run')}, {_count(found.datasets, 'dataset')}, "
                f"{_count(found.orphans, 'orphan')} and {_count(found.uploads, 'broken upload')}: "
                f"{size(found.freed_bytes)} of files."
            )
        )


def backed_up(output: Output, manifest: Manifest, damage: Sequence[Damage], destination: Path) -> None:
    """Shows what is in a backup."""
    total = sum(file.size for file in manifest.files)
    if output.as_json:
        output.json({"destination": str(destination), **_facts(manifest), "damage": list(damage)})
        return
    output.text(
        Text(
            f"Backed up {_count(manifest.files[1:], 'artifact')} and the database, {size(total)}, to {destination}."
        )
    )
    _damage(output, damage)


def restored(output: Output, manifest: Manifest, damage: Sequence[Damage], target: Path) -> None:
    """Shows what was restored."""
    if output.as_json:
        output.json({"data_dir": str(target), **_facts(manifest), "damage": list(damage)})
        return
    output.text(
        Text(
            f"Restored {_count(manifest.files[1:], 'artifact')} and the database as of {manifest.created} to {target}."
        )
    )
    _damage(output, damage)


def adopted(output: Output, store: str) -> None:
    """Shows which artifacts are those of the database now."""
    if output.as_json:
        output.json({"artifacts": store})
        return
    output.text(Text(f"The artifacts of the database are those in {store}."))


def _damage(output: Output, damage: Sequence[Damage]) -> None:
    if damage:
        output.line("")
        output.rows(_DAMAGE, damage, empty="")


def _orphan_summary(found: Report) -> str:
    if not found.orphans:
        return "none"
    return f"{len(found.orphans):,} ({size(sum(orphan.size for orphan in found.orphans))}); `gc` deletes them"


def _facts(manifest: Manifest) -> dict[str, object]:
    return {
        "created": manifest.created,
        "schema": manifest.schema,
        "artifacts": len(manifest.files) - 1,
        "bytes": sum(file.size for file in manifest.files),
    }


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things):,} {name}{'' if len(things) == 1 else 's'}"
