"""How runs are scheduled and how much of them is kept in memory."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Bounds of the life of runs.

    Raises:
        ValueError: Where a bound makes no sense.
    """

    cohorts: bool = True
    """Whether compatible runs are trained together; off, every run is a cohort of its own."""

    gather_seconds: float = 0.010
    """How long a run waits for company while a worker is busy or other runs wait. A lone one never waits."""

    max_members: int = 4_096
    """Runs in a cohort."""

    max_cohort_bytes: int = 64 * MEBIBYTE
    """Bytes of data in a cohort of more than one run."""

    max_cohort_seconds: float = 2.0
    """Estimated seconds of a cohort of more than one run, so that a large queue leaves slots to others in time."""

    max_queued: int = 100_000
    """Runs that wait for a worker; more are refused with QUEUE_FULL."""

    max_queued_per_client: int = 50_000
    """The same of one client; more are refused with CLIENT_QUEUE_FULL."""

    queued_bytes: int = 256 * MEBIBYTE
    """Bytes of queued runs' data kept in memory; what is beyond is decoded again from the store in its turn."""

    tail_events: int = 1_024
    """Newest events of a live run kept in memory for its watchers; older ones are read from the store."""

    tail_bytes: int = 64 * MEBIBYTE
    """Bytes of the kept events of all live runs together."""

    watch_bytes: int = 64 * MEBIBYTE
    """Bytes of the pages on their way to watchers; a thousand slow ones do not cost more."""

    checkpoint_seconds: float = 10.0
    """How often it is kept where a run in training is."""

    worker_deaths: int = 3
    """A run that was in training at so many deaths of workers fails; with fewer it is trained again."""

    def __post_init__(self) -> None:
        if self.gather_seconds < 0 or self.max_cohort_seconds <= 0 or self.checkpoint_seconds <= 0:
            raise ValueError("gather_seconds must be >= 0, max_cohort_seconds and checkpoint_seconds > 0")
        for name in ("max_members", "max_queued", "max_queued_per_client", "tail_events", "worker_deaths"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("max_cohort_bytes", "queued_bytes", "tail_bytes", "watch_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
