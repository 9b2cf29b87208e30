"""Events from their messages."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from numpy.typing import NDArray

from epochd import events
from epochd._wire.fits import fit_kind
from epochd._wire.keys import decode_key
from epochd._wire.labels import decode_labels
from epochd._wire.preprocessing import decode_fitted
from epochd._wire.tensors import decode_tensor, dtype_name
from epochd._wire.validation import decode_evaluation, decode_metrics
from epochd.v1 import run_pb2, tensor_pb2

NEVER = datetime.min.replace(tzinfo=UTC)
"""The time of what has not happened."""

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
"""The kinds of event that end a run."""


def decode_event(message: run_pb2.Event, epochs: int = 0) -> events.Event | None:
    """The event of a message; None for a kind that this client does not know.

    Args:
        message: The message.
        epochs: Epochs that the run was asked for, if known: an epoch's log shows them.
    """
    head: dict[str, Any] = {"sequence": message.sequence, "time": message.time.ToDatetime(tzinfo=UTC)}
    match message.WhichOneof("kind"):
        case "queued":
            return events.Queued(**head, run=message.queued.run, model=message.queued.model)
        case "started":
            return decode_started(message.started, **head)
        case "epoch_log":
            return events.EpochLog(**head, **_epoch(message.epoch_log, epochs))
        case "member_log":
            log = message.member_log
            return events.MemberLog(**head, **_epoch(log.log, epochs), key=decode_key(log.key))
        case "fleet_progress":
            return _fleet_progress(message.fleet_progress, head)
        case "warning":
            return events.Warning(**head, reason=message.warning.reason, message=message.warning.message)
        case "succeeded":
            return _succeeded(message.succeeded, head)
        case "failed":
            return _failed(message.failed, head)
    return _stop_or_go(message, head)


def _stop_or_go(message: run_pb2.Event, head: dict[str, Any]) -> events.Event | None:
    match message.WhichOneof("kind"):
        case "cancelled":
            return _cancelled(message.cancelled, head)
        case "paused":
            return events.Paused(**head, epochs=message.paused.epochs)
        case "resumed":
            return events.Resumed(**head)
    return None


def _cancelled(message: run_pb2.Cancelled, head: dict[str, Any]) -> events.Cancelled:
    kept = message.model_version or None
    return events.Cancelled(**head, epochs=message.epochs, reason=message.reason, model_version=kept)


def decode_started(message: run_pb2.Started, sequence: int = 0, time: datetime = NEVER) -> events.Started:
    """The start of a run, real or (in an estimate) as it would be."""
    return events.Started(
        sequence=sequence,
        time=time,
        parameters=message.parameters,
        rows=message.rows,
        features=tuple(message.feature_columns),
        targets=tuple(message.target_columns),
        classes=decode_labels(message.classes),
        device=message.device,
        seed=message.seed,
        dtype=dtype_name(message.dtype),
        batch_size=message.batch_size,
        epochs=message.epochs,
        members=message.members,
        key_columns=tuple(message.key_columns),
        fit=fit_kind(message),
        preprocess=decode_fitted(message.preprocess),
    )


def decode_parameters(tensors: Iterable[tensor_pb2.NamedTensor]) -> dict[str, NDArray[Any]]:
    """Arrays by name, in the order they came."""
    return {named.name: decode_tensor(named.tensor) for named in tensors}


def _epoch(log: run_pb2.EpochLog, epochs: int) -> dict[str, Any]:
    return {
        "epoch": log.epoch,
        "epochs": epochs,
        "loss": log.loss,
        "lr": log.lr,
        "rows_per_second": log.rows_per_second,
        "parameters": decode_parameters(log.parameters),
        "validation_loss": log.validation_loss if log.HasField("validation_loss") else None,
        "measured": decode_metrics(log.metrics),
    }


def _fleet_progress(message: run_pb2.FleetProgress, head: dict[str, Any]) -> events.FleetProgress:
    has_validation = message.HasField("validation_loss")
    return events.FleetProgress(
        **head,
        members_done=message.members_done,
        members_failed=message.members_failed,
        members_total=message.members_total,
        loss=_quantiles(message.loss) if message.HasField("loss") else None,
        validation_loss=_quantiles(message.validation_loss) if has_validation else None,
        worst=tuple((decode_key(member.key), member.loss) for member in message.worst),
        eta_seconds=message.eta_seconds,
        elapsed_seconds=message.elapsed_seconds,
    )


def _quantiles(message: run_pb2.LossQuantiles) -> events.LossQuantiles:
    return events.LossQuantiles(
        min=message.min, p25=message.p25, p50=message.p50, p75=message.p75, max=message.max
    )


def _succeeded(message: run_pb2.Succeeded, head: dict[str, Any]) -> events.Succeeded:
    return events.Succeeded(
        **head,
        model_version=message.model_version,
        epochs=message.epochs,
        final_loss=message.final_loss,
        training_seconds=message.training_seconds,
        members=message.members,
        failed_members=message.failed_members,
        evaluation=decode_evaluation(message.evaluation, None) if message.HasField("evaluation") else None,
    )


def _failed(failure: run_pb2.Failure, head: dict[str, Any]) -> events.Failed:
    epoch = failure.epoch if failure.HasField("epoch") else None
    return events.Failed(
        **head, reason=failure.reason, message=failure.message, hint=failure.hint, epoch=epoch
    )
