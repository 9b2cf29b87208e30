"""Each kind of step: what it learns from a block, and what it makes of one.

Legend: n rows, K members of a fleet, S numbers kept a member.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.preprocessing.blocks import Block, Numbers, StepProblem, as_numbers, missing_rows
from epochd_server.data.preprocessing.buckets import apply_buckets, fit_buckets
from epochd_server.data.preprocessing.categories import apply_one_hot, apply_ordinal, fit_categories
from epochd_server.data.preprocessing.grouped import Learner
from epochd_server.data.preprocessing.hashing import apply_hashing
from epochd_server.data.preprocessing.imputing import apply_impute, fit_impute
from epochd_server.data.preprocessing.scaling import apply_log1p, apply_scaling, check_log1p, fit_scaling
from epochd_server.data.preprocessing.times import apply_time_parts, as_times
from epochd_server.domain.preprocessing import (
    Affine,
    Bucketize,
    Categories,
    Edges,
    Filled,
    FittedStep,
    Hashing,
    Impute,
    Log1p,
    MinMax,
    OneHot,
    Ordinal,
    Passthrough,
    Standardize,
    State,
    Step,
    TimeParts,
)


@dataclass(slots=True, eq=False)
class Walk:
    """A column's way through its steps.

    Attributes:
        name: The column.
        block: What it is by now.
        members: int64 [n]: the member of each row; None where there is one model.
        statistics: float64 [K, S]: the members' own numbers, if any.
        indicators: Features that were added on the way, bool [n] by name.
    """

    name: str
    block: Block
    members: NDArray[np.int64] | None = None
    statistics: NDArray[np.float64] | None = None
    indicators: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    def go(self, fitted: FittedStep) -> None:
        """Applies a step.

        Raises:
            StepProblem: It can do nothing with a value.
        """
        step = fitted.step
        if isinstance(step, Impute) and step.indicator:
            self.indicators.setdefault(f"{self.name}_missing", missing_rows(self.block))
        self.block = self._applied(step, fitted.state)

    def arrive(self) -> Numbers:
        """The features at the end.

        Raises:
            StepProblem: They are no numbers.
        """
        if not isinstance(self.block, Numbers):
            raise StepProblem(_no_numbers(self.block))
        if not self.indicators:
            return self.block
        added = np.stack(list(self.indicators.values()), axis=1).astype(np.float64)
        return Numbers(np.hstack([self.block.values, added]), (*self.block.names, *self.indicators))

    def _applied(self, step: Step, state: State | None) -> Block:
        match step, state:
            case (Standardize() | MinMax(), Affine()):
                return apply_scaling(state, self.block, self.members, self.statistics)
            case Impute(), Filled():
                return apply_impute(state, self.block, self.members, self.statistics)
            case OneHot(), Categories():
                return apply_one_hot(step, state, self.block)
            case Ordinal(), Categories():
                return apply_ordinal(step, state, self.block)
            case Bucketize(), Edges():
                return apply_buckets(step, state, self.block)
            case Log1p(), _:
                return apply_log1p(step, self.block)
            case Hashing(), _:
                return apply_hashing(step, self.block)
            case TimeParts(), _:
                return apply_time_parts(step, self.block)
            case _:
                return as_numbers(self.block, "passthrough")


def learn(step: Step, block: Block, learner: Learner) -> FittedStep:
    """A step with what it learns from the training rows.

    Raises:
        StepProblem: It can do nothing with the column.
    """
    match step:
        case Standardize() | MinMax():
            return FittedStep(step, fit_scaling(step, block, learner))
        case Impute():
            return FittedStep(step, fit_impute(step, block, learner))
        case OneHot() | Ordinal():
            return FittedStep(step, fit_categories(step, block))
        case Bucketize():
            return FittedStep(step, fit_buckets(step, block))
        case Log1p():
            check_log1p(block)
        case TimeParts():
            as_times(block)
        case Passthrough():
            as_numbers(block, "passthrough")
    return FittedStep(step)


def _no_numbers(block: Block) -> str:
    if isinstance(block, Numbers):
        raise AssertionError("unreachable: numbers are numbers")
    kind = "text" if hasattr(block, "codes") else "timestamps"
    remedy = "one_hot, ordinal or hashing" if kind == "text" else "time_parts"
    return f"is still {kind} after its steps; use {remedy}"
