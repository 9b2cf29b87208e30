"""Runs with all that the server tells of them, for tables and JSON; `epochd.Run` keeps to what a program needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from epochd._core.calling import call
from epochd._core.methods import GET_RUN
from epochd._core.resources import run_name
from epochd._core.runs import state_of
from epochd._core.service import Service
from epochd._transport.blocking import BlockingTransport
from epochd._transport.options import Connection
from epochd._wire.specs import decode_model
from epochd._wire.tensors import dtype_name
from epochd.events import State
from epochd.policy import Policy
from epochd.v1 import run_pb2, runs_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetails:
    """A run as the server knows it now; times are UTC."""

    name: str
    state: State
    model: str
    model_version: str | None
    failure: str | None
    spec: str
    loss: str
    optimizer: str
    dtype: str
    seed: int
    epochs: int
    latest_epoch: int | None
    latest_loss: float | None
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None

    @classmethod
    def of(cls, run: run_pb2.Run) -> RunDetails:
        """The details in a message."""
        log = run.latest_log if run.HasField("latest_log") else None
        return cls(
            name=run.name,
            state=state_of(run),
            model=run.model,
            model_version=run.model_version or None,
            failure=_failure(run.failure) if run.HasField("failure") else None,
            spec=str(decode_model(run.spec) or "of a newer kind"),
            loss=run.loss.WhichOneof("kind") or "",
            optimizer=_optimizer(run),
            dtype=dtype_name(run.dtype),
            seed=run.seed,
            epochs=run.epochs,
            latest_epoch=None if log is None else log.epoch,
            latest_loss=None if log is None else log.loss,
            create_time=run.create_time.ToDatetime(tzinfo=UTC),
            start_time=_time(run.start_time if run.HasField("start_time") else None),
            end_time=_time(run.end_time if run.HasField("end_time") else None),
        )

    @property
    def seconds(self) -> float | None:
        """How long it has trained; None before it started."""
        if self.start_time is None:
            return None
        return ((self.end_time or datetime.now(UTC)) - self.start_time).total_seconds()


class RunReader:
    """Reads runs from a server.

    Args:
        server: HOST:PORT.
    """

    def __init__(self, server: str) -> None:
        self._policy = Policy()
        self._transport = BlockingTransport(Connection.of(server, None, None, None, None, ()))

    def get(self, name: str) -> RunDetails:
        """A run by its name, short or full.

        Raises:
            NotFound: When there is none.
        """
        request = runs_pb2.GetRunRequest(name=run_name(name))
        return RunDetails.of(self._transport.run(call(GET_RUN, request, self._policy)).run)

    def list(self, *, model: str | None, states: Sequence[State]) -> Iterator[RunDetails]:
        """The runs, newest first."""
        return map(RunDetails.of, self._transport.iterate(Service(self._policy).runs(model, states)))

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()


def _time(stamp: Timestamp | None) -> datetime | None:
    return None if stamp is None else stamp.ToDatetime(tzinfo=UTC)


def _failure(failure: run_pb2.Failure) -> str:
    return " ".join(part for part in (failure.message, f"[{failure.reason}]", failure.hint) if part)


def _optimizer(run: run_pb2.Run) -> str:
    kind = run.gradient.optimizer.WhichOneof("kind")
    return "" if kind is None else f"{kind}, lr {getattr(run.gradient.optimizer, kind).lr:g}"
