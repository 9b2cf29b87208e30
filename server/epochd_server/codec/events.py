"""Events of runs: as sent to clients, and as stored; both are the same message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from google.protobuf.message import DecodeError

from epochd.v1 import run_pb2 as pb
from epochd_server.codec.architectures import encode_model
from epochd_server.codec.evaluations import (
    decode_metrics,
    encode_evaluation,
    encode_metrics,
    stored_evaluation,
)
from epochd_server.codec.exact_fits import encode_fit
from epochd_server.codec.fits import encode_logging
from epochd_server.codec.labels import decode_classes, encode_classes
from epochd_server.codec.lineage import encode_lineage, stored_lineage
from epochd_server.codec.losses import encode_loss
from epochd_server.codec.members import encode_key, stored_key
from epochd_server.codec.names import stored_model, stored_run, stored_version
from epochd_server.codec.parameters import decode_parameters, encode_parameters
from epochd_server.codec.preprocessing import decode_fitted, encode_fitted
from epochd_server.codec.specs import encode_precision, join_spec
from epochd_server.codec.times import decode_time, encode_time
from epochd_server.codec.validation import encode_validation
from epochd_server.codec.wire import delimited, tag
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.resources import model_name, run_name, version_name
from epochd_server.domain.runs import (
    Cancelled,
    EpochLog,
    Event,
    EventBody,
    Failure,
    FleetProgress,
    MemberLog,
    Paused,
    Quantiles,
    Queued,
    Resumed,
    Started,
    Succeeded,
    Warned,
)

_EVENTS_TAG = b"\x0a"
"""Field 1, length-delimited."""
_QUANTILES = ("min", "p25", "p50", "p75", "max")


def encode(event: Event) -> bytes:
    """The bytes of an event's message, for storage and for clients; made once."""
    if not event.encoded:
        field, convert = _ENCODERS[type(event.body)]
        # a message put into another is copied field by field; its bytes are joined at once
        head = pb.Event(sequence=event.sequence, time=encode_time(event.time)).SerializeToString()
        body = convert(event.body).SerializeToString()
        _keep(event, head + delimited(tag(pb.Event.DESCRIPTOR, field), body))
    return event.encoded


def frame(messages: Iterable[bytes]) -> bytes:
    """The bytes of any message whose ``repeated Event events = 1`` are these and which holds nothing else."""
    return b"".join([delimited(_EVENTS_TAG, message) for message in messages])


def decode(data: bytes) -> Event:
    """The event that :func:`encode` stored.

    Raises:
        EpochdError: ARTIFACT_CORRUPT.
    """
    try:
        event = from_message(pb.Event.FromString(data))
    except DecodeError:
        raise EpochdError(Reason.ARTIFACT_CORRUPT) from None
    _keep(event, data)
    return event


def _keep(event: Event, data: bytes) -> None:
    """Notes an event's bytes with it: they say nothing that it does not."""
    object.__setattr__(event, "encoded", data)


def to_message(event: Event) -> pb.Event:
    """The message of an event."""
    time = encode_time(event.time)
    field, convert = _ENCODERS[type(event.body)]
    return pb.Event(sequence=event.sequence, time=time, **{field: convert(event.body)})


def from_message(message: pb.Event) -> Event:
    """The event of a message that this server made.

    Raises:
        EpochdError: ARTIFACT_CORRUPT.
    """
    kind = message.WhichOneof("kind")
    if kind is None:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    body = _DECODERS[kind](getattr(message, kind))
    return Event(message.sequence, decode_time(message.time), body)


def encode_epoch_log(log: EpochLog) -> pb.EpochLog:
    """The message of an epoch log."""
    message = pb.EpochLog(epoch=log.epoch, loss=log.loss, lr=log.lr, rows_per_second=log.rows_per_second)
    if log.parameters:
        message.parameters.extend(encode_parameters(log.parameters))
    if log.validation_loss is not None:
        message.validation_loss = log.validation_loss
        message.metrics.extend(encode_metrics(log.metrics))
    return message


def decode_epoch_log(message: pb.EpochLog) -> EpochLog:
    """The epoch log of a message that this server made."""
    return EpochLog(
        epoch=message.epoch,
        loss=message.loss,
        lr=message.lr,
        rows_per_second=message.rows_per_second,
        parameters=decode_parameters(message.parameters),
        validation_loss=message.validation_loss if message.HasField("validation_loss") else None,
        metrics=decode_metrics(message.metrics),
    )


def encode_failure(failure: Failure) -> pb.Failure:
    """The message of a failure."""
    return pb.Failure(reason=failure.reason, message=failure.message, hint=failure.hint, epoch=failure.epoch)


def decode_failure(message: pb.Failure) -> Failure:
    """The failure of a message that this server made."""
    return Failure(
        reason=message.reason,
        message=message.message,
        hint=message.hint,
        epoch=message.epoch if message.HasField("epoch") else None,
    )


def encode_started(started: Started) -> pb.Started:
    """The message of a run's start."""
    spec = started.spec
    return pb.Started(
        model=encode_model(spec.model, spec.init),
        parameters=started.parameters,
        rows=started.rows,
        feature_columns=started.feature_columns,
        target_columns=started.target_columns,
        classes=encode_classes(started.classes),
        device=started.device,
        seed=spec.seed,
        dtype=encode_precision(spec.precision),
        batch_size=started.rows if spec.fit.batch_size is None else spec.fit.batch_size,
        epochs=spec.fit.epochs,
        loss=encode_loss(spec.loss),
        logging=encode_logging(spec.logging),
        members=started.members,
        key_columns=started.key_columns,
        validation=encode_validation(spec.validation),
        lineage=encode_lineage(started.lineage),
        preprocess=encode_fitted(started.preprocess),
        weight_column=started.weight_column or "",
        **encode_fit(spec.fit),
    )


def decode_started(message: pb.Started) -> Started:
    """The start of a message that this server made; of a sweep its spec keeps the names only, as key columns."""
    return Started(
        spec=join_spec(
            message.model,
            message.loss,
            message,
            message.dtype,
            message.seed,
            message.logging,
            message.key_columns,
            validation=message.validation if message.HasField("validation") else None,
        ),
        parameters=message.parameters,
        rows=message.rows,
        feature_columns=tuple(message.feature_columns),
        target_columns=tuple(message.target_columns),
        classes=decode_classes(message.classes),
        device=message.device,
        members=message.members,
        key_columns=tuple(message.key_columns),
        lineage=stored_lineage(message.lineage) if message.HasField("lineage") else None,
        preprocess=decode_fitted(message.preprocess) if message.HasField("preprocess") else None,
        weight_column=message.weight_column or None,
    )


def _encode_progress(body: FleetProgress) -> pb.FleetProgress:
    return pb.FleetProgress(
        members_done=body.members_done,
        members_failed=body.members_failed,
        members_total=body.members_total,
        loss=_encode_quantiles(body.loss_quantiles),
        validation_loss=_encode_quantiles(body.validation_quantiles),
        worst=[pb.MemberLoss(key=encode_key(key), loss=loss) for key, loss in body.worst],
        eta_seconds=body.eta_seconds,
        elapsed_seconds=body.elapsed_seconds,
    )


def _decode_progress(message: pb.FleetProgress) -> FleetProgress:
    has_validation = message.HasField("validation_loss")
    return FleetProgress(
        members_done=message.members_done,
        members_failed=message.members_failed,
        members_total=message.members_total,
        loss_quantiles=_decode_quantiles(message.loss) if message.HasField("loss") else None,
        validation_quantiles=_decode_quantiles(message.validation_loss) if has_validation else None,
        worst=tuple((stored_key(member.key), member.loss) for member in message.worst),
        eta_seconds=message.eta_seconds,
        elapsed_seconds=message.elapsed_seconds,
    )


def _encode_quantiles(quantiles: Quantiles | None) -> pb.LossQuantiles | None:
    return None if quantiles is None else pb.LossQuantiles(**dict(zip(_QUANTILES, quantiles, strict=True)))


def _decode_quantiles(message: pb.LossQuantiles) -> Quantiles:
    return message.min, message.p25, message.p50, message.p75, message.max


def _encode_member_log(body: MemberLog) -> pb.MemberLog:
    return pb.MemberLog(key=encode_key(body.key), log=encode_epoch_log(body.log))


def _decode_member_log(message: pb.MemberLog) -> MemberLog:
    return MemberLog(key=stored_key(message.key), log=decode_epoch_log(message.log))


def _encode_queued(body: Queued) -> pb.Queued:
    return pb.Queued(run=run_name(body.run_id), model=model_name(body.model))


def _decode_queued(message: pb.Queued) -> Queued:
    return Queued(run_id=stored_run(message.run), model=stored_model(message.model))


def _encode_warning(body: Warned) -> pb.Warning:
    return pb.Warning(reason=body.reason, message=body.message)


def _decode_warning(message: pb.Warning) -> Warned:
    return Warned(reason=message.reason, message=message.message)


def _encode_succeeded(body: Succeeded) -> pb.Succeeded:
    return pb.Succeeded(
        model_version=version_name(body.model, body.version),
        epochs=body.epochs,
        final_loss=body.final_loss,
        training_seconds=body.training_seconds,
        members=body.members,
        failed_members=body.failed_members,
        evaluation=encode_evaluation(body.evaluation),
    )


def _decode_succeeded(message: pb.Succeeded) -> Succeeded:
    model, version = stored_version(message.model_version)
    return Succeeded(
        model=model,
        version=version,
        epochs=message.epochs,
        final_loss=message.final_loss,
        training_seconds=message.training_seconds,
        members=message.members,
        failed_members=message.failed_members,
        evaluation=stored_evaluation(message.evaluation) if message.HasField("evaluation") else None,
    )


def _encode_cancelled(body: Cancelled) -> pb.Cancelled:
    version = version_name(body.model, body.version) if body.version else ""
    return pb.Cancelled(epochs=body.epochs, reason=body.reason, model_version=version)


def _decode_cancelled(message: pb.Cancelled) -> Cancelled:
    model, version = stored_version(message.model_version) if message.model_version else ("", 0)
    return Cancelled(epochs=message.epochs, reason=message.reason, model=model, version=version)


def _encode_paused(body: Paused) -> pb.Paused:
    return pb.Paused(epochs=body.epochs)


def _decode_paused(message: pb.Paused) -> Paused:
    return Paused(epochs=message.epochs)


def _encode_resumed(body: Resumed) -> pb.Resumed:
    return pb.Resumed()


def _decode_resumed(message: pb.Resumed) -> Resumed:
    return Resumed()


_ENCODERS: Mapping[type[EventBody], tuple[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        Queued: ("queued", _encode_queued),
        Started: ("started", encode_started),
        EpochLog: ("epoch_log", encode_epoch_log),
        FleetProgress: ("fleet_progress", _encode_progress),
        MemberLog: ("member_log", _encode_member_log),
        Warned: ("warning", _encode_warning),
        Succeeded: ("succeeded", _encode_succeeded),
        Failure: ("failed", encode_failure),
        Cancelled: ("cancelled", _encode_cancelled),
        Paused: ("paused", _encode_paused),
        Resumed: ("resumed", _encode_resumed),
    }
)
_DECODERS: Mapping[str, Callable[[Any], EventBody]] = MappingProxyType(
    {
        "queued": _decode_queued,
        "started": decode_started,
        "epoch_log": decode_epoch_log,
        "fleet_progress": _decode_progress,
        "member_log": _decode_member_log,
        "warning": _decode_warning,
        "succeeded": _decode_succeeded,
        "failed": decode_failure,
        "cancelled": _decode_cancelled,
        "paused": _decode_paused,
        "resumed": _decode_resumed,
    }
)
