"""Models and their versions: domain → messages; version cards both ways, for storage."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from epochd.v1 import models_pb2 as pb
from epochd_server.codec.architectures import encode_model
from epochd_server.codec.fits import encode_gradient_fit, encode_logging
from epochd_server.codec.labels import decode_classes, encode_classes
from epochd_server.codec.members import encode_key, stored_key
from epochd_server.codec.names import stored_run, stored_version
from epochd_server.codec.specs import encode_loss, encode_precision, join_spec, stored_sweep
from epochd_server.codec.sweeps import encode_sweep
from epochd_server.codec.times import encode_time
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.models import Model, ModelVersion, Origin, VersionCard
from epochd_server.domain.resources import model_name, run_name, version_name


def encode_version(version: ModelVersion) -> pb.ModelVersion:
    """The message of a version."""
    message = _card_message(version.card)
    message.name = version_name(version.model, version.version)
    message.create_time.CopyFrom(encode_time(version.create_time))
    return message


def encode_registered_model(model: Model) -> pb.Model:
    """The message of a model of the registry, aliases in alphabetical order."""
    aliases = [
        pb.Alias(alias=alias, version=version_name(model.model, version))
        for alias, version in sorted(model.aliases.items())
    ]
    return pb.Model(
        name=model_name(model.model),
        latest_version=version_name(model.model, model.latest_version),
        aliases=aliases,
        create_time=encode_time(model.create_time),
        update_time=encode_time(model.update_time),
    )


def encode_card(card: VersionCard) -> bytes:
    """A card for storage: a serialised ModelVersion without name and time."""
    return _card_message(card).SerializeToString(deterministic=True)


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
            stored.gradient,
            stored.dtype,
            stored.seed,
            stored.logging,
            stored.key_columns,
            stored_sweep(stored.sweep, stored.gradient) if stored.HasField("sweep") else None,
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
        fleet="" if origin is None else version_name(origin.model, origin.version),
        member=None if origin is None else encode_key(origin.key),
        seed=spec.seed,
        gradient=encode_gradient_fit(spec.fit),
        logging=encode_logging(spec.logging),
    )
