"""What becomes of a fleet, put together from the reports on its parts.

Legend: K members of the fleet, M of one part; members are in the order of keys, parts too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.fleets import Key, Keys, Members, MemberState
from epochd_server.domain.runs import Failure, FleetProgress, MemberLog, Parameters
from epochd_server.domain.work import RunFailed, RunStopped, RunTrained
from epochd_server.executor.packing import epoch_logs
from epochd_server.executor.wire import EndColumns, FleetBegan, LogColumns, Outcome

_WORST = 5
_QUARTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_PENDING = -1
_REASONS: Mapping[int, str] = MappingProxyType(
    {Outcome.DIVERGED: "LOSS_NOT_FINITE", Outcome.FAILED: "MODULE_FAILED"}
)
_FAILED = tuple(_REASONS)
_HINTS: Mapping[str, str] = MappingProxyType(
    {
        "LOSS_NOT_FINITE": "Try a smaller learning rate, and bring the features to a common scale.",
        "FEATURE_NOT_FINITE": "Leave out the rows with missing, NaN or infinite features, or fill them in.",
        "TARGET_NOT_FINITE": "Leave out the rows with missing, NaN or infinite targets, or fill them in.",
        "WEIGHT_NOT_VALID": "Give every row a finite weight of at least 0.",
        "NO_WEIGHT": "Give at least one row of each member a weight above 0.",
        "ONE_CLASS_ONLY": "A classifier needs rows of two classes at least, in each member.",
        "MODULE_FAILED": "The server's log has the details under this run's id.",
    }
)
_NOBODY = np.empty(0, np.int64)
_NO_LOSSES = np.empty(0)


class PartResult:
    """What became of a part so far, as columns [M].

    Args:
        began: Which members there are.
    """

    def __init__(self, began: FleetBegan) -> None:
        members = len(began.rows)
        self.keys, self.rows, self.unfit = began.keys, began.rows, began.unfit
        self.outcomes = np.full(members, _PENDING, np.int64)
        self.outcomes[list(began.unfit)] = Outcome.FAILED
        self.epochs = np.zeros(members, np.int64)
        self.losses = np.full(members, np.nan)
        self.parameters: dict[str, NDArray[np.floating]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def trained(self) -> NDArray[np.int64]:
        """The members that were trained to their end."""
        return np.flatnonzero(self.outcomes == Outcome.FINISHED)

    def take(self, ends: EndColumns) -> None:
        """Takes members that have ended."""
        self.outcomes[ends.members] = ends.outcomes
        self.epochs[ends.members] = ends.epochs
        good = np.flatnonzero(ends.outcomes == Outcome.FINISHED)
        members = ends.members[good]
        self.losses[members] = ends.final_losses[good]
        for name, array in ends.parameters.items():
            if name not in self.parameters:
                self.parameters[name] = np.full((len(self), *array.shape[1:]), np.nan, array.dtype)
            self.parameters[name][members] = array[good]

    def logs(self, columns: LogColumns) -> list[MemberLog]:
        """Epochs of members whose logs were asked for."""
        return [MemberLog(key=self.keys.key(member), log=log) for member, log in epoch_logs(columns)]

    def reasons(self) -> dict[int, str]:
        """Failed members → why, ascending."""
        failed = {
            member: _REASONS[outcome]
            for outcome in _FAILED
            for member in np.flatnonzero(self.outcomes == outcome).tolist()
        }
        return dict(sorted((failed | dict(self.unfit)).items()))


class FleetResult:
    """What became of a fleet so far.

    Args:
        run_id: The fleet.
        members: K.
        parts: How many parts it is cut into.
    """

    def __init__(self, run_id: str, members: int, parts: int) -> None:
        self._run_id = run_id
        self._total = members
        self._parts: list[PartResult | None] = [None] * parts

    def begin(self, part: int, began: FleetBegan) -> PartResult:
        """A part begins, or begins anew: what was known of it is forgotten."""
        result = self._parts[part] = PartResult(began)
        return result

    def progress(self, elapsed: float, estimated: float) -> FleetProgress:
        """Where the training is.

        Args:
            elapsed: Seconds since it began.
            estimated: Seconds that it was thought to take; used until the first members have ended.
        """
        parts = self._begun()
        outcomes = np.concatenate([_NOBODY, *(part.outcomes for part in parts)])
        done = int(np.count_nonzero(outcomes != _PENDING))
        failed = np.isin(outcomes, _FAILED)
        left = max(self._total - done, 0)
        losses = np.concatenate([_NO_LOSSES, *(part.losses for part in parts)])
        trained = np.flatnonzero(outcomes == Outcome.FINISHED)
        return FleetProgress(
            members_done=done,
            members_failed=int(np.count_nonzero(failed)),
            members_total=self._total,
            loss_quantiles=_quantiles(losses[trained]),
            worst=self._worst(losses, trained),
            eta_seconds=elapsed * left / done if done else max(estimated - elapsed, 0.0),
            elapsed_seconds=elapsed,
        )

    def outcome(self, seconds: float) -> RunTrained | RunFailed | RunStopped:
        """The end of the fleet; none of its parts is in training any more."""
        parts = self._begun()
        outcomes = np.concatenate([_NOBODY, *(part.outcomes for part in parts)])
        if len(parts) < len(self._parts) or np.isin(outcomes, (_PENDING, Outcome.STOPPED)).any():
            return RunStopped(run_id=self._run_id, epochs=self._fewest_epochs())
        members = _members(parts, outcomes)
        trained = members.states == MemberState.SUCCEEDED
        if not trained.any():
            return RunFailed(run_id=self._run_id, failure=_all_failed(members.reasons))
        return RunTrained(
            run_id=self._run_id,
            parameters=_parameters(parts),
            epochs=int(members.epochs[trained].max()),
            final_loss=float(np.median(members.final_losses[trained])),
            training_seconds=seconds,
            members=members,
        )

    def _begun(self) -> list[PartResult]:
        return [part for part in self._parts if part is not None]

    def _fewest_epochs(self) -> int:
        """Epochs that every member has been trained for."""
        if any(part is None for part in self._parts):
            return 0
        fit = [part.epochs[~np.isin(part.outcomes, _FAILED)] for part in self._begun()]
        return int(min((epochs.min() for epochs in fit if len(epochs)), default=0))

    def _worst(
        self, losses: NDArray[np.float64], trained: NDArray[np.int64]
    ) -> tuple[tuple[Key, float], ...]:
        largest = trained
        if len(trained) > _WORST:
            largest = trained[np.argpartition(losses[trained], -_WORST)[-_WORST:]]
        largest = largest[np.argsort(-losses[largest], kind="stable")]
        return tuple((self._key(member), float(losses[member])) for member in largest.tolist())

    def _key(self, member: int) -> Key:
        """The key of a member, counted over the parts that have begun."""
        for part in self._begun():
            if member < len(part):
                return part.keys.key(member)
            member -= len(part)
        raise IndexError(member)


def _members(parts: Sequence[PartResult], outcomes: NDArray[np.int64]) -> Members:
    succeeded = outcomes == Outcome.FINISHED
    return Members(
        keys=_keys(parts),
        states=np.where(succeeded, MemberState.SUCCEEDED, MemberState.FAILED).astype(np.uint8),
        rows=np.concatenate([part.rows for part in parts]),
        epochs=np.concatenate([part.epochs for part in parts]),
        final_losses=np.concatenate([part.losses for part in parts]),
        reasons=_reasons(parts),
    )


def _keys(parts: Sequence[PartResult]) -> Keys:
    columns = zip(*(part.keys.columns for part in parts), strict=True)
    return Keys(parts[0].keys.names, tuple(np.concatenate(pieces) for pieces in columns))


def _reasons(parts: Sequence[PartResult]) -> dict[int, str]:
    reasons: dict[int, str] = {}
    first = 0
    for part in parts:
        reasons.update((first + member, reason) for member, reason in part.reasons().items())
        first += len(part)
    return reasons


def _parameters(parts: Sequence[PartResult]) -> Parameters:
    """[K, …] each; a part without any trained member has NaN."""
    shapes = next(part.parameters for part in parts if part.parameters)
    return {
        name: np.concatenate(
            [
                part.parameters.get(name, np.full((len(part), *array.shape[1:]), np.nan, array.dtype))
                for part in parts
            ]
        )
        for name, array in shapes.items()
    }


def _quantiles(losses: NDArray[np.float64]) -> tuple[float, float, float, float, float] | None:
    if not len(losses):
        return None
    low, lower, middle, upper, high = np.quantile(losses, _QUARTILES).tolist()
    return low, lower, middle, upper, high


def _all_failed(reasons: Mapping[int, str]) -> Failure:
    commonest, count = Counter(reasons.values()).most_common(1)[0]
    return Failure(
        reason="ALL_MEMBERS_FAILED",
        message=f"None of the {len(reasons):,} members could be trained; the reason of {count:,} is {commonest}.",
        hint=_HINTS.get(commonest, ""),
    )
