"""The first exchange with a server: is anyone there, and does it serve?"""

from __future__ import annotations

import time

from epochd._core.effects import Program, Sleep, invoke
from epochd._core.methods import HEALTH
from epochd.errors import EpochdError, Unavailable, Unimplemented
from epochd.policy import Policy

_SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}
_POLL_SECONDS = 0.1


def greet(policy: Policy, wait: float) -> Program[None]:
    """Makes sure that a server answers.

    Args:
        policy: Its ``timeout.connect`` bounds one try.
        wait: Seconds to go on trying while nothing answers or the server is still starting.

    Raises:
        ConnectionFailed: When nothing answers.
        Unavailable: When a server answers, but does not serve within ``wait``.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            answer = yield from invoke(HEALTH, b"", policy.timeout.connect)
            if answer == _SERVING:
                return
            failure: EpochdError = Unavailable("The server is starting or stopping, and does not serve now.")
        except Unimplemented:
            return  # a server without health checks, but a server
        except Unavailable as error:
            failure = error
        if time.monotonic() >= deadline:
            raise failure
        yield Sleep(_POLL_SECONDS)
