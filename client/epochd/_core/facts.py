"""What a model version says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from epochd._core.resources import model_name
from epochd._wire.fits import fit_kind
from epochd._wire.keys import decode_key
from epochd._wire.labels import decode_labels
from epochd._wire.preprocessing import decode_fitted
from epochd._wire.registry import decode_lineage
from epochd._wire.specs import decode_model
from epochd._wire.tensors import dtype_name
from epochd._wire.validation import decode_evaluation
from epochd._words import counted
from epochd.keys import Key, key_text
from epochd.preprocessing import FittedColumn
from epochd.registry import Lineage
from epochd.specs import ModelSpec
from epochd.v1 import models_pb2
from epochd.validation import Evaluation


class VersionFacts:
    """What is known of a model version; it never changes."""

    def __init__(self, message: models_pb2.ModelVersion) -> None:
        self._message = message

    @property
    def resource_name(self) -> str:
        """``models/{model}/versions/{version}``."""
        return self._message.name

    @property
    def name(self) -> str:
        """The model's name, such as ``house-price``."""
        return model_name(self._message.name).removeprefix("models/")

    @property
    def version(self) -> int:
        """The version's number: 1, 2, 3 …"""
        return int(self._message.name.rpartition("/")[2])

    @property
    def run(self) -> str:
        """The run that trained it, ``runs/{run}``."""
        return self._message.run

    @property
    def create_time(self) -> datetime:
        """When it was made, in UTC."""
        return self._message.create_time.ToDatetime(tzinfo=UTC)

    @cached_property
    def spec(self) -> ModelSpec | None:
        """The model with every size filled in; None for a kind that this client does not know."""
        return decode_model(self._message.model)

    @property
    def loss(self) -> str:
        """The name of the loss it was trained with."""
        return self._message.loss.WhichOneof("kind") or ""

    @property
    def fit(self) -> str:
        """How it was fitted: ``gradient``, ``least_squares``, ``newton`` or ``lbfgs``, `` (auto)`` where so chosen."""
        return fit_kind(self._message)

    @property
    def features(self) -> tuple[str, ...]:
        """What the model reads, in its order: feature columns, or what ``preprocess`` makes of them."""
        return tuple(self._message.feature_columns)

    @cached_property
    def preprocess(self) -> tuple[FittedColumn, ...]:
        """What becomes of each feature column; empty where they are used as they are."""
        return decode_fitted(self._message.preprocess)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that predictions need."""
        if not self.preprocess:
            return self.features
        return tuple(column.name for column in self.preprocess if column.features)

    @property
    def targets(self) -> tuple[str, ...]:
        """Target columns."""
        return tuple(self._message.target_columns)

    @cached_property
    def classes(self) -> NDArray[Any] | None:
        """Classes in the order of the outputs, of str or int64; None for regression."""
        return decode_labels(self._message.classes)

    @property
    def dtype(self) -> str:
        """The type of parameters and arithmetic."""
        return dtype_name(self._message.dtype)

    @property
    def parameter_count(self) -> int:
        """Number of parameters."""
        return self._message.parameters

    @property
    def rows(self) -> int:
        """Rows it was trained on."""
        return self._message.rows

    @property
    def epochs(self) -> int:
        """Epochs it was trained for."""
        return self._message.epochs

    @property
    def final_loss(self) -> float:
        """The loss of the last epoch, before its update."""
        return self._message.final_loss

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """How it does on the rows that were held out; None where none were."""
        if not self._message.HasField("evaluation"):
            return None
        return decode_evaluation(self._message.evaluation, self.classes)

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers of its training by name: ``loss``, and on held-out rows ``validation_loss`` and the metrics."""
        found = {"loss": self.final_loss}
        if self.evaluation is not None:
            found |= {"validation_loss": self.evaluation.loss, **self.evaluation.metrics}
        return found

    @property
    def seed(self) -> int:
        """The seed."""
        return self._message.seed

    @property
    def key_columns(self) -> tuple[str, ...]:
        """Fleets: the key columns in their order; empty for a single model."""
        return tuple(self._message.key_columns)

    @property
    def weight(self) -> str:
        """The column of row weights; empty where all rows counted alike."""
        return self._message.weight_column

    @property
    def labels(self) -> dict[str, str]:
        """The labels, as they were when this version was asked for."""
        return dict(sorted(self._message.labels.items()))

    @property
    def lineage(self) -> Lineage | None:
        """Where it comes from; None for versions of servers that did not keep it."""
        return decode_lineage(self._message.lineage) if self._message.HasField("lineage") else None

    @property
    def weights_digest(self) -> str:
        """SHA-256 in hex of the parameters as the server keeps them."""
        return self._message.weights_digest

    @property
    def promoted_from(self) -> tuple[str, Key] | None:
        """The fleet that it was a member of (``models/{model}/versions/{version}``) and its key; else None."""
        return (self._message.fleet, decode_key(self._message.member)) if self._message.fleet else None

    def __str__(self) -> str:
        lines = {
            **self._heading(),
            "trained": f"{self._how_long()} on {self.rows:,} rows, {self._loss_kind()} loss "
            f"{self.final_loss:.6g} ({self.loss})",
            "held out": "" if self.evaluation is None else str(self.evaluation),
            "promoted": "" if self.promoted_from is None else f"from {self._origin(*self.promoted_from)}",
            "columns": _listed(self.inputs) if self.preprocess else "",
            "features": _listed(self.features),
            "target": _listed(self.targets),
            "classes": "" if self.classes is None else _listed([str(label) for label in self.classes]),
            "labels": ", ".join(f"{key}={value}" for key, value in self.labels.items()),
            "continues": self._parent("WARM_START"),
            "imported": self._parent("IMPORT"),
            "run": f"{self.run}, seed {self.seed}",
        }
        shown = [f"  {key:<9} {value}" for key, value in lines.items() if value]
        return "\n".join([self.resource_name, *shown])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.resource_name}>"

    def _heading(self) -> dict[str, str]:
        """The first lines of the printed model."""
        return {"model": f"{self._spec_text()}, {self.parameter_count:,} parameters, {self.dtype}"}

    def _parent(self, kind: str) -> str:
        lineage = self.lineage
        return "" if lineage is None or lineage.parent_kind != kind else lineage.parent

    def _spec_text(self) -> str:
        return str(self.spec or "of a newer kind")

    def _how_long(self) -> str:
        """By which exact fit and how often it iterated, or the epochs."""
        if self._message.HasField("least_squares"):
            return "by least squares"
        if self._message.HasField("newton"):
            return f"by Newton's method, {counted(self.epochs, 'iteration')},"
        if self._message.HasField("lbfgs"):
            return f"by L-BFGS, {counted(self.epochs, 'iteration')},"
        return counted(self.epochs, "epoch")

    def _loss_kind(self) -> str:
        return "final"

    @staticmethod
    def _origin(fleet: str, key: Key) -> str:
        return f"{fleet}, member {key_text(key)}"


def _listed(names: Sequence[str], most: int = 12) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" … and {more} more" if more > 0 else "")
