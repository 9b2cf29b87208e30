"""The values of a table too large for memory: read once, piece by piece, and kept nowhere.

Legend: n rows of a piece.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns, PartedColumns
from epochd_server.data.drawing import draw, drawn_rows
from epochd_server.data.drawing_by_column import ColumnDraw
from epochd_server.data.large_checks import LargeCheck
from epochd_server.data.preprocessing.features import check_transformed
from epochd_server.data.preprocessing.streaming import PartRows, fit_streamed
from epochd_server.data.selection import Selection
from epochd_server.data.weights import load_weights
from epochd_server.domain.commands import TrainCommand
from epochd_server.domain.errors import Violations
from epochd_server.domain.fit_choice import needs_independent
from epochd_server.domain.large_tables import HELD_OUT_BYTES, LARGE_BYTES, DrawnRows, RowSize
from epochd_server.domain.preprocessing import FittedPreprocessing
from epochd_server.domain.specs import CLASSIFICATION_LOSSES, GradientFit, ModuleModel
from epochd_server.domain.validation import Folds, HoldOut, Split
from epochd_server.planning.holding_out import HeldRows
from epochd_server.planning.read_values import Values

_WHY = f"the rows take more than {LARGE_BYTES // 2**20} MiB, and are trained from the disk"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LargeReader:
    """Reads a large table of one model.

    Attributes:
        command: What the client asks for.
        columns: The rows.
        selection: Which columns play which role.
        outputs: Number of outputs that the model was given, or None where the targets are to decide it.
        seed: The training's: it decides which rows are held out.
        size: How wide rows are.
    """

    command: TrainCommand
    columns: PartedColumns
    selection: Selection
    outputs: int | None
    seed: int
    size: RowSize

    def read(self, violations: Violations) -> Values:
        """Looks at all rows; what is wrong goes to ``violations``."""
        self._refuse(violations)
        drawn = self._draw(violations)
        check = LargeCheck(
            self.columns,
            self.selection,
            self.command.loss,
            self.command.data_precision,
            violations,
            features=self.command.preprocess is None,
        )
        sides = _Sides(self.command, self.selection)
        for first, part in self.columns.parts(self.size.piece_rows):
            check.add(part, first)
            if drawn is not None and not violations:
                sides.add(part, drawn_rows(drawn, part, self.selection.targets[0], first))
        targets = check.report(self.outputs, violations)
        if drawn is not None and not violations:
            sides.report(violations)
        return Values(
            features=None,
            targets=targets,
            weights=None,
            fleet=None,
            held=HeldRows(drawn=drawn),
            preprocess=self._preprocess(drawn, violations),
            large=True,
        )

    def _preprocess(self, drawn: DrawnRows | None, violations: Violations) -> FittedPreprocessing | None:
        """What columns go through, fitted to the rows that are trained on and tried on all."""
        asked, fit = self.command.preprocess, self.command.fit
        if asked is None or (violations and not self.selection.targets):
            return None

        weight = None if violations else self.selection.weight  # what is wrong there is told already

        def training(part: Columns, first: int) -> PartRows:
            weights = load_weights(part, weight, self.command.data_precision)
            chosen = None if weights is None else weights > 0
            if drawn is not None:
                trained = ~drawn_rows(drawn, part, self.selection.targets[0], first)
                chosen = trained if chosen is None else chosen & trained
            return PartRows(chosen, weights)

        fitted = fit_streamed(
            asked,
            self.columns,
            self.size.piece_rows,
            self.selection.features,
            training,
            violations,
            independent=needs_independent(fit),
        )
        if fitted is not None:
            self._try(fitted, violations)
        return fitted

    def _try(self, fitted: FittedPreprocessing, violations: Violations) -> None:
        """Reports features that no training can use, in the first piece that has some."""
        for first, part in self.columns.parts(self.size.piece_rows):
            found = Violations()
            check_transformed(fitted, part, self.command.data_precision, found)
            if found:
                where = f" (rows are counted from row {first:,} on)" if first else ""
                for violation in found.found:
                    violations.add(violation.field, f"{violation.description}{where}")
                return

    def _refuse(self, violations: Violations) -> None:
        """Reports what cannot be done piece by piece."""
        command = self.command
        is_full = isinstance(command.fit, GradientFit) and command.fit.batch_size is None
        if isinstance(command.model, ModuleModel) and is_full:
            violations.add("gradient.batch_size", f"must be set for a module: {_WHY}")
        rows = None if command.validation is None else command.validation.rows
        if isinstance(rows, Folds):
            remedy = "hold out a fraction, or give a validation dataset"
            violations.add("sweep.folds", f"is not for tables this large: {_WHY}; {remedy}")

    def _draw(self, violations: Violations) -> DrawnRows | None:
        """How rows are held out, if they are and nothing is wrong yet."""
        hold_out = None if self.command.validation is None else self.command.validation.rows
        if violations or not isinstance(hold_out, HoldOut):
            return None
        rows = self.columns.rows
        drawn = self._drawn(hold_out, violations)
        if drawn is None:
            return None
        taken = drawn.count * self.size.nbytes
        if taken > HELD_OUT_BYTES:
            most = HELD_OUT_BYTES / self.size.nbytes / rows
            held = f"holds out {drawn.count:,} rows of {taken // 2**20:,} MiB"
            limit = f"of large tables at most {HELD_OUT_BYTES // 2**20} MiB are measured"
            violations.add("validation.fraction", f"{held}; {limit}: set at most {most:.2g}")
        return drawn

    def _drawn(self, hold_out: HoldOut, violations: Violations) -> DrawnRows | None:
        if hold_out.split not in (Split.TIME, Split.GROUP):
            return draw(hold_out, self.seed, self.columns.rows, self.size)
        if self.selection.split is None:
            return None
        by_column = ColumnDraw(
            columns=self.columns,
            index=self.selection.split,
            hold_out=hold_out,
            seed=self.seed,
            size=self.size,
        )
        return by_column.draw(violations)


@dataclass(slots=True)
class _Sides:
    """Whether both sides of a split have rows that count, and those that are trained on two classes."""

    command: TrainCommand
    selection: Selection
    trained: bool = False
    held: bool = False
    labels: set[object] = field(default_factory=set)

    def add(self, part: Columns, held: NDArray[np.bool_]) -> None:
        """Takes a piece, bool [n] of which rows are held out."""
        weights = load_weights(part, self.selection.weight, self.command.data_precision)
        counted = np.ones(part.rows, np.bool_) if weights is None else weights > 0
        self.trained = self.trained or bool((counted & ~held).any())
        self.held = self.held or bool((counted & held).any())
        if self._has_labels and len(self.labels) < 2:
            self.labels.update(part.values(self.selection.targets[0])[counted & ~held].tolist())

    def report(self, violations: Violations) -> None:
        """Reports a side that has nothing to train on, or to measure."""
        for side, name in ((self.trained, "is trained on"), (self.held, "is held out")):
            if not side:
                violations.add("validation.fraction", f"no row that {name} has a weight above 0")
                return
        if self._has_labels and len(self.labels) < 2:
            problem = "the rows that are not held out have one class only"
            violations.add("validation.fraction", problem)

    @property
    def _has_labels(self) -> bool:
        return self.command.loss is not None and self.command.loss.kind in CLASSIFICATION_LOSSES
