"""Whether a training may begin with the parameters of a version."""

from __future__ import annotations

from epochd_server.domain.commands import TrainCommand
from epochd_server.domain.data import Classes, quoted
from epochd_server.domain.errors import Violations
from epochd_server.domain.fleets import Keys
from epochd_server.domain.models import ModelVersion, VersionCard
from epochd_server.domain.resources import version_name
from epochd_server.domain.specs import GradientFit, Model

_FIELD = "initial_version"


def check_initial(
    version: ModelVersion,
    command: TrainCommand,
    violations: Violations,
    *,
    model: Model | None,
    classes: Classes | None,
    keys: Keys | None,
) -> None:
    """Adds every way in which a version does not suit what is to be trained.

    Args:
        version: The version.
        command: The training.
        violations: Gets them.
        model: With every size filled in; None where that was not possible.
        classes: None for regression, or where they could not be found.
        keys: The members of a fleet or a sweep; None for one model.
    """
    name, card = version_name(version.model, version.version), version.card
    if not isinstance(command.fit, GradientFit):
        violations.add(_FIELD, "is for gradient fits; this fit does not depend on where it begins")
    if model is not None and card.spec.model != model:
        violations.add(_FIELD, f"must have the same model with the same sizes; {name} has another")
    if classes is not None and card.classes is not None and card.classes != classes:
        violations.add(_FIELD, f"must have the same classes; {name} has {quoted([*map(str, card.classes)])}")
    if card.members:
        _check_fleet(name, card, command, violations, keys)


def _check_fleet(
    name: str, card: VersionCard, command: TrainCommand, violations: Violations, keys: Keys | None
) -> None:
    if command.sweep is not None:
        violations.add(_FIELD, f"must be a single model for a sweep; {name} is a fleet")
    elif keys is None and not command.roles.groups:
        violations.add(
            _FIELD, f"must be a single model, as this is; {name} is a fleet: promote one of its members"
        )
    elif keys is not None and keys.names != card.key_columns:
        violations.add(
            _FIELD, f"must have the same key columns; those of {name} are {quoted(card.key_columns)}"
        )
