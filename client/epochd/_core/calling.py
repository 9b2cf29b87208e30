"""Unary calls: with a deadline always, and tried again where that is safe."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from epochd._core.effects import Emit, Method, Program, Sleep, invoke
from epochd.errors import EpochdError, Unavailable
from epochd.policy import Policy


class _Change(Protocol):
    request_id: str


C = TypeVar("C", bound=_Change)
Q = TypeVar("Q")
R = TypeVar("R")
T = TypeVar("T")


def may_pass(error: EpochdError) -> bool:
    """Whether the same request may succeed later: the server is away, or asks to be tried again."""
    return isinstance(error, Unavailable) or error.retry_after is not None


def call(method: Method[Q, R], request: Q, policy: Policy) -> Program[R]:
    """Calls a method that is safe to repeat, within ``policy.timeout.call`` seconds in all."""
    return (yield from retrying(lambda left: invoke(method, request, left), policy, policy.timeout.call))


def change(method: Method[C, R], request: C, policy: Policy) -> Program[R]:
    """Calls a method that changes something; its ``request_id`` makes that happen once, however often it is sent."""
    request.request_id = new_request_id()
    return (yield from call(method, request, policy))


def new_request_id() -> str:
    """A request_id that no other request has."""
    return uuid.uuid4().hex


def retrying(attempt: Callable[[float], Program[T]], policy: Policy, timeout: float) -> Program[T]:
    """Runs ``attempt(seconds left)`` until it succeeds, fails for good, or tries or time are used up."""
    deadline = time.monotonic() + timeout
    failures = 0
    while True:
        try:
            return (yield from attempt(max(0.001, deadline - time.monotonic())))
        except EpochdError as error:
            failures += 1
            delay = policy.retry.delay(failures, error.retry_after)
            out_of_time = time.monotonic() + delay >= deadline
            if not may_pass(error) or failures >= policy.retry.attempts or out_of_time:
                raise
        yield Sleep(delay)


class _PageRequest(Protocol):
    page_token: str


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


PQ = TypeVar("PQ", bound=_PageRequest)
PR = TypeVar("PR", bound=_Page)


def paginate(
    method: Method[PQ, PR], request: PQ, items: Callable[[PR], Iterable[object]], policy: Policy
) -> Program[None]:
    """Emits the items of every page, asking for the next page only when it is wanted."""
    while True:
        page = yield from call(method, request, policy)
        for item in items(page):
            yield Emit(item)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
