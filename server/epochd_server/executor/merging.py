"""What becomes of a fleet, put together from the reports on its parts.

Legend: K members of the fleet, M of one part; members are in the order of keys, parts too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.checkpoints import State
from epochd_server.domain.fit_failures import FIT_FAILURES
from epochd_server.domain.fleets import HeldOut, Key, Members, MemberState
from epochd_server.domain.runs import Failure, FleetProgress, MemberLog
from epochd_server.domain.validation import Validation
from epochd_server.domain.work import RunFailed, RunStopped, RunTrained, RunWork
from epochd_server.executor.packing import epoch_logs
from epochd_server.executor.shares import FleetPart, keys_of
from epochd_server.executor.wire import EXACT_FAILURES, EndColumns, LogColumns, Outcome

_WORST = 5
_QUARTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_PENDING = -1
_UNFINISHED = "CANCELLED"
"""The reason of members that had not ended when their fleet was cancelled."""
_PARAMETER, _STATISTIC = "parameter.", "statistic."
_REASONS: Mapping[int, str] = MappingProxyType(
    {Outcome.DIVERGED: "LOSS_NOT_FINITE", Outcome.FAILED: "MODULE_FAILED", **EXACT_FAILURES}
)
_FAILED = tuple(_REASONS)
_HINTS: Mapping[str, str] = MappingProxyType(
    {
        "LOSS_NOT_FINITE": "Try a smaller learning rate, and bring the features to a common scale.",
        "FEATURE_NOT_FINITE": "Leave out the rows with missing, NaN or infinite features, or fill them in.",
        "TARGET_NOT_FINITE": "Leave out the rows with missing, NaN or infinite targets, or fill them in.",
        "WEIGHT_NOT_VALID": "Give every row a finite weight of at least 0.",
        "NO_WEIGHT": "Give at least one row of each member a weight above 0.",
        "NO_VALIDATION_ROWS": "Give each member two rows at least (by group two groups), or held-out rows of its own.",
        "ONE_CLASS_LEFT": "Hold out fewer rows, or split them stratified.",
        "ONE_CLASS_ONLY": "A classifier needs rows of two classes at least, in each member.",
        _UNFINISHED: "Train the fleet again, or these members by themselves.",
        "MODULE_FAILED": "The server's log has the details under this run's id.",
        **{reason: hint for reason, (_, hint) in FIT_FAILURES.items()},
    }
)


class FleetResult:
    """What became of a fleet so far, as columns [K].

    Args:
        run: The fleet.
    """

    def __init__(self, run: RunWork) -> None:
        groups = run.data.groups
        self._run_id = run.run_id
        self._keys = keys_of(run)
        self._unfit: Mapping[int, str] = {} if groups is None else groups.unfit
        members = len(self._keys)
        self._rows = np.zeros(members, np.int64) if groups is None else np.diff(groups.offsets)
        self._outcomes = np.full(members, _PENDING, np.int8)
        self._epochs = np.zeros(members, np.int64)
        self._losses = np.full(members, np.nan)
        self._parameters: dict[str, NDArray[np.floating]] = {}
        self._statistics: dict[str, NDArray[np.floating]] = {}
        self._held_out = None if run.spec.validation is None else _nothing_held(members, run.spec.validation)
        if run.checkpoint is not None:
            self._restore(run.checkpoint.ended)

    def begin(self, part: FleetPart, rows: NDArray[np.int64] | int) -> None:
        """A part begins.

        Args:
            part: The part.
            rows: How many each of its members has, or all of them.
        """
        mine = slice(part.first, part.last)
        groups = part.work.data.groups
        if groups is None:
            self._rows[mine] = rows
        else:
            self._outcomes[part.first + np.fromiter(groups.unfit, np.int64)] = Outcome.FAILED

    def take(self, part: FleetPart, ends: EndColumns) -> None:
        """Takes members that have ended."""
        members = part.first + ends.members
        self._outcomes[members] = ends.outcomes
        self._epochs[members] = ends.epochs
        good = ends.outcomes == Outcome.FINISHED
        members = members[good]
        self._losses[members] = ends.final_losses[good]
        if self._held_out is not None and ends.held_out is not None:
            self._held_out.rows[members] = ends.held_out.rows[good]
            self._held_out.losses[members] = ends.held_out.losses[good]
            self._held_out.values[members] = ends.held_out.values[good]
            self._held_out.best_epochs[members] = ends.held_out.best_epochs[good]
        for name, array in ends.parameters.items():
            self._put(self._parameters, name, array[good], members)
        for name, array in ends.statistics.items():
            self._put(self._statistics, name, array[good], members)

    def ended(self, part: FleetPart) -> NDArray[np.int64]:
        """The members of a part that have ended and need not be trained again, counted from its first."""
        return np.flatnonzero(self._is_final()[part.first : part.last])

    def is_open(self, member: int) -> bool:
        """Whether a member has not ended."""
        return self._outcomes[member] in (_PENDING, Outcome.STOPPED)

    def state(self) -> State:
        """What became of the members that have ended, as columns that :meth:`FleetResult` restores; copies."""
        outcomes = np.where(self._is_final(), self._outcomes, _PENDING).astype(np.int8)
        return {"outcomes": outcomes} | {name: array.copy() for name, array in self._columns().items()}

    def _is_final(self) -> NDArray[np.bool_]:
        return ~np.isin(self._outcomes, (_PENDING, Outcome.STOPPED))

    def _columns(self) -> dict[str, NDArray[np.generic]]:
        """All that is known but the outcomes, by names of their own."""
        columns: dict[str, NDArray[np.generic]] = {
            "epochs": self._epochs,
            "losses": self._losses,
            "rows": self._rows,
        }
        if (held := self._held_out) is not None:
            columns |= {"held.rows": held.rows, "held.losses": held.losses, "held.values": held.values}
            columns["held.best_epochs"] = held.best_epochs
        columns |= {_PARAMETER + name: array for name, array in self._parameters.items()}
        return columns | {_STATISTIC + name: array for name, array in self._statistics.items()}

    def _restore(self, state: State) -> None:
        for name, array in state.items():
            for prefix, columns in ((_PARAMETER, self._parameters), (_STATISTIC, self._statistics)):
                if name.startswith(prefix):
                    columns[name.removeprefix(prefix)] = np.array(array)
        for name, array in (self._columns() | {"outcomes": self._outcomes}).items():
            if name in state:
                array[...] = state[name]

    def _put(
        self,
        columns: dict[str, NDArray[np.floating]],
        name: str,
        values: NDArray[np.floating],
        members: NDArray[np.int64],
    ) -> None:
        if name not in columns:
            columns[name] = np.full((len(self._keys), *values.shape[1:]), np.nan, values.dtype)
        columns[name][members] = values

    def logs(self, part: FleetPart, columns: LogColumns) -> list[MemberLog]:
        """Epochs of members whose logs were asked for."""
        return [
            MemberLog(key=self._keys.key(part.first + member), log=log) for member, log in epoch_logs(columns)
        ]

    def progress(self, elapsed: float, estimated: float) -> FleetProgress:
        """Where the training is.

        Args:
            elapsed: Seconds since it began.
            estimated: Seconds that it was thought to take; used until the first members have ended.
        """
        total = len(self._outcomes)
        done = int(np.count_nonzero(self._outcomes != _PENDING))
        trained = np.flatnonzero(self._outcomes == Outcome.FINISHED)
        losses = self._losses[trained]
        return FleetProgress(
            members_done=done,
            members_failed=int(np.count_nonzero(self._failed())),
            members_total=total,
            loss_quantiles=_quantiles(losses),
            validation_quantiles=None
            if self._held_out is None
            else _quantiles(self._held_out.losses[trained]),
            worst=self._worst(trained, losses),
            eta_seconds=elapsed * (total - done) / done if done else max(estimated - elapsed, 0.0),
            elapsed_seconds=elapsed,
        )

    def outcome(self, seconds: float) -> RunTrained | RunFailed | RunStopped:
        """The end of the fleet; none of its parts is in training any more."""
        trained = self._outcomes == Outcome.FINISHED
        reasons = self._reasons()
        if not self._is_final().all():
            reached = self._trained(trained, reasons, seconds) if trained.any() else None
            return RunStopped(run_id=self._run_id, epochs=self._fewest_epochs(), reached=reached)
        if not trained.any():
            return RunFailed(run_id=self._run_id, failure=_all_failed(reasons))
        return self._trained(trained, reasons, seconds)

    def _trained(self, trained: NDArray[np.bool_], reasons: Mapping[int, str], seconds: float) -> RunTrained:
        return RunTrained(
            run_id=self._run_id,
            parameters=self._parameters,
            epochs=int(self._epochs[trained].max()),
            final_loss=float(np.median(self._losses[trained])),
            training_seconds=seconds,
            members=Members(
                keys=self._keys,
                states=np.where(trained, MemberState.SUCCEEDED, MemberState.FAILED).astype(np.uint8),
                rows=self._rows,
                epochs=self._epochs,
                final_losses=self._losses,
                reasons=reasons,
                statistics=self._statistics,
                held_out=self._held_out,
            ),
        )

    def _failed(self) -> NDArray[np.bool_]:
        return np.isin(self._outcomes, _FAILED)

    def _fewest_epochs(self) -> int:
        """Epochs that every member has been trained for."""
        epochs = self._epochs[~self._failed()]
        return int(epochs.min()) if len(epochs) else 0

    def _reasons(self) -> Mapping[int, str]:
        """Failed members → why, ascending."""
        failed = {
            member: reason
            for outcome, reason in _REASONS.items()
            for member in np.flatnonzero(self._outcomes == outcome).tolist()
        }
        failed |= dict.fromkeys(np.flatnonzero(~self._is_final()).tolist(), _UNFINISHED)
        return dict(sorted((failed | dict(self._unfit)).items()))

    def _worst(
        self, trained: NDArray[np.int64], losses: NDArray[np.float64]
    ) -> tuple[tuple[Key, float], ...]:
        """The trained members with the largest losses, [T] and theirs [T]."""
        largest = np.arange(len(trained))
        if len(trained) > _WORST:
            largest = np.argpartition(losses, -_WORST)[-_WORST:]
        largest = largest[np.argsort(-losses[largest], kind="stable")]
        members = trained[largest].tolist()
        return tuple((self._keys.key(member), float(self._losses[member])) for member in members)


def _nothing_held(members: int, validation: Validation) -> HeldOut:
    """What members reach on held-out rows before anything is known of them."""
    metrics = validation.metrics
    return HeldOut(
        metrics=metrics,
        rows=np.zeros(members, np.int64),
        losses=np.full(members, np.nan),
        values=np.full((members, len(metrics)), np.nan),
        best_epochs=np.full(members, -1, np.int64),
    )


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
