"""A model version, as seen by a blocking client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from numpy.typing import NDArray

from epochd._core.facts import VersionFacts
from epochd._core.models import VersionCalls
from epochd._core.predicting import probability_columns
from epochd._core.registry import format_of
from epochd._transport.blocking import BlockingTransport
from epochd.coefficients import Coefficients
from epochd.policy import Policy
from epochd.registry import Canary, Comparison, ExportFormat
from epochd.statistics import Statistics
from epochd.v1 import models_pb2
from epochd.values import Prediction, RegisteredModel


class Model(VersionFacts):
    """One version of a model; it never changes.

    Made by ``run.result`` and ``client.model``. ``print(model)`` tells what it is.

    Example:
        >>> def use(model: Model) -> None:
        ...     model.predict([[4.0]])                 # a NumPy array
        ...     model.parameters()                     # {"linear.weight": array, "linear.bias": array}
        ...     model.set_alias("champion")
    """

    def __init__(
        self, message: models_pb2.ModelVersion, transport: BlockingTransport, policy: Policy
    ) -> None:
        super().__init__(message)
        self._transport = transport
        self._calls = VersionCalls(self, policy)

    @overload
    def predict(self, X: Any) -> NDArray[Any]: ...  # noqa: N803
    @overload
    def predict(self, X: Any, *, probabilities: Literal[True], logits: bool = False) -> Prediction: ...  # noqa: N803
    @overload
    def predict(self, X: Any, *, probabilities: bool = False, logits: Literal[True]) -> Prediction: ...  # noqa: N803
    def predict(
        self,
        X: Any,  # noqa: N803 - as everywhere in this field
        *,
        probabilities: bool = False,
        logits: bool = False,
    ) -> NDArray[Any] | Prediction:
        """Predicts.

        Args:
            X: Rows as an array [rows, features] or [features] (with one feature: [rows]), or as a table that has
                the model's features, in any order; its target columns may stay in.
            probabilities: Whether to return probabilities, too; classifiers only.
            logits: Whether to return logits, too; classifiers only.

        Returns:
            One prediction a row, [rows] or [rows, targets]; labels of str or int64 for classifiers. With
            ``probabilities`` or ``logits`` a :class:`Prediction` that holds all of it.

        Raises:
            InvalidArgument: When columns are missing or too many, each named.
        """
        prediction = self._transport.run(self._calls.predict(X, probabilities=probabilities, logits=logits))
        return prediction if probabilities or logits else prediction.values

    def predict_proba(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Probabilities [rows, classes] in the order of ``classes``, as scikit-learn gives them."""
        return probability_columns(self._transport.run(self._calls.predict(X, probabilities=True)))

    def parameters(self) -> dict[str, NDArray[Any]]:
        """The parameters by PyTorch's names, in PyTorch's order and shapes, of whatever size."""
        return self._transport.run(self._calls.parameters())

    def coefficients(self) -> Coefficients:
        """The coefficients of a linear model in the units of its columns: scaling is taken back; prints as a table.

        Raises:
            FailedPrecondition: When the model is not linear, or is a fleet too large for one message.
        """
        return self._transport.run(self._calls.coefficients())

    def statistics(self) -> Statistics:
        """Standard errors, p values, R² and the like of a linear model that was fitted exactly; prints as a table.

        Raises:
            InvalidArgument: When it was fitted by other means than least squares or Newton's method.
        """
        return self._transport.run(self._calls.statistics())

    def save(self, path: str | Path) -> None:
        """Writes the parameters to a safetensors file."""
        Path(path).write_bytes(self._transport.run(self._calls.export()))

    def export(self, path: str | Path, *, format: ExportFormat | None = None) -> None:  # noqa: A002
        """Writes this version to a file that other programs read.

        Args:
            path: The file.
            format: ``safetensors`` (with a card, for ``client.import_model``), ``card`` (JSON), ``onnx`` or ``pt2``
                (``torch.export``); None: by the file's suffix, ``.json`` being a card.

        Raises:
            FailedPrecondition: When this model has no such form.
        """
        file = self._transport.run(self._calls.export(format_of(path, format)))
        Path(path).write_bytes(file)

    def aliases(self) -> list[str]:
        """The aliases that point at this version."""
        return self._transport.run(self._calls.aliases())

    def set_alias(
        self, alias: str, *, etag: str | None = None, canary: Canary | None = None
    ) -> RegisteredModel:
        """Points an alias at this version; ``client.model("NAME@ALIAS")`` finds it then.

        Args:
            alias: Such as ``champion``.
            etag: The etag that the alias must still have (``client.models`` tells it), or ``"absent"``; None: any.
            canary: A second version for a share of the keys; None: all keys go to this version.

        Raises:
            Aborted: When the alias was moved since its etag was read.
        """
        return self._transport.run(self._calls.set_alias(alias, etag, canary))

    def delete_alias(self, alias: str, *, etag: str | None = None) -> RegisteredModel:
        """Deletes an alias of this model, if it still has the etag."""
        return self._transport.run(self._calls.delete_alias(alias, etag))

    def label(self, labels: Mapping[str, str] | None = None, *, remove: Sequence[str] = ()) -> dict[str, str]:
        """Sets and removes labels of this version, and returns all that it has then; ``labels`` stays as it was."""
        return self._transport.run(self._calls.label(labels or {}, remove))

    def diff(self, other: str | VersionFacts) -> Comparison:
        """Compares this version, as the first, with another; prints as a table."""
        return self._transport.run(self._calls.diff(other))

    def delete(self) -> None:
        """Deletes this version, which no alias may point at."""
        self._transport.run(self._calls.delete())
