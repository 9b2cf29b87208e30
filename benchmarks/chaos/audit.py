"""Holds what is on the server at the end against what the clients were told, and against the control."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import grpc

import epochd
from benchmarks.chaos.bits import digest
from benchmarks.chaos.control import Outcome, end_of, logs_of, prediction_of
from benchmarks.chaos.journal import Journal, RunEntry, Watch
from benchmarks.chaos.killer import Kill
from benchmarks.chaos.recipes import KINDS, Recipe
from benchmarks.chaos.strangers import LABELS
from epochd import events
from epochd.v1 import runs_pb2, runs_pb2_grpc

CANCEL_SECONDS: Final = 1.0
"""A run may still end by itself so long after its cancellation was acknowledged."""

_WORN_OUT: Final = "WORKER_DIED"
_FEWEST_DEATHS: Final = 2
"""A run fails for its worker's deaths after no fewer."""


@dataclass(slots=True)
class Findings:
    """What is wrong, each in words, and what became of the runs."""

    losses: list[str] = field(default_factory=list)
    """Something acknowledged that is not there, or a gap in what a watcher saw."""
    repeats: list[str] = field(default_factory=list)
    """Something that happened, or was seen, twice."""
    unequal: list[str] = field(default_factory=list)
    """Something that differs from the control, in whatever bit."""
    ends: Counter[str] = field(default_factory=Counter)
    """Runs by state."""
    worn_out: int = 0
    """Runs that failed because their worker was killed too often."""
    watches: int = 0
    """Watches that were held against their runs' logs."""
    events_seen: int = 0
    """Events that watchers saw."""
    compared: int = 0
    """Runs that were held against the control."""
    logs: dict[str, list[events.Event]] = field(default_factory=dict)
    """The logs by run."""


def settle(client: epochd.Client, journal: Journal, seconds: float) -> list[str]:
    """Waits until every run has ended, and names those that have not by then."""
    until = time.monotonic() + seconds
    late = []
    for entry in journal.runs:
        if entry.deleted:
            continue
        try:
            client.run(entry.name).wait(timeout=max(0.1, until - time.monotonic()))
        except epochd.DeadlineExceeded:
            late.append(f"{_title(entry)} has not ended within {seconds:.0f} s after the last kill")
    return late


class Audit:
    """One audit.

    Args:
        client: Of the server that was troubled.
        journal: What its clients were told.
        outcomes: What each recipe comes to.
        kills: What was killed.
    """

    def __init__(
        self,
        client: epochd.Client,
        journal: Journal,
        outcomes: Mapping[Recipe, Outcome],
        kills: Sequence[Kill],
    ) -> None:
        self._client = client
        self._journal = journal
        self._outcomes = outcomes
        self._kills = kills
        self.findings = Findings()

    def run(self) -> Findings:
        """Looks at every run, version and alias."""
        with grpc.insecure_channel(self._client.address) as channel:
            stub = runs_pb2_grpc.RunsStub(channel)
            for entry in self._journal.runs:
                self._check_run(entry, stub)
        self._check_listing()
        self._check_versions()
        for alias, version in self._journal.aliases.items():
            if self._client.model(alias).resource_name != version:
                self.findings.losses.append(f"{alias} does not point at {version}, as was acknowledged")
        return self.findings

    def _check_run(self, entry: RunEntry, stub: Any) -> None:
        if entry.deleted:
            self._check_gone(entry)
            return
        try:
            log = list(self._client.run(entry.name).events())
        except epochd.NotFound:
            self.findings.losses.append(f"{_title(entry)} is gone")
            return
        self.findings.logs[entry.name] = log
        self._check_log(entry, log)
        self._check_watches(entry, log, stub)
        self._check_end(entry, log)

    def _check_gone(self, entry: RunEntry) -> None:
        self.findings.ends["deleted"] += 1
        try:
            self._client.run(entry.name)
        except epochd.NotFound:
            return
        self.findings.losses.append(f"{_title(entry)} is back; its deletion was acknowledged")

    def _check_log(self, entry: RunEntry, log: Sequence[events.Event]) -> None:
        """Numbers without gaps, one beginning, one end, and no epoch twice."""
        if [event.sequence for event in log] != list(range(1, len(log) + 1)):
            self.findings.losses.append(f"{_title(entry)}: its log has a gap")
        last = [isinstance(event, events.Succeeded | events.Failed | events.Cancelled) for event in log]
        if not isinstance(log[0], events.Queued) or not last[-1]:
            self.findings.losses.append(f"{_title(entry)}: its log does not go from queued to an end")
        if sum(last) > 1 or sum(isinstance(event, events.Started) for event in log) > 1:
            self.findings.repeats.append(f"{_title(entry)}: it started or ended twice")
        for key, epochs in epochs_of(log).items():
            if epochs != sorted(set(epochs)):
                self.findings.repeats.append(f"{_title(entry)}: an epoch was logged twice ({key})")

    def _check_watches(self, entry: RunEntry, log: Sequence[events.Event], stub: Any) -> None:
        raw: list[str] | None = None
        for watch in entry.watches:
            if watch.raw and raw is None:
                raw = replay(stub, entry.name)
            told = raw if watch.raw else [digest(event) for event in log]
            self._check_watch(entry, watch, told or [])

    def _check_watch(self, entry: RunEntry, watch: Watch, told: Sequence[str]) -> None:
        self.findings.watches += 1
        self.findings.events_seen += len(watch.seen)
        numbers = [number for number, _ in watch.seen]
        if numbers != sorted(set(numbers)):
            self.findings.repeats.append(f"{_title(entry)}: a watcher saw an event twice")
        upto = len(told) if watch.complete else max(numbers, default=watch.after)
        if set(numbers) != set(range(watch.after + 1, upto + 1)):
            self.findings.losses.append(f"{_title(entry)}: a watcher missed an event")
        if any(told[number - 1 : number] != [seen] for number, seen in watch.seen):
            self.findings.losses.append(f"{_title(entry)}: a watcher saw an event that is not in the log")

    def _check_end(self, entry: RunEntry, log: Sequence[events.Event]) -> None:
        end = log[-1]
        self.findings.ends[type(end).__name__.lower()] += 1
        late = entry.cancelled is not None and end.time > entry.cancelled + timedelta(seconds=CANCEL_SECONDS)
        if late and not isinstance(end, events.Cancelled):
            self.findings.losses.append(f"{_title(entry)}: its cancellation was acknowledged, and forgotten")
        if isinstance(end, events.Cancelled) and entry.cancelled is None:
            self.findings.losses.append(f"{_title(entry)}: it was cancelled, which nobody asked for")
        if isinstance(end, events.Failed) and end.reason == _WORN_OUT:
            self._check_worn_out(entry, log)
        elif KINDS[entry.recipe.kind].ends:
            self._compare(entry, log)

    def _check_worn_out(self, entry: RunEntry, log: Sequence[events.Event]) -> None:
        """A run may fail for its worker's deaths only where workers were killed often enough while it was there."""
        self.findings.worn_out += 1
        if sum(log[0].time <= kill.time <= log[-1].time for kill in self._kills) < _FEWEST_DEATHS:
            self.findings.losses.append(f"{_title(entry)}: it failed, though its worker was not killed often")

    def _compare(self, entry: RunEntry, log: Sequence[events.Event]) -> None:
        """Holds a run, and its version, against the control."""
        self.findings.compared += 1
        control, logs, end = self._outcomes[entry.recipe], logs_of(log), log[-1]
        if isinstance(end, events.Cancelled):
            same = all(control.logs.get(key, ())[: len(said)] == said for key, said in logs.items())
        else:
            same = (logs, end_of(end)) == (control.logs, control.end)
        if not same:
            self.findings.unequal.append(f"{_title(entry)}: its log differs from the control's")
        if isinstance(end, events.Succeeded):
            entry.version = end.model_version.removeprefix("models/")

    def _check_listing(self) -> None:
        """Of each request there is one run, and no run without one."""
        listed = [run.name for run in self._client.runs(labels=LABELS)]
        known = {entry.name for entry in self._journal.runs if not entry.deleted}
        if len(set(listed)) != len(listed) or set(listed) - known:
            self.findings.repeats.append(f"{len(listed)} runs are listed, {len(known)} were acknowledged")
        if known - set(listed):
            self.findings.losses.append(f"runs are not listed: {sorted(known - set(listed))[:5]}")
        if len({entry.name for entry in self._journal.runs}) != len(self._journal.runs):
            self.findings.repeats.append("two requests were given one run")

    def _check_versions(self) -> None:
        """Each run that succeeded made one version, which has the control's bits; there are no others."""
        made = Counter(entry.version for entry in self._journal.runs if entry.version)
        self.findings.repeats += [f"{version} was made by two runs" for version, n in made.items() if n > 1]
        kept = {entry.version for entry in self._journal.runs if entry.version and not entry.version_deleted}
        models = {entry.model for entry in self._journal.runs if entry.version}
        listed = {
            version.resource_name.removeprefix("models/")
            for model in models
            for version in _versions(self._client, model)
        }
        self.findings.losses += [f"{version} is gone" for version in sorted(kept - listed)]
        self.findings.repeats += [f"{version} was made by no known run" for version in sorted(listed - kept)]
        for entry in self._journal.runs:
            if entry.version in kept & listed:
                self._compare_version(entry)

    def _compare_version(self, entry: RunEntry) -> None:
        control = self._outcomes[entry.recipe]
        if digest(self._client.model(entry.version).parameters()) != control.parameters:
            self.findings.unequal.append(f"{_title(entry)}: {entry.version} has other bits than the control")
        predictions = {*entry.predictions, prediction_of(self._client, entry.version, entry.recipe)}
        if predictions != {control.prediction}:
            self.findings.unequal.append(f"{_title(entry)}: {entry.version} predicts other bits")


def epochs_of(log: Sequence[events.Event]) -> dict[Any, list[int]]:
    """The epochs that a log tells of, in its order; those of a fleet's members by key."""
    found: dict[Any, list[int]] = {}
    for event in log:
        if isinstance(event, events.EpochLog):
            found.setdefault(getattr(event, "key", None), []).append(event.epoch)
    return found


def replay(stub: Any, run: str) -> list[str]:
    """A run's log as its messages come, in the digests of a raw watcher."""
    return [
        event.SerializeToString(deterministic=True).hex()
        for response in stub.WatchRun(runs_pb2.WatchRunRequest(run=run))
        for event in response.events
    ]


def _versions(client: epochd.Client, model: str) -> list[epochd.Model]:
    """The versions of a model; none where it is not there any more, or was never."""
    try:
        return list(client.versions(model))
    except epochd.NotFound:
        return []


def _title(entry: RunEntry) -> str:
    return f"{entry.name} ({entry.recipe.kind} {entry.recipe.variant}, {entry.request_id})"
