"""The request itself: its fingerprint, and the form in which it is stored."""

from __future__ import annotations

import hashlib

from epochd.v1.trainer_pb2 import TrainRequest


def fingerprint(request: TrainRequest) -> bytes:
    """SHA-256 of what the client sent, without its request_id."""
    return fingerprint_and_store(request, 0)[0]


def fingerprint_and_store(request: TrainRequest, seed: int, initial_version: str = "") -> tuple[bytes, bytes]:
    """SHA-256 of what the client sent (without its request_id), and the request with its seed filled in.

    Args:
        request: As the client sent it; unchanged afterwards.
        seed: The seed in use.
        initial_version: The very version that a name in the request means now; empty where there is none.
    """
    request_id = request.request_id
    request.ClearField("request_id")
    sent = request.SerializeToString(deterministic=True)
    # Serialised messages that follow each other are one message: nothing of the rows is copied twice.
    known = TrainRequest(request_id=request_id, seed=seed, initial_version=initial_version)
    filled_in = known.SerializeToString()
    request.request_id = request_id
    return hashlib.sha256(sent).digest(), sent + filled_in
