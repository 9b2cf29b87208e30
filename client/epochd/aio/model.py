"""A model version, as seen by an asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from numpy.typing import NDArray

from epochd._core.facts import VersionFacts
from epochd._core.models import VersionCalls
from epochd._core.predicting import probability_columns
from epochd._core.registry import format_of
from epochd._transport.asynchronous import AsyncTransport
from epochd.coefficients import Coefficients
from epochd.policy import Policy
from epochd.registry import Canary, Comparison, ExportFormat
from epochd.statistics import Statistics
from epochd.v1 import models_pb2
from epochd.values import Prediction, RegisteredModel


class Model(VersionFacts):
    """One version of a model; see :class:`epochd.Model`."""

    def __init__(self, message: models_pb2.ModelVersion, transport: AsyncTransport, policy: Policy) -> None:
        super().__init__(message)
        self._transport = transport
        self._calls = VersionCalls(self, policy)

    @overload
    async def predict(self, X: Any) -> NDArray[Any]: ...  # noqa: N803
    @overload
    async def predict(self, X: Any, *, probabilities: Literal[True], logits: bool = False) -> Prediction: ...  # noqa: N803
    @overload
    async def predict(self, X: Any, *, probabilities: bool = False, logits: Literal[True]) -> Prediction: ...  # noqa: N803
    async def predict(
        self,
        X: Any,  # noqa: N803 - as everywhere in this field
        *,
        probabilities: bool = False,
        logits: bool = False,
    ) -> NDArray[Any] | Prediction:
        """Predicts; see :meth:`epochd.Model.predict`."""
        prediction = await self._transport.run(
            self._calls.predict(X, probabilities=probabilities, logits=logits)
        )
        return prediction if probabilities or logits else prediction.values

    async def predict_proba(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Probabilities [rows, classes] in the order of ``classes``, as scikit-learn gives them."""
        return probability_columns(await self._transport.run(self._calls.predict(X, probabilities=True)))

    async def parameters(self) -> dict[str, NDArray[Any]]:
        """The parameters by PyTorch's names, in PyTorch's order and shapes, of whatever size."""
        return await self._transport.run(self._calls.parameters())

    async def coefficients(self) -> Coefficients:
        """The coefficients of a linear model in the units of its columns: scaling is taken back; prints as a table.

        Raises:
            FailedPrecondition: When the model is not linear, or is a fleet too large for one message.
        """
        return await self._transport.run(self._calls.coefficients())

    async def statistics(self) -> Statistics:
        """Standard errors, p values, R² and the like of a linear model that was fitted exactly; prints as a table.

        Raises:
            InvalidArgument: When it was fitted by other means than least squares or Newton's method.
        """
        return await self._transport.run(self._calls.statistics())

    async def save(self, path: str | Path) -> None:
        """Writes the parameters to a safetensors file."""
        file = await self._transport.run(self._calls.export())
        await asyncio.to_thread(Path(path).write_bytes, file)

    async def export(self, path: str | Path, *, format: ExportFormat | None = None) -> None:  # noqa: A002
        """Writes this version to a file that other programs read; see :meth:`epochd.Model.export`."""
        file = await self._transport.run(self._calls.export(format_of(path, format)))
        await asyncio.to_thread(Path(path).write_bytes, file)

    async def aliases(self) -> list[str]:
        """The aliases that point at this version."""
        return await self._transport.run(self._calls.aliases())

    async def set_alias(
        self, alias: str, *, etag: str | None = None, canary: Canary | None = None
    ) -> RegisteredModel:
        """Points an alias at this version; see :meth:`epochd.Model.set_alias`."""
        return await self._transport.run(self._calls.set_alias(alias, etag, canary))

    async def delete_alias(self, alias: str, *, etag: str | None = None) -> RegisteredModel:
        """Deletes an alias of this model, if it still has the etag."""
        return await self._transport.run(self._calls.delete_alias(alias, etag))

    async def label(
        self, labels: Mapping[str, str] | None = None, *, remove: Sequence[str] = ()
    ) -> dict[str, str]:
        """Sets and removes labels of this version, and returns all that it has then; ``labels`` stays as it was."""
        return await self._transport.run(self._calls.label(labels or {}, remove))

    async def diff(self, other: str | VersionFacts) -> Comparison:
        """Compares this version, as the first, with another; prints as a table."""
        return await self._transport.run(self._calls.diff(other))

    async def delete(self) -> None:
        """Deletes this version, which no alias may point at."""
        await self._transport.run(self._calls.delete())
