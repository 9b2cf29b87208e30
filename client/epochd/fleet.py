"""A fleet of models, as seen by a blocking client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, overload

from numpy.typing import NDArray

from epochd._core.members import FleetCalls, FleetFacts, MemberFacts, Order, Ranking
from epochd._core.predicting import probability_columns
from epochd._core.registry import format_of
from epochd._core.routing import Route
from epochd._transport.blocking import BlockingTransport
from epochd._wire.events import decode_parameters
from epochd._wire.preprocessing import decode_coefficients
from epochd.coefficients import Coefficients
from epochd.events import State
from epochd.keys import Key, KeyLike
from epochd.model import Model
from epochd.policy import Policy
from epochd.registry import ExportFormat
from epochd.statistics import FleetStatistics, Statistics
from epochd.v1 import models_pb2
from epochd.validation import CrossValidation
from epochd.values import Prediction


class Fleet(FleetFacts, Model):
    """A model version with many members, one for each key, or in a sweep for each combination.

    Made by ``run.result`` and ``client.model``. ``print(fleet)`` tells what it is, ``len(fleet)`` is the number of its
    members.

    Example:
        >>> def use(fleet: Fleet, frame: object) -> None:
        ...     fleet.predict(frame)                   # each row by the member that its key columns name
        ...     fleet.member("store-17").parameters()
        ...     for member in fleet.members(state="FAILED"):
        ...         print(member)
        ...     print(fleet.ranking())                 # the smallest loss first
        ...     fleet.promote("store-17", name="flagship")
    """

    def __init__(
        self, message: models_pb2.ModelVersion, transport: BlockingTransport, policy: Policy
    ) -> None:
        super().__init__(message, transport, policy)
        self._policy = policy
        self._fleet_calls = FleetCalls(self, policy)

    @overload
    def predict(
        self,
        X: Any,  # noqa: N803
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
    ) -> NDArray[Any]: ...
    @overload
    def predict(
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
    def predict(
        self,
        X: Any,  # noqa: N803
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
        probabilities: bool = False,
        logits: Literal[True],
    ) -> Prediction: ...
    def predict(
        self,
        X: Any,  # noqa: N803 - as everywhere in this field
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
        probabilities: bool = False,
        logits: bool = False,
    ) -> NDArray[Any] | Prediction:
        """Predicts each row with the member that its key names; the order of the rows is kept.

        Args:
            X: Rows as a table with the key columns and the features, or as an array together with ``keys``.
            keys: The keys, one a row: an array, or for several key columns a dict of them, or tuples.
            member: The key of a member that predicts every row; then rows need no keys.
            unknown: What to do with rows whose key has no trained member: ``"error"``, ``"nan"`` (regression only),
                or the key of the member to predict with. A member that is called "nan" is ``("nan",)`` here.
            probabilities: Whether to return probabilities, too; classifiers only.
            logits: Whether to return logits, too; classifiers only.

        Returns:
            As :meth:`Model.predict`.

        Raises:
            InvalidArgument: When columns are missing or too many, or naming the first few unknown keys and their
                count; of many rows, which take several requests, those of the first request that has some.
        """
        route = Route.of(self.key_columns, keys, member, unknown)
        program = self._calls.predict(X, probabilities=probabilities, logits=logits, route=route)
        prediction = self._transport.run(program)
        return prediction if probabilities or logits else prediction.values

    def predict_proba(
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
            self._transport.run(self._calls.predict(X, probabilities=True, route=route))
        )

    def parameters(self) -> dict[str, NDArray[Any]]:
        """The parameters of all K members by PyTorch's names, each [K, …] in the order of :meth:`keys`.

        The rows of failed members are NaN.
        """
        return super().parameters()

    def keys(self) -> list[Key]:
        """The keys of all members, ascending: the order of :meth:`parameters`."""
        return self._transport.run(self._fleet_calls.keys())

    def to_table(self) -> dict[str, NDArray[Any]]:
        """Keys and parameters as columns [K], one for each scalar: ``pandas.DataFrame(fleet.to_table())``."""
        return self._transport.run(self._fleet_calls.table())

    # Of many models instead of one, as nobody takes the one for the other.
    def statistics(self) -> FleetStatistics:  # type: ignore[override]
        """The statistics of all trained members: a sequence, and by ``to_table`` one table."""
        return self._transport.run(self._fleet_calls.fleet_statistics())

    def member(self, key: KeyLike) -> Member:
        """Finds a member.

        Args:
            key: One value where there is one key column; else a tuple of them, or a dict by the columns' names.

        Raises:
            NotFound: When there is no such member.
        """
        found = self._transport.run(self._fleet_calls.member(key))
        return Member(found.member, self, decode_parameters(found.parameters))

    def members(self, *, order: Order = "key", state: State | str | None = None) -> Iterator[Member]:
        """The members, fetched page by page as they are iterated over.

        Args:
            order: By ``"key"``, by ``"loss"`` or by ``"validation_loss"``, the smallest first and failed ones last.
            state: Only those that are ``"SUCCEEDED"`` or ``"FAILED"``.
        """
        for message in self._transport.iterate(self._fleet_calls.members(order, state)):
            yield Member(message, self)

    def ranking(self, limit: int | None = None) -> Ranking[Member]:
        """The members, the smallest loss first (on held-out rows where there are any); it prints as a table.

        Args:
            limit: At most so many; None: all.
        """
        messages = self._transport.run(self._fleet_calls.ranking(limit))
        return Ranking(Member(message, self) for message in messages)

    def cross_validation(self) -> CrossValidation:
        """The combinations of a sweep over folds, the smallest mean loss first.

        Raises:
            FailedPrecondition: When it is none.
        """
        return self._transport.run(self._fleet_calls.cross_validation())

    @property
    def best(self) -> Member:
        """The member with the smallest loss, on held-out rows where there are any. Asks the server."""
        return self.ranking(1)[0]

    def promote(self, member: KeyLike | Member, name: str | None = None) -> Model:
        """Makes a member a model version of its own, which predicts without keys.

        Args:
            member: The member or its key.
            name: Of the model that gets the version; None: the fleet's own.

        Raises:
            NotFound: When there is no such member.
            FailedPrecondition: When it failed.
        """
        key = member.key if isinstance(member, Member) else member
        promoted = self._transport.run(self._fleet_calls.promote(key, name))
        return Model(promoted, self._transport, self._policy)


class Member(MemberFacts):
    """One member of a fleet; ``print(member)`` tells how it was trained.

    Made by ``fleet.member``, ``fleet.members`` and ``fleet.ranking``.
    """

    def __init__(
        self, message: models_pb2.Member, fleet: Fleet, parameters: dict[str, NDArray[Any]] | None = None
    ) -> None:
        super().__init__(message, fleet.key_columns, fleet.resource_name)
        self._owner = fleet
        self._parameters = parameters

    def parameters(self) -> dict[str, NDArray[Any]]:
        """The parameters by PyTorch's names, in PyTorch's shapes; empty where it failed."""
        if self._parameters is None:
            self._parameters = self._owner.member(self.key).parameters()
        return self._parameters

    def coefficients(self) -> Coefficients:
        """Its coefficients, as :meth:`Model.coefficients`."""
        return decode_coefficients(self._owner._transport.run(self._owner._fleet_calls.member(self.key)))  # noqa: SLF001

    def statistics(self) -> Statistics:
        """Its statistics, as :meth:`Model.statistics`."""
        return self._owner._transport.run(self._owner._fleet_calls.member_statistics(self.key))  # noqa: SLF001

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Predicts every row with this member; key columns may stay in a table. See :meth:`Model.predict`."""
        return self._owner.predict(X, member=self.key)

    def promote(self, name: str | None = None) -> Model:
        """Makes it a model version of its own; see :meth:`Fleet.promote`."""
        return self._owner.promote(self, name)

    def export(self, path: str | Path, *, format: ExportFormat | None = None) -> None:  # noqa: A002
        """Writes it to a file as a single model; see :meth:`epochd.Model.export`."""
        program = self._owner._fleet_calls.export_member(self.key, format_of(path, format))  # noqa: SLF001
        file = self._owner._transport.run(program)  # noqa: SLF001
        Path(path).write_bytes(file)


def version_of(message: models_pb2.ModelVersion, transport: BlockingTransport, policy: Policy) -> Model:
    """The version of a message: a Fleet where it has members."""
    return (Fleet if message.members else Model)(message, transport, policy)
