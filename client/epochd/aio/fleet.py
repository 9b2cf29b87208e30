"""A fleet of models, as seen by an asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, Literal, overload

from numpy.typing import NDArray

from epochd._core.members import FleetCalls, FleetFacts, MemberFacts, Order, Ranking
from epochd._core.predicting import probability_columns
from epochd._core.registry import format_of
from epochd._core.routing import Route
from epochd._transport.asynchronous import AsyncTransport
from epochd._wire.events import decode_parameters
from epochd._wire.preprocessing import decode_coefficients
from epochd.aio.model import Model
from epochd.coefficients import Coefficients
from epochd.events import State
from epochd.keys import Key, KeyLike
from epochd.policy import Policy
from epochd.registry import ExportFormat
from epochd.statistics import FleetStatistics, Statistics
from epochd.v1 import models_pb2
from epochd.validation import CrossValidation
from epochd.values import Prediction


class Fleet(FleetFacts, Model):
    """A model version with many members; see :class:`epochd.Fleet`."""

    def __init__(self, message: models_pb2.ModelVersion, transport: AsyncTransport, policy: Policy) -> None:
        super().__init__(message, transport, policy)
        self._policy = policy
        self._fleet_calls = FleetCalls(self, policy)

    @overload
    async def predict(
        self,
        X: Any,  # noqa: N803
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
    ) -> NDArray[Any]: ...
    @overload
    async def predict(
        self,
        X: Any,  # noqa: N803
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
        probabilities: Literal[True],
        logits: bool = False,
    ) -> Prediction: ...
    @overload
    async def predict(
        self,
        X: Any,  # noqa: N803
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
        probabilities: bool = False,
        logits: Literal[True],
    ) -> Prediction: ...
    async def predict(
        self,
        X: Any,  # noqa: N803 - as everywhere in this field
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
        probabilities: bool = False,
        logits: bool = False,
    ) -> NDArray[Any] | Prediction:
        """Predicts each row with the member that its key names; see :meth:`epochd.Fleet.predict`."""
        route = Route.of(self.key_columns, keys, member, unknown)
        program = self._calls.predict(X, probabilities=probabilities, logits=logits, route=route)
        prediction = await self._transport.run(program)
        return prediction if probabilities or logits else prediction.values

    async def predict_proba(
        self,
        X: Any,  # noqa: N803
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
    ) -> NDArray[Any]:
        """Probabilities [rows, classes] in the order of ``classes``; the rest as for :meth:`predict`."""
        route = Route.of(self.key_columns, keys, member, unknown)
        return probability_columns(
            await self._transport.run(self._calls.predict(X, probabilities=True, route=route))
        )

    async def parameters(self) -> dict[str, NDArray[Any]]:
        """The parameters of all K members by PyTorch's names, each [K, …] in the order of :meth:`keys`.

        The rows of failed members are NaN.
        """
        return await super().parameters()

    async def keys(self) -> list[Key]:
        """The keys of all members, ascending: the order of :meth:`parameters`."""
        return await self._transport.run(self._fleet_calls.keys())

    async def to_table(self) -> dict[str, NDArray[Any]]:
        """Keys and parameters as columns [K], one for each scalar: ``pandas.DataFrame(fleet.to_table())``."""
        return await self._transport.run(self._fleet_calls.table())

    # Of many models instead of one, as nobody takes the one for the other.
    async def statistics(self) -> FleetStatistics:  # type: ignore[override]
        """The statistics of all trained members: a sequence, and by ``to_table`` one table."""
        return await self._transport.run(self._fleet_calls.fleet_statistics())

    async def member(self, key: KeyLike) -> Member:
        """Finds a member; see :meth:`epochd.Fleet.member`."""
        found = await self._transport.run(self._fleet_calls.member(key))
        return Member(found.member, self, decode_parameters(found.parameters))

    async def members(
        self, *, order: Order = "key", state: State | str | None = None
    ) -> AsyncIterator[Member]:
        """The members, fetched page by page; see :meth:`epochd.Fleet.members`."""
        async for message in self._transport.iterate(self._fleet_calls.members(order, state)):
            yield Member(message, self)

    async def ranking(self, limit: int | None = None) -> Ranking[Member]:
        """The members, the smallest loss first; see :meth:`epochd.Fleet.ranking`."""
        messages = await self._transport.run(self._fleet_calls.ranking(limit))
        return Ranking(Member(message, self) for message in messages)

    async def cross_validation(self) -> CrossValidation:
        """The combinations of a sweep over folds; see :meth:`epochd.Fleet.cross_validation`."""
        return await self._transport.run(self._fleet_calls.cross_validation())

    @property
    def best(self) -> Awaitable[Member]:
        """The member with the smallest loss: ``await fleet.best``."""
        return self._best()

    async def promote(self, member: KeyLike | Member, name: str | None = None) -> Model:
        """Makes a member a model version of its own; see :meth:`epochd.Fleet.promote`."""
        key = member.key if isinstance(member, Member) else member
        promoted = await self._transport.run(self._fleet_calls.promote(key, name))
        return Model(promoted, self._transport, self._policy)

    async def _best(self) -> Member:
        return (await self.ranking(1))[0]


class Member(MemberFacts):
    """One member of a fleet; see :class:`epochd.Member`."""

    def __init__(
        self, message: models_pb2.Member, fleet: Fleet, parameters: dict[str, NDArray[Any]] | None = None
    ) -> None:
        super().__init__(message, fleet.key_columns, fleet.resource_name)
        self._owner = fleet
        self._parameters = parameters

    async def parameters(self) -> dict[str, NDArray[Any]]:
        """The parameters by PyTorch's names, in PyTorch's shapes; empty where it failed."""
        if self._parameters is None:
            self._parameters = await (await self._owner.member(self.key)).parameters()
        return self._parameters

    async def coefficients(self) -> Coefficients:
        """Its coefficients, as :meth:`Model.coefficients`."""
        found = await self._owner._transport.run(self._owner._fleet_calls.member(self.key))  # noqa: SLF001
        return decode_coefficients(found)

    async def statistics(self) -> Statistics:
        """Its statistics, as :meth:`Model.statistics`."""
        return await self._owner._transport.run(self._owner._fleet_calls.member_statistics(self.key))  # noqa: SLF001

    async def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Predicts every row with this member; key columns may stay in a table. See :meth:`Model.predict`."""
        return await self._owner.predict(X, member=self.key)

    async def promote(self, name: str | None = None) -> Model:
        """Makes it a model version of its own; see :meth:`Fleet.promote`."""
        return await self._owner.promote(self, name)

    async def export(self, path: str | Path, *, format: ExportFormat | None = None) -> None:  # noqa: A002
        """Writes it to a file as a single model; see :meth:`epochd.Model.export`."""
        program = self._owner._fleet_calls.export_member(self.key, format_of(path, format))  # noqa: SLF001
        file = await self._owner._transport.run(program)  # noqa: SLF001
        await asyncio.to_thread(Path(path).write_bytes, file)


def version_of(message: models_pb2.ModelVersion, transport: AsyncTransport, policy: Policy) -> Model:
    """The version of a message: a Fleet where it has members."""
    return (Fleet if message.members else Model)(message, transport, policy)
