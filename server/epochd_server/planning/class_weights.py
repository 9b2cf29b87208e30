"""Weights of classes: from the labels that a request lists to every class that the data have."""

from __future__ import annotations

from dataclasses import replace

from epochd_server.domain.data import Classes
from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import Loss

_SHOWN = 10


def check_class_weights(loss: Loss, classes: Classes, violations: Violations) -> None:
    """Reports labels that have a weight but are no class of the data, at ``loss``."""
    for index, (label, _) in enumerate(loss.class_weights or ()):
        if label not in classes:
            known = ", ".join(repr(one) for one in classes[:_SHOWN]) + (" …" if len(classes) > _SHOWN else "")
            field = f"loss.{loss.kind.value}.class_weights.weights[{index}].label"
            violations.add(field, f"{label!r} is no class of the data; these are: {known}")


def with_every_class(loss: Loss, classes: Classes | None) -> Loss:
    """The loss with a weight for every class, in their order: 1 for those that have none."""
    if loss.class_weights is None or classes is None:
        return loss
    given = dict(loss.class_weights)
    return replace(loss, class_weights=tuple((label, given.get(label, 1.0)) for label in classes))
