"""Members of fleets: what they say of themselves, and the programs of a fleet's calls."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from epochd._core.calling import call, paginate
from epochd._core.effects import Program
from epochd._core.facts import VersionFacts
from epochd._core.methods import GET_MEMBER, GET_STATISTICS, LIST_MEMBERS, PROMOTE_MEMBER
from epochd._core.models import VersionCalls
from epochd._core.validating import cross_validation_of
from epochd._wire.fits import decode_statistics
from epochd._wire.keys import decode_key, encode_key
from epochd._wire.specs import decode_sweep
from epochd._wire.validation import decode_evaluation
from epochd._words import counted
from epochd.events import State
from epochd.keys import Key, KeyLike, key_parts, key_text
from epochd.policy import Policy
from epochd.registry import ExportFormat
from epochd.statistics import FleetStatistics, Statistics
from epochd.sweeps import Sweep
from epochd.v1 import fits_pb2, models_pb2
from epochd.validation import CrossValidation, Evaluation
from epochd.values import Failure

Order = Literal["key", "loss", "validation_loss"]

_PAGE = 1_000
_SHOWN = 20
_ORDERS = {
    "key": models_pb2.MEMBER_ORDER_BY_KEY,
    "loss": models_pb2.MEMBER_ORDER_BY_LOSS,
    "validation_loss": models_pb2.MEMBER_ORDER_BY_VALIDATION_LOSS,
}
_STATES = {State.SUCCEEDED: models_pb2.MEMBER_STATE_SUCCEEDED, State.FAILED: models_pb2.MEMBER_STATE_FAILED}


class FleetFacts(VersionFacts):
    """What is known of a fleet."""

    def __len__(self) -> int:
        """Number of members, failed ones included."""
        return self._message.members

    @property
    def failed_members(self) -> int:
        """How many members failed; ``members(state="FAILED")`` says which, and why."""
        return self._message.failed_members

    @property
    def sweep(self) -> Sweep | None:
        """What was swept; None for a fleet by keys."""
        return decode_sweep(self._message.sweep) if self._message.HasField("sweep") else None

    def _heading(self) -> dict[str, str]:
        failed = f", {self.failed_members:,} of them failed" if self.failed_members else ""
        kind = "sweep" if self.sweep else "fleet"
        return {
            kind: f"{len(self):,} members by {', '.join(self.key_columns)}{failed}",
            "model": f"{self._spec_text()}, {self.parameter_count:,} parameters each, {self.dtype}",
        }

    def _loss_kind(self) -> str:
        return "median"


class MemberFacts:
    """What a member of a fleet says of itself.

    Args:
        message: The member.
        columns: The fleet's key columns.
        fleet: The fleet's version, ``models/{model}/versions/{version}``.
    """

    def __init__(self, message: models_pb2.Member, columns: Sequence[str], fleet: str) -> None:
        self._message = message
        self._columns = columns
        self._fleet = fleet

    @property
    def fleet(self) -> str:
        """The fleet's version, ``models/{model}/versions/{version}``."""
        return self._fleet

    @property
    def key(self) -> Key:
        """Its key: one value, or a tuple with one for each key column."""
        return decode_key(self._message.key)

    @property
    def keys_by_column(self) -> dict[str, Any]:
        """Its key by the names of the key columns, such as ``{"lr": 0.1, "seed": 1}``."""
        return dict(zip(self._columns, key_parts(self.key), strict=True))

    @property
    def state(self) -> State:
        """SUCCEEDED or FAILED."""
        return State[models_pb2.MemberState.Name(self._message.state).removeprefix("MEMBER_STATE_")]

    @property
    def rows(self) -> int:
        """Rows it was trained on."""
        return self._message.rows

    @property
    def epochs(self) -> int:
        """Epochs it was trained for."""
        return self._message.epochs

    @property
    def evaluation(self) -> Evaluation | None:
        """How it does on its held-out rows; None where there are none, or it failed."""
        message = self._message
        return decode_evaluation(message.evaluation, None) if message.HasField("evaluation") else None

    @property
    def final_loss(self) -> float:
        """The loss of its last epoch, before its update; NaN where it has none."""
        return self._message.final_loss

    @property
    def failure(self) -> Failure | None:
        """Why it was not trained; None where it was."""
        if not self._message.HasField("failure"):
            return None
        failure = self._message.failure
        epoch = failure.epoch if failure.HasField("epoch") else None
        return Failure(reason=failure.reason, message=failure.message, hint=failure.hint, epoch=epoch)

    def __str__(self) -> str:
        if self.failure is not None:
            return f"{self._name()}  {self.rows:,} rows  failed: {self.failure}"
        trained = f"{counted(self.rows, 'row')}  {counted(self.epochs, 'epoch')}"
        return f"{self._name()}  {trained}  loss {self.final_loss:.6g}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name()} of {self._fleet}>"

    def _name(self) -> str:
        return ", ".join(f"{column}={key_text(part)}" for column, part in self.keys_by_column.items())


M = TypeVar("M", bound=MemberFacts)


class Ranking(Sequence[M], Generic[M]):
    """Members, the smallest loss first, failed ones last; prints as a table."""

    def __init__(self, members: Iterable[M]) -> None:
        self._members = tuple(members)

    @overload
    def __getitem__(self, place: int) -> M: ...
    @overload
    def __getitem__(self, place: slice) -> Ranking[M]: ...
    def __getitem__(self, place: int | slice) -> M | Ranking[M]:
        """The member at a place, or those at some."""
        return Ranking(self._members[place]) if isinstance(place, slice) else self._members[place]

    def __len__(self) -> int:
        """Number of members."""
        return len(self._members)

    def __str__(self) -> str:
        shown = self._members[:_SHOWN]
        held_out = any(member.evaluation is not None for member in shown)
        columns = ["loss", *(["validation"] if held_out else []), "epochs"]
        cells = [["", *(shown[0].keys_by_column if shown else ()), *columns]]
        cells += [_ranked(place, member, held_out) for place, member in enumerate(shown, 1)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.rjust, row, widths)).rstrip() for row in cells]
        more = len(self) - len(shown)
        return "\n".join([*lines, *([f"… and {more:,} more"] if more else [])])

    def __repr__(self) -> str:
        return f"<Ranking of {len(self):,} members>"


def _ranked(place: int, member: MemberFacts, held_out: bool) -> list[str]:
    evaluation = member.evaluation
    measured = [f"{evaluation.loss:.6g}" if evaluation is not None else ""] if held_out else []
    end = [f"{member.final_loss:.6g}", *measured, f"{member.epochs:,}"]
    if member.failure is not None:
        end = ["failed", *([""] if held_out else []), member.failure.reason]
    return [f"{place}.", *(key_text(part) for part in member.keys_by_column.values()), *end]


class FleetCalls(VersionCalls):
    """Makes the programs of one fleet."""

    def __init__(self, facts: FleetFacts, policy: Policy) -> None:
        super().__init__(facts, policy)
        self._fleet = facts

    def members(self, order: Order, state: State | str | None) -> Program[None]:
        """Emits the messages of members, page by page."""
        return paginate(LIST_MEMBERS, self._listing(order, state), lambda page: page.members, self._policy)

    def ranking(self, limit: int | None = None) -> Program[list[models_pb2.Member]]:
        """The members with the smallest losses, on held-out rows where there are any, the smallest first."""
        order: Order = "loss" if self._fleet.evaluation is None else "validation_loss"
        return (yield from self._listed(self._listing(order), limit))

    def cross_validation(self) -> Program[CrossValidation]:
        """The combinations of a sweep over folds."""
        members = yield from self._listed(self._listing("key"))
        return cross_validation_of(members, self._fleet.key_columns)

    def keys(self) -> Program[list[Key]]:
        """The keys of all members, ascending, as the parameters are."""
        members = yield from self._listed(self._listing("key"))
        return [decode_key(member.key) for member in members]

    def table(self) -> Program[dict[str, NDArray[Any]]]:
        """Keys and parameters as columns."""
        keys = yield from self.keys()
        parameters = yield from self.parameters()
        parts = zip(*map(key_parts, keys), strict=True)
        named = {name: np.asarray(part) for name, part in zip(self._fleet.key_columns, parts, strict=True)}
        return named | dict(_scalar_columns(parameters))

    def _listing(self, order: Order, state: State | str | None = None) -> models_pb2.ListMembersRequest:
        wanted = models_pb2.MEMBER_STATE_UNSPECIFIED if state is None else _STATES[State(state)]
        return models_pb2.ListMembersRequest(
            name=self._fleet.resource_name, page_size=_PAGE, order=_ORDERS[order], state=wanted
        )

    def _listed(
        self, request: models_pb2.ListMembersRequest, limit: int | None = None
    ) -> Program[list[models_pb2.Member]]:
        found: list[models_pb2.Member] = []
        request.page_size = min(_PAGE, limit or _PAGE)
        while True:
            page = yield from call(LIST_MEMBERS, request, self._policy)
            found += page.members
            request.page_token = page.next_page_token
            if not request.page_token or (limit is not None and len(found) >= limit):
                return found[:limit]

    def member(self, key: KeyLike) -> Program[models_pb2.GetMemberResponse]:
        """Finds a member, with its parameters."""
        request = models_pb2.GetMemberRequest(
            name=self._fleet.resource_name, key=encode_key(key, self._fleet.key_columns)
        )
        return (yield from call(GET_MEMBER, request, self._policy))

    def fleet_statistics(self) -> Program[FleetStatistics]:
        """The statistics of all trained members."""
        request = fits_pb2.GetStatisticsRequest(name=self._fleet.resource_name)
        found: list[Statistics] = []
        while True:
            page = yield from call(GET_STATISTICS, request, self._policy)
            names = tuple(page.coefficient_names)
            found += [decode_statistics(message, names) for message in page.statistics]
            request.page_token = page.next_page_token
            if not request.page_token:
                return FleetStatistics(found, self._fleet.key_columns)

    def member_statistics(self, key: KeyLike) -> Program[Statistics]:
        """The statistics of a member."""
        request = fits_pb2.GetStatisticsRequest(
            name=self._fleet.resource_name, key=encode_key(key, self._fleet.key_columns)
        )
        response = yield from call(GET_STATISTICS, request, self._policy)
        return decode_statistics(response.statistics[0], response.coefficient_names)

    def export_member(self, key: KeyLike, form: ExportFormat) -> Program[bytearray]:
        """A member as the bytes of a file, as a single model."""
        return self.export(form, encode_key(key, self._fleet.key_columns))

    def promote(self, key: KeyLike, name: str | None) -> Program[models_pb2.ModelVersion]:
        """Makes a member a version of its own."""
        request = models_pb2.PromoteMemberRequest(
            name=self._fleet.resource_name,
            key=encode_key(key, self._fleet.key_columns),
            model_name=name or "",
            request_id=uuid.uuid4().hex,
        )
        return (yield from call(PROMOTE_MEMBER, request, self._policy)).version


def _scalar_columns(parameters: dict[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Each element of stacked parameters [K, …] as a column [K], named like ``linear.weight[0,3]``."""
    for name, stacked in parameters.items():
        for place in np.ndindex(stacked.shape[1:]):
            inside = ",".join(map(str, place))
            yield (f"{name}[{inside}]" if place else name), stacked[(slice(None), *place)]
