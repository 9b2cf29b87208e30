"""What each recipe comes to where nobody disturbs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import epochd
from benchmarks import harness
from benchmarks.chaos.bits import digest
from benchmarks.chaos.recipes import Recipe
from benchmarks.chaos.strangers import connect, start
from benchmarks.chaos.supervised import MODULES
from epochd import events

PASSING = frozenset({"sequence", "time", "rows_per_second", "training_seconds", "elapsed_seconds"})
"""Fields of events that tell when and how fast; all others are the same each time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A training's outcome, in digests that tell one bit from another.

    Attributes:
        logs: The epochs that were logged, in their order; of a fleet those of each member, by its key.
        end: The last event.
        parameters: Of the model, or of all members; empty where there is none.
        prediction: Of the recipe's probe; empty where there is none.
    """

    logs: Mapping[Any, tuple[str, ...]]
    end: str
    parameters: str = ""
    prediction: str = ""


def logs_of(log: Sequence[events.Event]) -> dict[Any, tuple[str, ...]]:
    """The digests of logged epochs; those of a fleet's members by key."""
    found: dict[Any, tuple[str, ...]] = {}
    for event in log:
        if isinstance(event, events.EpochLog):
            key = getattr(event, "key", None)
            found[key] = (*found.get(key, ()), digest(event, without=PASSING))
    return found


def end_of(event: events.Event) -> str:
    """The digest of a last event; names and texts, which hold ids, do not count."""
    return digest(event, without=PASSING | {"model_version", "message"})


def prediction_of(client: epochd.Client, version: str, recipe: Recipe) -> str:
    """The digest of what a version predicts for the recipe's probe; empty where there is none."""
    probe = recipe.training().probe
    return "" if probe is None else digest(client.predict(version, probe))


def train_all(recipes: Iterable[Recipe]) -> dict[Recipe, Outcome]:
    """Trains recipes one after the other, each alone, on a server of their own."""
    with harness.server("--cohorts", "off", *MODULES) as address, connect(address) as client:
        return {recipe: train(client, recipe) for recipe in sorted(set(recipes))}


def train(client: epochd.Client, recipe: Recipe) -> Outcome:
    """Trains a recipe to its end."""
    log = list(start(client, recipe).events())
    end = log[-1]
    if not isinstance(end, events.Succeeded):
        return Outcome(logs_of(log), end_of(end))
    version = end.model_version.removeprefix("models/")
    parameters = digest(client.model(version).parameters())
    return Outcome(logs_of(log), end_of(end), parameters, prediction_of(client, version, recipe))
