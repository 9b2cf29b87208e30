"""How long to wait and how often to try: small values, given to ``connect``.

Example:
    >>> import epochd
    >>> timeout = epochd.Timeout(call=5.0)                # no unary call takes longer than 5 s, retries included
    >>> retry = epochd.Retry(attempts=3, initial=0.2)     # waits about 0.2 s, then 0.4 s
    >>> # client = epochd.connect("127.0.0.1:50051", timeout=timeout, retry=retry)
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """Limits on waiting, in seconds. Following a run has none: a training takes as long as it takes.

    Example:
        >>> Timeout(call=5.0)
        Timeout(connect=10.0, call=5.0, transfer=600.0)
    """

    connect: float = 10.0
    """For the server's first answer after ``connect``."""

    call: float = 30.0
    """For one unary call, its retries included, and for the acknowledgement of a training."""

    transfer: float = 600.0
    """For one upload, export or streamed tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a call is tried again. All are safe to repeat: what changes something is done once, by its ``request_id``.

    Example:
        >>> Retry(attempts=1)                             # never try again
        Retry(attempts=1, initial=0.1, maximum=5.0, patience=600.0)
    """

    attempts: int = 5
    """Tries of one call in all, >= 1."""

    initial: float = 0.1
    """Seconds before the second try; doubled for each further one, with jitter of up to a half off."""

    maximum: float = 5.0
    """The longest such wait in seconds; a server that asks for more gets it."""

    patience: float = 600.0
    """Seconds for which a watched run is looked for again while the server does not answer at all."""

    def delay(self, failures: int, retry_after: float | None = None) -> float:
        """Seconds to wait after so many failures in a row.

        Args:
            failures: Failed tries so far, >= 1.
            retry_after: What the server asked for, if it did; never undercut, and exceeded by a quarter at most.
        """
        ceiling = min(self.maximum, self.initial * 2.0 ** min(failures - 1, 60))
        jittered = ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        # All who were refused at one moment are told the same; they had better not come back at one moment.
        asked = (retry_after or 0.0) * random.uniform(1.0, 1.25)  # noqa: S311
        return max(jittered, asked)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a client was given at ``connect``."""

    timeout: Timeout = field(default_factory=Timeout)
    """Limits on waiting."""

    retry: Retry = field(default_factory=Retry)
    """When to try again."""
