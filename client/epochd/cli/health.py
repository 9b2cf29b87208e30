"""`epochd health`: the standard health check, as raw bytes: its two messages need no stubs."""

from __future__ import annotations

import time
from typing import Annotated

import grpc
import typer

from epochd.cli.session import Exit, of

_STATES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_UNREACHABLE = "UNREACHABLE"
_TRY_SECONDS = 3.0
_PAUSE_SECONDS = 0.1


def health(
    context: typer.Context,
    service: Annotated[
        str, typer.Argument(help="A service such as epochd.v1.Trainer; the whole server without.")
    ] = "",
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", help="Wait so long for the server to serve.")
    ] = 0.0,
) -> None:
    """Ask whether the server serves; the exit code is 0 only then.

    For scripts and containers:

    ```
    epochd health --wait 30 && epochd train data.csv --target y
    ```
    """
    session = of(context)
    state = check(session.server, service)
    deadline = time.monotonic() + wait
    while state != "SERVING" and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
        state = check(session.server, service)
    if session.output.as_json:
        session.output.json({"server": session.server, "service": service, "state": state})
    else:
        session.output.line(state)
    raise typer.Exit(Exit.DONE if state == "SERVING" else Exit.FAILED)


def check(server: str, service: str = "") -> str:
    """The state of a service by name, or why it is not known: a status code's name or UNREACHABLE."""
    with grpc.insecure_channel(server) as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
        try:
            return _STATES.get(_status(call(_request(service), timeout=_TRY_SECONDS)), "UNKNOWN")
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
    away = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    names = dict.fromkeys(away, _UNREACHABLE) | {grpc.StatusCode.NOT_FOUND: "SERVICE_UNKNOWN"}
    return names.get(code, code.name)


def _request(service: str) -> bytes:
    """HealthCheckRequest{service = 1}; names are shorter than 128 bytes, so that one byte holds the length."""
    name = service.encode()[:127]
    return b"\x0a" + bytes([len(name)]) + name if name else b""


def _status(response: bytes) -> int:
    """HealthCheckResponse{status = 1}, an enum below 128; 0 is left out on the wire."""
    return response[1] if response[:1] == b"\x08" and len(response) > 1 else 0
