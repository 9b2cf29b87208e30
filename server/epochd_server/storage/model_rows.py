"""Models, versions and aliases as rows, and the errors where they are missing.

A model is there while it has versions. The row of one whose versions were all deleted stays, so that their numbers
are not given again.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, exists, func, select

from epochd_server.codec import models as model_codec
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.labels import Labels
from epochd_server.domain.models import Alias, Canary, Model, ModelVersion
from epochd_server.domain.resources import VersionReference, model_name, version_name
from epochd_server.storage.blobs import StoredBlob
from epochd_server.storage.schema import (
    aliases,
    from_micros,
    models,
    version_members,
    version_weights,
    versions,
)
from epochd_server.storage.statements import AnyRow, AnySelect, labelled

VERSION: AnySelect = select(
    versions.c.model,
    versions.c.version,
    versions.c.create_time,
    versions.c.card,
    versions.c.labels,
    versions.c.weights_digest,
    versions.c.weights_size,
)
_WEIGHTS: AnySelect = select(
    versions.c.weights_digest.label("digest"),
    versions.c.weights_artifact.label("artifact"),
    version_weights.c.data,
).outerjoin_from(
    versions,
    version_weights,
    (version_weights.c.model == versions.c.model) & (version_weights.c.version == versions.c.version),
)
_MEMBERS: AnySelect = select(
    version_members.c.digest, version_members.c.artifact, version_members.c.data
).outerjoin_from(
    versions,
    version_members,
    (version_members.c.model == versions.c.model) & (version_members.c.version == versions.c.version),
)
_ARTIFACTS: AnySelect = select(
    versions.c.version, versions.c.weights_artifact, version_members.c.artifact
).outerjoin_from(
    versions,
    version_members,
    (version_members.c.model == versions.c.model) & (version_members.c.version == versions.c.version),
)
_NEWEST = select(func.max(versions.c.version)).where(versions.c.model == models.c.model).scalar_subquery()
_HAS_VERSIONS = exists().where(versions.c.model == models.c.model)
_MODEL = select(
    models.c.model,
    models.c.create_time,
    models.c.update_time,
    models.c.labels,
    _NEWEST.label("latest_version"),
).where(_HAS_VERSIONS)


def to_version(row: AnyRow) -> ModelVersion:
    """The version of a row of VERSION, or of :func:`meant`."""
    return ModelVersion(
        model=row.model,
        version=row.version,
        create_time=from_micros(row.create_time),
        card=model_codec.decode_card(row.card),
        labels=row.labels or {},
        weights_digest=row.weights_digest,
        weights_bytes=row.weights_size,
        canary=canary_of(row) if "canary" in row._fields else None,
    )


def to_alias(row: AnyRow) -> Alias:
    """The alias of a row of its table."""
    return Alias(
        version=row.version,
        # The time tells it from the same move of a model that was deleted and made again.
        etag=f"{row.move}-{row.move_time:x}",
        update_time=from_micros(row.move_time),
        canary=canary_of(row),
    )


def canary_of(row: AnyRow) -> Canary | None:
    """The canary of an alias, or of a move of it."""
    return None if row.canary is None else Canary(version=row.canary, hundredths=row.canary_hundredths)


def meant(reference: VersionReference) -> AnySelect:
    """Selects the one version that a reference means, as VERSION does; for an alias with its canary."""
    found = VERSION.where(versions.c.model == reference.model)
    if reference.version is not None:
        return found.where(versions.c.version == reference.version)
    if reference.alias is None:
        return found.order_by(versions.c.version.desc()).limit(1)
    same = (aliases.c.model == versions.c.model) & (aliases.c.version == versions.c.version)
    pointed_at = found.add_columns(aliases.c.canary, aliases.c.canary_hundredths)
    return pointed_at.join(aliases, same).where(aliases.c.alias == reference.alias)


def missing(connection: Connection, reference: VersionReference) -> EpochdError:
    """Why a reference means nothing: the model is not there, or the alias, or the version."""
    if not _is_model(connection, reference.model):
        return no_model(reference.model)
    reason = Reason.VERSION_NOT_FOUND if reference.alias is None else Reason.ALIAS_NOT_FOUND
    return EpochdError(reason, metadata={"name": str(reference)})


def no_model(model: str) -> EpochdError:
    """MODEL_NOT_FOUND, naming it."""
    return EpochdError(Reason.MODEL_NOT_FOUND, metadata={"name": model_name(model)})


def require_model(connection: Connection, model: str, *, lock: bool = False) -> None:
    """Raises MODEL_NOT_FOUND, or, with ``lock``, keeps other writers from the model until the commit."""
    if not _is_model(connection, model, lock=lock):
        raise no_model(model)


def find_models(connection: Connection, names: Sequence[str]) -> list[Model]:
    """The models of these names, by name, with their aliases."""
    rows = connection.execute(_MODEL.where(models.c.model.in_(names)).order_by(models.c.model)).all()
    pointing: dict[str, dict[str, Alias]] = {name: {} for name in names}
    ordered = select(aliases).where(aliases.c.model.in_(names)).order_by(aliases.c.alias)
    for row in connection.execute(ordered):
        pointing[row.model][row.alias] = to_alias(row)
    return [
        Model(
            model=row.model,
            latest_version=row.latest_version,
            create_time=from_micros(row.create_time),
            update_time=from_micros(row.update_time),
            aliases=pointing[row.model],
            labels=row.labels or {},
        )
        for row in rows
    ]


def lock_version(connection: Connection, model: str, version: int) -> None:
    """Makes sure that a version is there, and keeps the model as it is until the commit.

    Raises:
        EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND.
    """
    require_model(connection, model, lock=True)
    one = select(versions.c.version).where(versions.c.model == model, versions.c.version == version)
    if connection.scalar(one) is None:
        raise EpochdError(Reason.VERSION_NOT_FOUND, metadata={"name": version_name(model, version)})


def artifacts_of(connection: Connection, model: str, version: int | None = None) -> list[str]:
    """The artifacts of a version, or of all versions of a model."""
    statement = _ARTIFACTS.where(versions.c.model == model)
    if version is not None:
        statement = statement.where(versions.c.version == version)
    return [name for row in connection.execute(statement) for name in row[1:] if name is not None]


def weights_blob(connection: Connection, model: str, version: int) -> StoredBlob:
    """Where the weights of a version are.

    Raises:
        EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND.
    """
    return _blob(connection, _WEIGHTS, model, version)


def members_blob(connection: Connection, model: str, version: int) -> StoredBlob:
    """Where the columns of a fleet's members are.

    Raises:
        EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND; ARTIFACT_CORRUPT where the version is no fleet.
    """
    blob = _blob(connection, _MEMBERS, model, version)
    if not blob.digest:
        raise blob.damaged
    return blob


def page_of_names(limit: int, after: str | None, labels: Labels) -> AnySelect:
    """Selects the names of at most ``limit`` models with these labels that come after ``after``, by name."""
    page: AnySelect = select(models.c.model).where(_HAS_VERSIONS).order_by(models.c.model).limit(limit)
    page = page.where(*labelled(models.c.labels, labels))
    return page if after is None else page.where(models.c.model > after)


def _blob(connection: Connection, statement: AnySelect, model: str, version: int) -> StoredBlob:
    one = statement.where(versions.c.model == model, versions.c.version == version)
    row = connection.execute(one).one_or_none()
    if row is None:
        raise missing(connection, VersionReference(model, version))
    data = None if row.data is None else bytes(row.data)
    return StoredBlob(model=model, version=version, digest=row.digest or "", data=data, artifact=row.artifact)


def _is_model(connection: Connection, model: str, *, lock: bool = False) -> bool:
    statement = select(models.c.model).where(models.c.model == model, _HAS_VERSIONS)
    if lock:
        statement = statement.with_for_update()
    return connection.scalar(statement) is not None
