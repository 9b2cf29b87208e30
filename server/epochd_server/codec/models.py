"""Models and their versions: domain → messages; version cards both ways, for storage."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from epochd.v1 import models_pb2 as pb
from epochd_server.codec.architectures import encode_model
from epochd_server.codec.evaluations import encode_evaluation, stored_evaluation
from epochd_server.codec.exact_fits import encode_fit
from epochd_server.codec.fits import encode_logging
from epochd_server.codec.labels import decode_classes, encode_classes
from epochd_server.codec.lineage import encode_lineage, stored_lineage
from epochd_server.codec.losses import encode_loss
from epochd_server.codec.members import encode_key, stored_key
from epochd_server.codec.names import stored_run, stored_version
from epochd_server.codec.parameters import decode_parameters, encode_parameters
from epochd_server.codec.preprocessing import decode_fitted, encode_fitted, encode_stored_fitted
from epochd_server.codec.specs import encode_precision, join_spec, stored_sweep
from epochd_server.codec.sweeps import encode_sweep
from epochd_server.codec.times import encode_time
from epochd_server.codec.validation import encode_validation
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.models import Alias, AliasMove, Canary, Model, ModelVersion, Origin, VersionCard
from epochd_server.domain.resources import model_name, run_name, version_name


def encode_version(version: ModelVersion) -> pb.ModelVersion:
    """The message of a version."""
    message = _card_message(version.card)
    message.name = version_name(version.model, version.version)
    message.create_time.CopyFrom(encode_time(version.create_time))
    message.labels.update(version.labels)
    message.weights_digest, message.weights_bytes = version.weights_digest, version.weights_bytes
    return message


def encode_registered_model(model: Model) -> pb.Model:
    """The message of a model of the registry, aliases in alphabetical order."""
    aliases = [_encode_alias(model.model, name, alias) for name, alias in sorted(model.aliases.items())]
    return pb.Model(
        name=model_name(model.model),
        latest_version=version_name(model.model, model.latest_version),
        aliases=aliases,
        create_time=encode_time(model.create_time),
        update_time=encode_time(model.update_time),
        labels=model.labels,
    )


def encode_move(model: str, move: AliasMove) -> pb.AliasMove:
    """The message of an alias's move."""
    return pb.AliasMove(
        move=move.move,
        version="" if move.version is None else version_name(model, move.version),
        canary=_encode_canary(model, move.canary),
        time=encode_time(move.time),
    )


def _encode_alias(model: str, name: str, alias: Alias) -> pb.Alias:
    return pb.Alias(
        alias=name,
        version=version_name(model, alias.version),
        etag=alias.etag,
        update_time=encode_time(alias.update_time),
        canary=_encode_canary(model, alias.canary),
    )


def _encode_canary(model: str, canary: Canary | None) -> pb.Canary | None:
    if canary is None:
        return None
    return pb.Canary(version=version_name(model, canary.version), percent=canary.hundredths / 100)


def encode_exported(version: ModelVersion) -> pb.ModelVersion:
    """All that is known of a version, also what is stored and never sent otherwise."""
    message = pb.ModelVersion.FromString(encode_card(version.card))
    message.MergeFrom(
        pb.ModelVersion(
            name=version_name(version.model, version.version),
            create_time=encode_time(version.create_time),
            labels=version.labels,
        )
    )
    return message


def encode_card(card: VersionCard) -> bytes:
    """A card for storage: a serialised ModelVersion without name and time."""
    message = _card_message(card)
    message.fit_arrays.extend(encode_parameters(card.statistics))
    if (fitted := encode_stored_fitted(card.preprocess)) is not None:
        message.preprocess.CopyFrom(fitted)
    return message.SerializeToString(deterministic=True)


def decode_card(data: bytes) -> VersionCard:
    """The card that :func:`encode_card` stored.

    Raises:
        EpochdError: ARTIFACT_CORRUPT.
    """
    try:
        stored = pb.ModelVersion.FromString(data)
    except DecodeError:
        raise EpochdError(Reason.ARTIFACT_CORRUPT) from None
    return VersionCard(
        run_id=stored_run(stored.run),
        spec=join_spec(
            stored.model,
            stored.loss,
            stored,
            stored.dtype,
            stored.seed,
            stored.logging,
            stored.key_columns,
            stored_sweep(stored.sweep, stored.gradient) if stored.HasField("sweep") else None,
            stored.validation if stored.HasField("validation") else None,
        ),
        feature_columns=tuple(stored.feature_columns),
        target_columns=tuple(stored.target_columns),
        classes=decode_classes(stored.classes),
        parameters=stored.parameters,
        rows=stored.rows,
        epochs=stored.epochs,
        final_loss=stored.final_loss,
        members=stored.members,
        failed_members=stored.failed_members,
        key_columns=tuple(stored.key_columns),
        origin=_stored_origin(stored) if stored.fleet else None,
        evaluation=stored_evaluation(stored.evaluation) if stored.HasField("evaluation") else None,
        weight_column=stored.weight_column or None,
        lineage=stored_lineage(stored.lineage) if stored.HasField("lineage") else None,
        preprocess=decode_fitted(stored.preprocess) if stored.HasField("preprocess") else None,
        statistics=decode_parameters(stored.fit_arrays) or {},
    )


def _stored_origin(stored: pb.ModelVersion) -> Origin:
    model, version = stored_version(stored.fleet)
    return Origin(model=model, version=version, key=stored_key(stored.member))


def _card_message(card: VersionCard) -> pb.ModelVersion:
    spec, origin = card.spec, card.origin
    return pb.ModelVersion(
        run=run_name(card.run_id),
        model=encode_model(spec.model, spec.init),
        loss=encode_loss(spec.loss),
        feature_columns=card.feature_columns,
        target_columns=card.target_columns,
        classes=encode_classes(card.classes),
        dtype=encode_precision(spec.precision),
        parameters=card.parameters,
        rows=card.rows,
        epochs=card.epochs,
        final_loss=card.final_loss,
        members=card.members,
        failed_members=card.failed_members,
        key_columns=card.key_columns,
        sweep=encode_sweep(spec.sweep),
        validation=encode_validation(spec.validation),
        evaluation=encode_evaluation(card.evaluation),
        fleet="" if origin is None else version_name(origin.model, origin.version),
        member=None if origin is None else encode_key(origin.key),
        seed=spec.seed,
        logging=encode_logging(spec.logging),
        weight_column=card.weight_column or "",
        lineage=encode_lineage(card.lineage),
        preprocess=encode_fitted(card.preprocess),
        **encode_fit(spec.fit),
    )
