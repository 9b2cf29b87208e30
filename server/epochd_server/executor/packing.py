"""The server's end of the wire: from a cohort's runs to columns, and from a worker's columns to runs' messages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.checkpoints import Checkpoint
from epochd_server.domain.epoch_columns import EpochColumns
from epochd_server.domain.fit_failures import FIT_FAILURES
from epochd_server.domain.runs import EpochLog, Failure, Parameters
from epochd_server.domain.specs import GradientFit, Penalty, TrainingSpec
from epochd_server.domain.validation import Metric
from epochd_server.domain.work import (
    CohortWork,
    DatasetFile,
    RunBegan,
    RunCheckpointed,
    RunFailed,
    RunLogged,
    RunStopped,
    RunTrained,
    RunWork,
    WorkMessage,
)
from epochd_server.executor.wire import (
    EXACT_FAILURES,
    CohortBegan,
    EndColumns,
    LogColumns,
    MembersFailed,
    Outcome,
    ProgressColumns,
    Report,
    Rows,
    Stacked,
    TrainCohort,
)

_CROWD = 32

OPTIMIZER_COLUMNS = ("lr", "weight_decay", "momentum", "dampening", "beta1", "beta2", "eps", "alpha")
PENALTY_COLUMNS = ("l1", "l2")


def fit_values(fit: GradientFit) -> dict[str, float]:
    """The numbers of a fit that differ from member to member, by the names of their columns."""
    penalty = fit.penalty or Penalty()
    return {name: getattr(fit.optimizer, name) for name in OPTIMIZER_COLUMNS} | {
        name: getattr(penalty, name) for name in PENALTY_COLUMNS
    }


def pack(work: CohortWork) -> TrainCohort:
    """The message that has a worker train these runs."""
    return TrainCohort(
        run_ids=tuple(run.run_id for run in work.runs),
        lead=work.runs[0].spec,
        columns=_columns([run.spec for run in work.runs]),
        data=tuple(_rows(run) for run in work.runs),
        held_out=tuple(_held_out(run) for run in work.runs),
        initial=_initial([run.initial for run in work.runs]),
        resume={
            position: run.checkpoint.members[0]
            for position, run in enumerate(work.runs)
            if run.checkpoint is not None and run.checkpoint.members
        },
        checkpoint_seconds=work.checkpoint_seconds,
    )


def _initial(given: Sequence[Parameters | None]) -> Stacked | None:
    """The runs' start values in stacks, NaN for those without; None where none has any."""
    some = next((one for one in given if one is not None), None)
    if some is None:
        return None
    afresh = {name: np.full_like(array, np.nan) for name, array in some.items()}
    runs = [afresh if one is None else one for one in given]
    return {name: np.stack([run[name] for run in runs]) for name in some}


def _columns(specs: Sequence[TrainingSpec]) -> Mapping[str, NDArray[np.generic]]:
    columns: dict[str, NDArray[np.generic]] = {
        "epochs": np.array([spec.fit.epochs for spec in specs], np.int64),
        "seeds": np.array([spec.seed for spec in specs], np.int64),
        "log_every": np.array([spec.logging.every for spec in specs], np.int64),
        "log_parameters": np.array([spec.logging.parameters for spec in specs], np.bool_),
    }
    values = [fit_values(spec.fit) for spec in specs if isinstance(spec.fit, GradientFit)]
    for name in values[0] if values else ():
        columns[name] = np.array([one[name] for one in values], np.float64)
    return columns


def _rows(run: RunWork) -> Rows | DatasetFile:
    if isinstance(run.data, DatasetFile):
        return run.data
    return run.data.features, run.data.targets, run.data.weights


def _held_out(run: RunWork) -> Rows | None:
    """Held-out rows; a dataset's are read with the others."""
    if isinstance(run.data, DatasetFile) or run.data.validation is None:
        return None
    held_out = run.data.validation
    return held_out.features, held_out.targets, held_out.weights


class Unpacker:
    """Turns the reports on one cohort into messages of its runs.

    In a crowd, a run begins when there is first something to tell of it: most are then begun and ended by one
    delivery, and thus by one write.

    Args:
        runs: The cohort's runs, in its order.
    """

    def __init__(self, runs: Sequence[RunWork]) -> None:
        self._run_ids = [run.run_id for run in runs]
        self._trained_before = [seconds_before(run) for run in runs]
        self._may_keep = isinstance(runs[0].spec.fit, GradientFit)
        self._device = ""
        self._waiting: set[int] = set()

    def messages(self, reports: Sequence[Report]) -> list[WorkMessage]:
        """Messages in order; those for the server's log and the cohort's end are passed over."""
        messages: list[WorkMessage] = []
        for report in reports:
            if isinstance(report, LogColumns):
                messages += self._begun(report.members.tolist()) + self._logged(report)
            elif isinstance(report, ProgressColumns):
                messages += self._begun(report.members.tolist()) + self._checkpointed(report)
            elif isinstance(report, EndColumns):
                messages += self._begun(report.members.tolist()) + self._ended(report)
            elif isinstance(report, CohortBegan):
                messages += self._begin(report.device)
            elif isinstance(report, MembersFailed):
                messages += self._begun(report.members) + self._failed(report)
        return messages

    def _begin(self, device: str) -> list[WorkMessage]:
        self._device, self._waiting = device, set(range(len(self._run_ids)))
        return [] if len(self._run_ids) > _CROWD else self._begun(range(len(self._run_ids)))

    def _begun(self, members: Iterable[int]) -> list[WorkMessage]:
        """That these members have begun, where it was not told yet."""
        if not self._waiting:
            return []
        new = [member for member in dict.fromkeys(members) if member in self._waiting]
        self._waiting.difference_update(new)
        return [RunBegan(run_id=self._run_ids[member], device=self._device) for member in new]

    def _logged(self, columns: LogColumns) -> list[WorkMessage]:
        by_member = _columns_by_member(columns) if _is_even(columns) else _logs_by_member(columns)
        return [RunLogged(run_id=self._run_ids[member], logs=logs) for member, logs in by_member]

    def _checkpointed(self, columns: ProgressColumns) -> list[WorkMessage]:
        return [
            RunCheckpointed(
                run_id=self._run_ids[member],
                checkpoint=Checkpoint(
                    members={0: place},
                    training_seconds=self._trained_before[member] + columns.seconds,
                ),
            )
            for member, place in columns.of_members()
        ]

    def _ended(self, columns: EndColumns) -> list[WorkMessage]:
        return [
            self._end(columns, position, member, outcome)
            for position, (member, outcome) in enumerate(
                zip(columns.members.tolist(), columns.outcomes.tolist(), strict=True)
            )
        ]

    def _end(self, columns: EndColumns, position: int, member: int, outcome: int) -> WorkMessage:
        run_id = self._run_ids[member]
        if outcome == Outcome.STOPPED:
            epochs = int(columns.epochs[position])
            keeps = self._may_keep and epochs > 0
            reached = _measured(self._trained(columns, position, member)) if keeps else None
            return RunStopped(run_id=run_id, epochs=epochs, reached=reached)
        if outcome == Outcome.DIVERGED:
            return RunFailed(run_id=run_id, failure=_diverged(columns, position))
        if outcome in EXACT_FAILURES:
            failure = _inexact(EXACT_FAILURES[outcome], _one(columns.statistics, position))
            return RunFailed(run_id=run_id, failure=failure)
        return self._trained(columns, position, member)

    def _trained(self, columns: EndColumns, position: int, member: int) -> RunTrained:
        return RunTrained(
            run_id=self._run_ids[member],
            parameters=_one(columns.parameters, position),
            epochs=int(columns.epochs[position]),
            final_loss=float(columns.final_losses[position]),
            training_seconds=self._trained_before[member] + columns.seconds,
            statistics=_one(columns.statistics, position),
            evaluation=None if columns.held_out is None else columns.held_out.reports[position],
        )

    def _failed(self, report: MembersFailed) -> list[WorkMessage]:
        failure = Failure(reason=report.reason, message=report.message, hint=report.hint)
        return [RunFailed(run_id=self._run_ids[member], failure=failure) for member in report.members]


def _measured(reached: RunTrained) -> RunTrained:
    """What a stopped run has reached; with an evaluation only if these very parameters were evaluated."""
    evaluation = reached.evaluation
    is_missing = evaluation is not None and math.isnan(evaluation.loss)
    return replace(reached, evaluation=None) if is_missing else reached


def seconds_before(run: RunWork) -> float:
    """How long a run was in training before it was interrupted."""
    return 0.0 if run.checkpoint is None else run.checkpoint.training_seconds


def _is_even(columns: LogColumns) -> bool:
    """Whether all points or none of them carry parameters, and none tells of held-out rows."""
    return columns.held_out is None and (
        columns.with_parameters is None or len(columns.with_parameters) in (0, len(columns.members))
    )


def _columns_by_member(columns: LogColumns) -> Iterator[tuple[int, EpochColumns]]:
    """Members and their points, in the order of epochs; for reports that are even."""
    order = np.argsort(columns.members, kind="stable")
    members = columns.members[order]
    epochs, losses = columns.epochs[order].tolist(), columns.losses[order].tolist()
    lrs, rates = columns.lrs[order].tolist(), columns.rows_per_second[order].tolist()
    parameters = {name: array[order] for name, array in columns.parameters.items()}
    bounds = [0, *(np.flatnonzero(np.diff(members)) + 1).tolist(), len(members)]
    for start, stop in itertools.pairwise(bounds):
        yield (
            int(members[start]),
            EpochColumns(
                epochs=epochs[start:stop],
                losses=losses[start:stop],
                lrs=lrs[start:stop],
                rows_per_second=rates[start:stop],
                parameters={name: array[start:stop] for name, array in parameters.items()},
            ),
        )


def _logs_by_member(columns: LogColumns) -> Iterable[tuple[int, Sequence[EpochLog]]]:
    by_member: dict[int, list[EpochLog]] = {}
    for member, log in epoch_logs(columns):
        by_member.setdefault(member, []).append(log)
    return by_member.items()


def epoch_logs(columns: LogColumns) -> Iterator[tuple[int, EpochLog]]:
    """Members and their log points, in the order of the report."""
    parameters = _parameters_by_position(columns)
    held_out = _held_out_by_position(columns)
    points = zip(
        columns.members.tolist(),
        columns.epochs.tolist(),
        columns.losses.tolist(),
        columns.lrs.tolist(),
        columns.rows_per_second.tolist(),
        held_out,
        strict=True,
    )
    for position, (member, epoch, loss, lr, rate, (validation_loss, metrics)) in enumerate(points):
        log = EpochLog(
            epoch=epoch,
            loss=loss,
            lr=lr,
            rows_per_second=rate,
            parameters=parameters.get(position),
            validation_loss=validation_loss,
            metrics=metrics,
        )
        yield member, log


def _held_out_by_position(columns: LogColumns) -> list[tuple[float | None, tuple[tuple[Metric, float], ...]]]:
    """Loss and metrics of each point."""
    held_out = columns.held_out
    if held_out is None:
        return [(None, ())] * len(columns.members)
    return [
        (loss, tuple(zip(held_out.metrics, values, strict=True)))
        for loss, values in zip(held_out.losses.tolist(), held_out.values.tolist(), strict=True)
    ]


def _parameters_by_position(columns: LogColumns) -> dict[int, Parameters]:
    if columns.with_parameters is None:
        return {}
    return {
        position: _one(columns.parameters, index)
        for index, position in enumerate(columns.with_parameters.tolist())
    }


def _one(stacked: Stacked, index: int) -> Parameters:
    return {name: array[index] for name, array in stacked.items()}


def _inexact(reason: str, statistics: Parameters) -> Failure:
    """Why an exact fit has no result."""
    message, hint = FIT_FAILURES[reason]
    if reason == "RANK_DEFICIENT" and "conditions" in statistics:
        columns, condition = statistics["standard_errors"].shape[-1], float(statistics["conditions"])
        rank = int(statistics["ranks"])
        message += (
            f" The rank is {rank} of {columns}, the condition number of the scaled columns {condition:.2g}."
        )
    return Failure(reason=reason, message=message, hint=hint)


def _diverged(columns: EndColumns, position: int) -> Failure:
    epoch = int(columns.epochs[position])
    hint = "Try a smaller learning rate, and bring the features to a common scale, such as mean 0 and deviation 1."
    stable = np.nan if columns.stable_lrs is None else columns.stable_lrs[position]
    if np.isfinite(stable):
        hint = (
            f"On these rows training converges with a learning rate below {stable:.4g}. Bring the features to a "
            "common scale, such as mean 0 and deviation 1, for a larger one."
        )
    return Failure(
        reason="LOSS_NOT_FINITE",
        message=f"The loss or a parameter became NaN or infinite in epoch {epoch}.",
        hint=hint,
        epoch=epoch,
    )
