"""The request itself: what is remembered of it, and the form in which it is stored."""

from __future__ import annotations

from dataclasses import dataclass

from epochd.v1.trainer_pb2 import TrainRequest
from epochd_server.codec.asked import asked, fingerprint
from epochd_server.domain.once import AskedOnce


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it came.

    Attributes:
        asked: What is remembered of it under its request_id, or None where it has none.
        fingerprint: SHA-256 of what the client sent, without its request_id.
        stored: The request with its seed filled in.
    """

    asked: AskedOnce | None
    fingerprint: bytes
    stored: bytes


def read_sent(request: TrainRequest, seed: int = 0, initial_version: str = "") -> Sent:
    """A request whose request_id, if it has one, is sound.

    Args:
        request: As the client sent it; unchanged afterwards.
        seed: The seed in use.
        initial_version: The very version that a name in the request means now; empty where there is none.
    """
    request_id = request.request_id
    request.ClearField("request_id")
    data = request.SerializeToString(deterministic=True)
    remembered = asked(request, request_id, data) if request_id else None
    # Serialised messages that follow each other are one message: nothing of the rows is copied twice.
    known = TrainRequest(request_id=request_id, seed=seed, initial_version=initial_version)
    filled_in = known.SerializeToString()
    request.request_id = request_id
    return Sent(
        asked=remembered,
        fingerprint=remembered.fingerprint if remembered else fingerprint(request.DESCRIPTOR.full_name, data),
        stored=data + filled_in,
    )
