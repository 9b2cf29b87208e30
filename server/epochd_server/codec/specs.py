"""Loss, precision and the whole TrainingSpec: messages ↔ domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from google.protobuf.message import DecodeError

from epochd.v1 import spec_pb2, tensor_pb2, trainer_pb2, validation_pb2
from epochd_server.codec.architectures import decode_init, decode_model, encode_model
from epochd_server.codec.exact_fits import HasFit, encode_fit, stored_fit
from epochd_server.codec.fits import (
    decode_log_every,
    decode_log_members,
    encode_logging,
)
from epochd_server.codec.losses import decode_loss, encode_loss
from epochd_server.codec.sweeps import decode_sweep, encode_sweep
from epochd_server.codec.validation import encode_validation, stored_validation
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.fleets import Sweep
from epochd_server.domain.specs import (
    Logging,
    Precision,
    TrainingSpec,
)

_PRECISIONS: Mapping[int, Precision] = MappingProxyType(
    {
        tensor_pb2.DATA_TYPE_UNSPECIFIED: Precision.FLOAT32,
        tensor_pb2.DATA_TYPE_FLOAT32: Precision.FLOAT32,
        tensor_pb2.DATA_TYPE_FLOAT64: Precision.FLOAT64,
    }
)
_PRECISION_NUMBERS = MappingProxyType(
    {
        Precision.FLOAT32: tensor_pb2.DATA_TYPE_FLOAT32,
        Precision.FLOAT64: tensor_pb2.DATA_TYPE_FLOAT64,
    }
)


def decode_precision(number: int, violations: Violations, field: str = "dtype") -> Precision:
    """The precision of a training; float32, and a violation, for any other type."""
    precision = _PRECISIONS.get(number)
    if precision is None:
        violations.add(field, "must be FLOAT32, FLOAT64 or unset")
    return precision or Precision.FLOAT32


def encode_precision(precision: Precision) -> tensor_pb2.DataType.ValueType:
    """The DataType of a precision."""
    return _PRECISION_NUMBERS[precision]


def encode_spec(spec: TrainingSpec) -> bytes:
    """A spec for storage: a serialised TrainRequest without rows and names."""
    # The key columns of a sweep are the names of what is swept.
    groups = spec.key_columns if spec.sweep is None else ()
    return trainer_pb2.TrainRequest(
        data=spec_pb2.TrainingData(group_columns=groups) if groups else None,
        model=encode_model(spec.model, spec.init),
        loss=encode_loss(spec.loss),
        dtype=encode_precision(spec.precision),
        seed=spec.seed,
        logging=encode_logging(spec.logging),
        sweep=encode_sweep(spec.sweep),
        **encode_fit(spec.fit),
        validation=encode_validation(spec.validation),
    ).SerializeToString(deterministic=True)


def decode_spec(data: bytes) -> TrainingSpec:
    """The spec that :func:`encode_spec` stored.

    Raises:
        EpochdError: ARTIFACT_CORRUPT.
    """
    try:
        stored = trainer_pb2.TrainRequest.FromString(data)
    except DecodeError:
        raise EpochdError(Reason.ARTIFACT_CORRUPT) from None
    sweep = stored_sweep(stored.sweep, stored.gradient) if stored.HasField("sweep") else None
    return join_spec(
        stored.model,
        stored.loss,
        stored,
        stored.dtype,
        stored.seed,
        stored.logging,
        stored.data.group_columns if sweep is None else sweep.names,
        sweep,
        stored.validation if stored.HasField("validation") else None,
    )


def join_spec(
    model: spec_pb2.ModelSpec,
    loss: spec_pb2.Loss,
    fit_holder: HasFit,
    dtype: int,
    seed: int,
    logging: spec_pb2.Logging,
    key_columns: Iterable[str] = (),
    sweep: Sweep | None = None,
    validation: validation_pb2.Validation | None = None,
) -> TrainingSpec:
    """The spec whose parts this server once wrote into a message.

    Raises:
        EpochdError: ARTIFACT_CORRUPT where they are no valid spec.
    """
    violations = Violations()
    decoded_model = decode_model(model, violations)
    decoded_loss = decode_loss(loss, violations)
    every = decode_log_every(logging, violations)
    members = decode_log_members(logging, violations)
    init = decode_init(model, violations)
    precision = decode_precision(dtype, violations)
    fit = stored_fit(fit_holder, violations)
    if violations or decoded_model is None or decoded_loss is None or every is None:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    return TrainingSpec(
        model=decoded_model,
        loss=decoded_loss,
        fit=fit,
        init=init,
        precision=precision,
        seed=seed,
        logging=Logging(every=every, parameters=logging.parameters, members=members),
        key_columns=tuple(key_columns),
        sweep=sweep,
        validation=None if validation is None else stored_validation(validation, decoded_loss),
    )


def stored_sweep(message: spec_pb2.Sweep, fit: spec_pb2.GradientFit) -> Sweep:
    """The sweep that this server once wrote into a message, over the optimizer of a fit.

    Raises:
        EpochdError: ARTIFACT_CORRUPT.
    """
    violations = Violations()
    sweep = decode_sweep(message, fit.optimizer, violations)
    if violations or sweep is None:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    return sweep
