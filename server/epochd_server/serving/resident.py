"""A model version that is ready to predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.commands import PredictCommand
from epochd_server.domain.data import Table
from epochd_server.domain.errors import Violations
from epochd_server.domain.models import ModelVersion
from epochd_server.domain.predictions import Prediction
from epochd_server.domain.specs import ModuleModel
from epochd_server.serving.features import FeatureMatcher
from epochd_server.serving.members import Assignment, MemberMatcher, refuse_members
from epochd_server.serving.outputs import Array, Labels, predictions, sigmoid, softmax
from epochd_server.serving.raw_rows import RawMatcher

_NO_KEYS: frozenset[str] = frozenset()
_NO_CLASSIFIER = "only classifiers have them; this model is a regression"


class RowPredictor(Protocol):
    """Computes a model's raw outputs; what a row gets does not depend on the rows beside it. Safe in threads."""

    @property
    def calls_module(self) -> bool:
        """Whether it calls a registered module, whose code may do anything, such as never return."""

    def predict(self, rows: NDArray[np.floating], members: NDArray[np.int64] | None = None) -> Array:
        """Outputs [n, outputs] of features [n, d]; ``members`` [n] says whose parameters, in a fleet."""


@dataclass(slots=True, eq=False)
class Batch:
    """Rows that suit a model. Never changed; not frozen, which would cost small ones dear.

    Attributes:
        features: [n, d]
        assignment: Fleets: the members that predict them.
    """

    features: Array
    assignment: Assignment | None

    def part(self, chosen: NDArray[np.bool_]) -> Batch:
        """Some of the rows, bool [n]."""
        assignment = None if self.assignment is None else self.assignment.part(chosen)
        return Batch(self.features[chosen], assignment)


class Resident:
    """Predicts with one version.

    Args:
        version: The version.
        predictor: Computes its outputs.
        members: Fleets: finds the members of rows.
        nbytes: The memory that it takes, about.
    """

    def __init__(
        self, version: ModelVersion, predictor: RowPredictor, members: MemberMatcher | None, nbytes: int
    ) -> None:
        card = version.card
        self.version = version
        self.nbytes = nbytes
        self._predictor = predictor
        self._matcher = FeatureMatcher(card)
        self._raw = None
        if card.preprocess is not None:
            self._raw = RawMatcher(card, card.preprocess, None if members is None else members.learned)
        self._members = members
        self._loss = card.spec.loss
        self._labels = None if card.classes is None else Labels(card.classes)

    @property
    def is_raw(self) -> bool:
        """Whether preprocessing makes features of the rows."""
        return self._raw is not None

    @property
    def called_module(self) -> str | None:
        """The registered module that predictions call; None where they run the server's own code only."""
        model = self.version.card.spec.model
        return model.name if isinstance(model, ModuleModel) and self._predictor.calls_module else None

    def batch(self, command: PredictCommand) -> Batch:
        """What the model reads, and by which members.

        Raises:
            InvalidInput: The rows do not suit the model, or probabilities are asked of a regression; rows have keys
                without a trained member.
            EpochdError: MEMBER_NOT_FOUND, MEMBER_FAILED.
        """
        violations = Violations()
        if self._labels is None:
            _refuse_scores(command, violations)
        if self._raw is not None:
            return self._raw_batch(self._raw, command, violations)
        keys = _NO_KEYS if self._members is None else self._keys_in_table(command)
        features = self._matcher.match(command.rows, violations, keys=keys)
        if self._members is None:
            refuse_members(command, violations)
        else:
            self._members.check(command, None if features is None else len(features), violations)
        violations.raise_if_any()
        if features is None:
            raise AssertionError("unreachable: a matcher that gives nothing adds violations")
        return Batch(
            features, None if self._members is None else self._members.assign(command, len(features))
        )

    def _raw_batch(self, matcher: RawMatcher, command: PredictCommand, violations: Violations) -> Batch:
        """As :meth:`batch`, of rows that preprocessing makes features of."""
        rows = matcher.match(command.rows, violations, keys=self._keys_in_table(command))
        if self._members is None:
            refuse_members(command, violations)
        else:
            self._members.check(command, None if rows is None else rows.rows, violations)
        violations.raise_if_any()
        if rows is None:
            raise AssertionError("unreachable: a matcher that gives nothing adds violations")
        assignment = None if self._members is None else self._members.assign(command, rows.rows)
        members = None if assignment is None else assignment.members
        features = matcher.features(rows, violations, members)
        violations.raise_if_any()
        return Batch(features, assignment)

    def predict(self, batch: Batch, *, probabilities: bool, logits: bool) -> Prediction:
        """Predictions for a batch.

        Raises:
            InvalidInput: A row has no class.
        """
        raw = self._outputs(batch)
        if self._labels is None:
            raw = predictions(self._loss, raw)
        # One output is one number a row: the second class's logit, or the only target.
        outputs = raw.reshape(-1) if raw.shape[1] == 1 else raw
        if self._labels is None:
            return Prediction(version=self.version, values=outputs)
        return Prediction(
            version=self.version,
            values=self._labels.of(outputs),
            probabilities=_probabilities(outputs) if probabilities else None,
            logits=outputs if logits else None,
        )

    def _keys_in_table(self, command: PredictCommand) -> frozenset[str]:
        if self._members is None or command.member is not None:
            return frozenset()
        return self._members.key_columns

    def _outputs(self, batch: Batch) -> Array:
        assignment = batch.assignment
        if assignment is None:
            return self._predictor.predict(batch.features)
        raw = self._predictor.predict(batch.features, assignment.members)
        if assignment.missing is not None:
            raw[assignment.missing] = np.nan
        return raw


def command_rows(command: PredictCommand) -> int:
    """How many rows a command has."""
    rows = command.rows
    return rows.rows if isinstance(rows, Table) else rows.shape[0] if rows.ndim == 2 else 1


def _refuse_scores(command: PredictCommand, violations: Violations) -> None:
    if command.probabilities:
        violations.add("probabilities", _NO_CLASSIFIER)
    if command.logits:
        violations.add("logits", _NO_CLASSIFIER)


def _probabilities(logits: Array) -> Array:
    return sigmoid(logits) if logits.ndim == 1 else softmax(logits)
