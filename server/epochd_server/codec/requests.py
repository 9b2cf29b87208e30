"""TrainRequest → TrainCommand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from epochd.v1 import spec_pb2, trainer_pb2, validation_pb2
from epochd_server.codec.architectures import decode_init, decode_model
from epochd_server.codec.exact_fits import decode_fit
from epochd_server.codec.fits import decode_log_every, decode_log_members
from epochd_server.codec.limits import decode_limits
from epochd_server.codec.losses import decode_loss
from epochd_server.codec.members import MAX_KEY_COLUMNS
from epochd_server.codec.preprocessing import decode_preprocessing
from epochd_server.codec.specs import decode_precision
from epochd_server.codec.sweeps import decode_sweep
from epochd_server.codec.tables import decode_table
from epochd_server.codec.tensors import decode_tensor
from epochd_server.codec.user_labels import decode_user_labels
from epochd_server.codec.validation import decode_validation
from epochd_server.domain.commands import TrainCommand
from epochd_server.domain.data import ColumnRoles, DatasetReference, DataSource, TensorPair
from epochd_server.domain.errors import Violations
from epochd_server.domain.fleets import Sweep
from epochd_server.domain.preprocessing import Preprocessing
from epochd_server.domain.resources import (
    NAME_RULE,
    REQUEST_ID_RULE,
    VERSION_REFERENCE_RULE,
    VersionReference,
    is_name,
    is_request_id,
    parse_dataset,
    parse_version_reference,
)
from epochd_server.domain.specs import Loss
from epochd_server.domain.stopping import RunLimits
from epochd_server.domain.validation import Folds, HoldOut, Validation

MAX_ROLE_COLUMNS = 10_000
_SHOWN = 80


def decode_train(request: trainer_pb2.TrainRequest, violations: Violations) -> TrainCommand:
    """The command of a request, as far as it can be understood; everything wrong is in ``violations``."""
    with violations.within("data"):
        source = _decode_source(request.data, violations)
        roles = _decode_roles(request.data, violations)
    with violations.within("model"):
        model = decode_model(request.model, violations)
        init = decode_init(request.model, violations)
    with violations.within("loss"):
        loss = decode_loss(request.loss, violations)
    with violations.within("logging"):
        log_every = decode_log_every(request.logging, violations)
        log_members = decode_log_members(request.logging, violations)
    sweep = _decode_sweep(request, violations)
    validation = _decode_validation(request, loss, sweep, violations)
    if validation is not None and isinstance(validation.rows, HoldOut | Folds):
        roles = replace(roles, split=validation.rows.column)
    return TrainCommand(
        request_id=_request_id(request.request_id, violations),
        model_name=_model_name(request.model_name, violations),
        source=source,
        roles=roles,
        model=model,
        loss=loss,
        fit=decode_fit(request, sweep, model, loss, violations),
        init=init,
        precision=decode_precision(request.dtype, violations),
        seed=_seed(request, violations),
        log_every=log_every,
        log_parameters=request.logging.parameters,
        validate_only=request.validate_only,
        log_members=log_members,
        sweep=sweep,
        validation=validation,
        validation_source=_decode_validation_source(request.validation, violations),
        labels=decode_user_labels(request.labels, violations),
        initial=_initial(request.initial_version, violations),
        preprocess=_decode_preprocess(request, violations),
        limits=_decode_limits(request, violations),
    )


def _decode_limits(request: trainer_pb2.TrainRequest, violations: Violations) -> RunLimits:
    with violations.within("limits"):
        return decode_limits(request.limits, violations)


def _decode_preprocess(request: trainer_pb2.TrainRequest, violations: Violations) -> Preprocessing | None:
    if not request.HasField("preprocess"):
        return None
    with violations.within("preprocess"):
        return decode_preprocessing(request.preprocess, violations)


def _decode_validation(
    request: trainer_pb2.TrainRequest, loss: Loss | None, sweep: Sweep | None, violations: Violations
) -> Validation | None:
    folds = 0 if sweep is None else sweep.folds
    if not request.HasField("validation") and not folds:
        return None
    with violations.within("validation"):
        return decode_validation(request.validation, loss, folds, violations)


def _decode_validation_source(
    message: validation_pb2.Validation, violations: Violations
) -> DataSource | None:
    """Held-out rows of their own; a dataset's name is looked at with the rest of the validation."""
    match message.WhichOneof("rows"):
        case "table":
            with violations.within("validation.table"):
                return decode_table(message.table, violations)
        case "tensors":
            with violations.within("validation.tensors"):
                return _decode_pair(message.tensors, violations)
        case "dataset":
            digest = parse_dataset(message.dataset)
            return None if digest is None else DatasetReference(digest)
        case _:
            return None


def _decode_sweep(request: trainer_pb2.TrainRequest, violations: Violations) -> Sweep | None:
    if not request.HasField("sweep"):
        return None
    if request.data.group_columns:
        violations.add("data.group_columns", "is not for a sweep, whose members share all rows")
    with violations.within("sweep"):
        return decode_sweep(request.sweep, request.gradient.optimizer, violations)


def _decode_source(message: spec_pb2.TrainingData, violations: Violations) -> DataSource | None:
    match message.WhichOneof("source"):
        case "table":
            with violations.within("table"):
                return decode_table(message.table, violations)
        case "tensors":
            with violations.within("tensors"):
                return _decode_pair(message.tensors, violations)
        case "dataset":
            digest = parse_dataset(message.dataset)
            if digest is None:
                shown = message.dataset[:_SHOWN]
                violations.add("dataset", f"must be datasets/ and 64 lower-case hex digits, is {shown!r}")
            return None if digest is None else DatasetReference(digest)
        case None:
            violations.add("source", "must be set: table, tensors or dataset")
            return None


def _decode_pair(message: spec_pb2.TensorData, violations: Violations) -> TensorPair | None:
    with violations.within("features"):
        features = decode_tensor(message.features, violations)
    with violations.within("targets"):
        targets = decode_tensor(message.targets, violations)
    return None if features is None or targets is None else TensorPair(features, targets)


def _decode_roles(message: spec_pb2.TrainingData, violations: Violations) -> ColumnRoles:
    return ColumnRoles(
        features=_columns(message.feature_columns, "feature_columns", violations),
        targets=_columns(message.target_columns, "target_columns", violations),
        groups=_columns(message.group_columns, "group_columns", violations, MAX_KEY_COLUMNS),
        weight=message.weight_column or None,
    )


def _columns(
    names: Iterable[str], field: str, violations: Violations, limit: int = MAX_ROLE_COLUMNS
) -> tuple[str, ...]:
    listed = tuple(names)
    if len(listed) > limit:
        violations.add(field, f"has {len(listed):,} names, at most {limit:,} are allowed")
        return ()
    return listed


def _initial(name: str, violations: Violations) -> VersionReference | None:
    reference = parse_version_reference(name)
    if name and reference is None:
        violations.add("initial_version", f"{VERSION_REFERENCE_RULE}, is {name[:_SHOWN]!r}")
    return reference


def _request_id(text: str, violations: Violations) -> str | None:
    if text and not is_request_id(text):
        violations.add("request_id", f"must be {REQUEST_ID_RULE}, is {text[:_SHOWN]!r}")
    return text or None


def _model_name(text: str, violations: Violations) -> str | None:
    if text and not is_name(text):
        violations.add("model_name", f"must be {NAME_RULE}, is {text[:_SHOWN]!r}")
    return text or None


def _seed(request: trainer_pb2.TrainRequest, violations: Violations) -> int | None:
    if not request.HasField("seed"):
        return None
    if request.seed < 0:
        violations.add("seed", f"must be from 0 to 2^63 - 1, is {request.seed}")
        return 0
    return request.seed
