"""Unary calls: with a deadline always, and tried again where that is safe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from epochd._core.effects import Emit, Method, Program, Sleep, invoke
from epochd.errors import EpochdError, Unavailable
from epochd.policy import Policy

Q = TypeVar("Q")
R = TypeVar("R")
T = TypeVar("T")


def may_pass(error: EpochdError) -> bool:
    """Whether the same request may succeed later: the server is away, or asks to be tried again."""
    return isinstance(error, Unavailable) or error.retry_after is not None


def call(method: Method[Q, R], request: Q, policy: Policy) -> Program[R]:
    """Calls a method that is safe to repeat, within ``policy.timeout.call`` seconds in all."""
    return (yield from retrying(lambda left: invoke(method, request, left), policy, policy.timeout.call))


def call_once(method: Method[Q, R], request: Q, policy: Policy) -> Program[R]:
    """Calls a method that must not be repeated blindly, such as a deletion."""
    return (yield from invoke(method, request, policy.timeout.call))


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
