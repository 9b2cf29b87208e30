"""What both kinds of channel share: options, metadata, and how a method's callable is made."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from epochd.policy import Policy, Retry, Timeout

Options: TypeAlias = Sequence[tuple[str, Any]]
Metadata: TypeAlias = tuple[tuple[str, str], ...]

CHANNEL_OPTIONS: Options = (
    # A silent peer is noticed also while a run is quiet; not more often than servers allow by default (5 min).
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    # Back soon after a server's restart.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # The client knows which calls are safe to retry; gRPC does not.
    ("grpc.enable_retries", 0),
    # Two clients of one process do not share, and so do not close, each other's connection.
    ("grpc.use_local_subchannel_pool", 1),
)

_process_id = f"python-{os.getpid()}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True, slots=True)
class Connection:
    """Everything needed to make a channel, of either kind."""

    address: str
    """A gRPC target such as ``127.0.0.1:50051``, ``dns:///host:port`` or ``unix:/path``."""

    policy: Policy
    """Timeouts and retries."""

    credentials: grpc.ChannelCredentials | None
    """TLS and call credentials; None for plain text."""

    client_name: str | None
    """Names this client in the server's log; None for an id that is stable within the process."""

    options: Options
    """Further channel options, which win over the defaults."""

    @classmethod
    def of(
        cls,
        address: str,
        timeout: Timeout | float | None,
        retry: Retry | None,
        credentials: grpc.ChannelCredentials | None,
        client_name: str | None,
        options: Options,
    ) -> Connection:
        """From the arguments of ``connect``, where a number is the timeout of one call."""
        limits = (
            timeout
            if isinstance(timeout, Timeout)
            else Timeout()
            if timeout is None
            else Timeout(call=timeout)
        )
        return cls(address, Policy(limits, retry or Retry()), credentials, client_name, options)

    def channel_options(self, version: str) -> Options:
        """The channel's options; later ones win."""
        return (("grpc.primary_user_agent", f"epochd-python/{version}"), *CHANNEL_OPTIONS, *self.options)


class CallMetadata:
    """Makes the metadata of each call: who calls, and an id to find the call in the server's log."""

    def __init__(self, client_name: str | None) -> None:
        self._client = ("epochd-client", client_name or _process_id)
        self._prefix = uuid.uuid4().hex[:12]
        self._numbers = itertools.count(1)  # next() of it is atomic

    def __call__(self) -> Metadata:
        return (self._client, ("x-request-id", f"{self._prefix}-{next(self._numbers)}"))
