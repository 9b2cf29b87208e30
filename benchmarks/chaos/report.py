"""The counts of a chaos run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.chaos.audit import Findings
from benchmarks.chaos.journal import Journal
from benchmarks.chaos.killer import Kill, Victim
from epochd import events

_FROM_THE_START = "from its first epoch"
"""What the log says of a run that was not saved."""
_SHOWN = 20
"""So many findings are told in words."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a chaos run.

    Attributes:
        kills: All that were tried.
        journal: What the clients were told.
        findings: What the audit found.
        starts: Seconds that each start of the server took.
        problems: Errors that the server logged.
    """

    kills: Sequence[Kill]
    journal: Journal
    findings: Findings
    starts: Sequence[float]
    problems: Sequence[str]

    @property
    def wrong(self) -> list[str]:
        """Everything that must not be."""
        found = self.findings
        not_survived = [f"not survived: {kill.victim}" for kill in self.kills if not kill.survived]
        return [
            *not_survived,
            *found.losses,
            *found.repeats,
            *found.unequal,
            *self.journal.complaints,
            *self.problems,
        ]

    @property
    def saved(self) -> int:
        """Runs that went on from a checkpoint, and not from their first epoch."""
        return sum(any(map(_is_from_checkpoint, log)) for log in self.findings.logs.values())

    def __str__(self) -> str:
        lines = [*self._kill_lines(), "", *self._count_lines(), "", *self._time_lines()]
        if self.wrong:
            lines += ["", f"{len(self.wrong)} findings:", *(f"  {text}" for text in self.wrong[:_SHOWN])]
        return "\n".join(lines)

    def _kill_lines(self) -> Iterable[str]:
        yield "| killed | tried | survived |"
        yield "|---|---|---|"
        for victim in Victim:
            of_it = [kill for kill in self.kills if kill.victim is victim]
            yield f"| {victim} | {len(of_it)} | {sum(kill.survived for kill in of_it)} |"
        yield f"| in all | {len(self.kills)} | {sum(kill.survived for kill in self.kills)} |"

    def _count_lines(self) -> Iterable[str]:
        found, ends = self.findings, self.findings.ends
        logged = sum(map(len, found.logs.values()))
        resumed = sum(any(_is_resumed(event) for event in log) for log in found.logs.values())
        yield f"runs acknowledged   {len(self.journal.runs):,}: " + ", ".join(
            f"{count:,} {state}" for state, count in sorted(ends.items())
        )
        yield f"runs interrupted    {resumed:,}; failed because their worker was killed too often: {found.worn_out:,}"
        yield f"went on             {self.saved:,} from a checkpoint, the others from their first epoch"
        yield f"events logged       {logged:,}; seen by {found.watches:,} watchers: {found.events_seen:,}"
        yield f"datasets            {self.journal.datasets:,} uploaded, found and deleted"
        yield f"lost                {len(found.losses):,}"
        yield f"repeated            {len(found.repeats):,}"
        yield f"bits unequal        {len(found.unequal):,} of {found.compared:,} runs held against the control"
        yield f"refusals, errors    {len(self.journal.complaints):,}; logged by the server: {len(self.problems):,}"

    def _time_lines(self) -> Iterable[str]:
        server = recoveries(
            [k for k in self.kills if k.victim in {Victim.SERVER, Victim.BOTH}], self.findings
        )
        worker = recoveries([k for k in self.kills if not k.of_server], self.findings)
        yield f"start of the server             {_median(self.starts)}"
        yield f"SIGKILL → a run goes on, server {_median(server)}"
        yield f"SIGKILL → a run goes on, worker {_median(worker)}"


def recoveries(kills: Iterable[Kill], findings: Findings) -> list[float]:
    """Seconds from each kill to the first run that goes on which it had interrupted; none where it hit nothing."""
    times = []
    for kill in kills:
        news = [_first_after(kill, log) for log in findings.logs.values()]
        going_on = [event.time - kill.time for event in news if event is not None and _is_resumed(event)]
        times += [min(going_on).total_seconds()] if going_on else []
    return times


def _first_after(kill: Kill, log: Sequence[events.Event]) -> events.Event | None:
    """A run's first event after a kill, where it had begun before."""
    begun = any(isinstance(event, events.Started) and event.time <= kill.time for event in log)
    after = (event for event in log if event.time > kill.time)
    return next(after, None) if begun else None


def _is_resumed(event: events.Event) -> bool:
    return isinstance(event, events.Warning) and event.reason == "RUN_RESUMED"


def _is_from_checkpoint(event: events.Event) -> bool:
    return _is_resumed(event) and _FROM_THE_START not in getattr(event, "message", "")


def _median(seconds: Sequence[float]) -> str:
    if not seconds:
        return "—"
    return f"{statistics.median(seconds):.2f} s (median of {len(seconds)}, at most {max(seconds):.2f} s)"
