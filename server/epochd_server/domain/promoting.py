"""What it takes to make a member of a fleet a version of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from epochd_server.domain.errors import EpochdError, FieldViolation, InvalidInput, Reason
from epochd_server.domain.evaluations import member_evaluation
from epochd_server.domain.fleets import FOLD, Key, Members, MemberState
from epochd_server.domain.lineage import Lineage, Parent, ParentKind
from epochd_server.domain.member_index import member_of
from epochd_server.domain.models import ModelVersion, Origin, TrainedModel
from epochd_server.domain.resources import version_name
from epochd_server.domain.runs import Parameters
from epochd_server.domain.specs import GradientFit, TrainingSpec


def require_fleet(version: ModelVersion, field: str = "name") -> None:
    """Raises where a request that names a version in ``field`` needs it to be a fleet.

    Raises:
        InvalidInput: It is a single model.
    """
    if not version.card.members:
        name = version_name(version.model, version.version)
        raise InvalidInput([FieldViolation(field, f"must name a fleet; {name} is a single model")])


def find_member(version: ModelVersion, members: Members, key: Key) -> int:
    """The index of a fleet's member.

    Raises:
        EpochdError: MEMBER_NOT_FOUND.
    """
    member = member_of(members.keys, key)
    if member is None:
        raise EpochdError(
            Reason.MEMBER_NOT_FOUND,
            f"The fleet has no member {show_key(key)}; its key columns are {show_key(members.keys.names)}.",
            _metadata(version, key),
        )
    return member


def find_trained_member(version: ModelVersion, members: Members, key: Key) -> int:
    """The index of a fleet's member that has parameters.

    Raises:
        EpochdError: MEMBER_NOT_FOUND; MEMBER_FAILED, with the reason why it did.
    """
    member = find_member(version, members, key)
    if members.states[member] == MemberState.FAILED:
        reason = members.reasons.get(member, "")
        message = f"Member {show_key(key)} could not be trained ({reason}) and predicts nothing."
        metadata = {**_metadata(version, key), "failure": reason}
        raise EpochdError(Reason.MEMBER_FAILED, message, metadata)
    return member


def promoted(fleet: ModelVersion, members: Members, member: int, parameters: Parameters) -> TrainedModel:
    """A fleet's trained member as a model of its own.

    Args:
        fleet: The version.
        members: Its members.
        member: Index of the one.
        parameters: Of the fleet, [K, …].
    """
    card = replace(
        fleet.card,
        spec=_spec_of(fleet.card.spec, members.keys.names, members.keys.key(member)),
        rows=int(members.rows[member]),
        epochs=int(members.epochs[member]),
        final_loss=float(members.final_losses[member]),
        evaluation=member_evaluation(members, member),
        members=0,
        failed_members=0,
        key_columns=(),
        statistics={name: array[member] for name, array in members.statistics.items()},
        preprocess=None
        if fleet.card.preprocess is None
        else fleet.card.preprocess.of_member(members.learned, member),
        origin=Origin(model=fleet.model, version=fleet.version, key=members.keys.key(member)),
        lineage=_lineage_of(fleet),
    )
    return TrainedModel(card=card, parameters={name: array[member] for name, array in parameters.items()})


def _lineage_of(fleet: ModelVersion) -> Lineage | None:
    """The fleet's own, with the fleet as parent."""
    if fleet.card.lineage is None:
        return None
    parent = Parent(name=version_name(fleet.model, fleet.version), kind=ParentKind.PROMOTION)
    return replace(fleet.card.lineage, parent=parent)


def show_key(key: tuple[object, ...]) -> str:
    """A key for messages: its value, or several in parentheses; long texts cut."""
    shown = ", ".join(repr(value[:64] if isinstance(value, str) else value) for value in key)
    return shown if len(key) == 1 else f"({shown})"


def _spec_of(spec: TrainingSpec, names: tuple[str, ...], key: Key) -> TrainingSpec:
    """The training of one member: without keys, and with the values that a sweep gave it."""
    logging = replace(spec.logging, members=())
    if spec.sweep is None:
        return replace(spec, logging=logging, key_columns=())
    swept: dict[str, Any] = dict(zip(names, key, strict=True))
    seed = swept.pop("seed", spec.seed)
    swept.pop(FOLD, None)
    fit = spec.fit
    if isinstance(fit, GradientFit):
        fit = replace(fit, optimizer=replace(fit.optimizer, **swept))
    return replace(spec, fit=fit, seed=seed, logging=logging, key_columns=(), sweep=None)


def _metadata(version: ModelVersion, key: Key) -> dict[str, str]:
    return {"name": version_name(version.model, version.version), "member": show_key(key)}
