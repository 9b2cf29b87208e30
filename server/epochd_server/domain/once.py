"""Requests that must change something once, however often they are sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T_contra = TypeVar("T_contra", contravariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedOnce:
    """A request with a request_id, as far as it is remembered.

    Attributes:
        request_id: Chosen by the client.
        message: The full name of the request's message, which tells the methods apart.
        fingerprint: SHA-256 of all that was sent but the request_id.
        fields: What is kept to name the field in which another request differs.
    """

    request_id: str
    message: str
    fingerprint: bytes
    fields: bytes


@dataclass(frozen=True, slots=True)
class Once(Generic[T_contra]):
    """Has a write remembered as the answer to a request, in the same transaction.

    Attributes:
        asked: The request.
        answer: Makes of the write's result what is answered to a repeated request.
    """

    asked: AskedOnce
    answer: Callable[[T_contra], bytes]


class AnsweredBefore(Exception):
    """The request was made before; nothing was changed now.

    Attributes:
        answer: What it was answered.
    """

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self.answer = answer
