"""From a command to a draft: every stage runs as far as the ones before it allow, and reports all it finds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.assembly import Fleet, assemble, locate, with_validation
from epochd_server.data.columns import Columns, PartedColumns
from epochd_server.data.selection import Selection
from epochd_server.data.targets import Targets
from epochd_server.domain.commands import TrainCommand
from epochd_server.domain.data import (
    Classes,
    ColumnRoles,
    TensorPair,
    TrainingArrays,
)
from epochd_server.domain.errors import EpochdError, InvalidInput, Reason, Violations
from epochd_server.domain.fit_choice import FIELDS, affordable, unaffordable
from epochd_server.domain.fleets import Key, Keys
from epochd_server.domain.large_tables import LARGE_BYTES, RowSize
from epochd_server.domain.models import ModelVersion
from epochd_server.domain.preprocessing import FittedPreprocessing
from epochd_server.domain.specs import Fit, GradientFit, LossKind, Model, ModuleModel
from epochd_server.domain.work import DatasetFile
from epochd_server.planning.class_weights import check_class_weights
from epochd_server.planning.cost import ITEM_BYTES
from epochd_server.planning.limits import PlanLimits
from epochd_server.planning.members import resolve_log_members
from epochd_server.planning.ports import Modules
from epochd_server.planning.preparing import named_features
from epochd_server.planning.read_values import Values
from epochd_server.planning.sizes import Needed, count_parameters, given_outputs, resolve_sizes
from epochd_server.planning.sources import check_no_roles, open_source, select_columns
from epochd_server.planning.values import Reader
from epochd_server.planning.warm_start import check_initial


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draft:
    """What a command comes to.

    Attributes:
        model: The model with every size filled in.
        fit: How it is fitted.
        parameters: Number of its parameters.
        rows: Number of rows.
        roles: The columns of each role, all named.
        keys: The members of a fleet; None for one model.
        sizes: Rows that each member is trained on [K], or [1] for one model.
        log_members: Members whose epochs are logged.
        classes: None for regression.
        data: The rows, or where the worker finds them.
        data_bytes: Bytes of features, targets and weights in the training's precision.
        preprocess: What columns go through to become features; None where they are that already.
    """

    model: Model
    fit: Fit
    parameters: int
    rows: int
    roles: ColumnRoles
    keys: Keys | None
    sizes: NDArray[np.int64]
    log_members: tuple[Key, ...]
    classes: Classes | None
    data: TrainingArrays | DatasetFile
    data_bytes: int
    preprocess: FittedPreprocessing | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class _Found:
    """What the stages have found so far; None where a fault kept them from it."""

    fit: Fit
    is_preprocessed: bool = False
    columns: Columns | None = None
    selection: Selection | None = None
    values: Values | None = None
    model: Model | None = None
    outputs: int | None = None
    parameters: int | None = None
    log_members: tuple[Key, ...] = ()
    refusals: list[tuple[str, EpochdError]] = field(default_factory=list)

    @property
    def feature_count(self) -> int | None:
        """Number of features, where the roles had no fault, and preprocessing, once it is fitted, neither."""
        if self.is_preprocessed:
            fitted = None if self.values is None else self.values.preprocess
            return None if fitted is None else len(fitted.outputs)
        selection = self.selection
        return len(selection.features) if selection is not None and selection.complete else None

    @property
    def targets(self) -> Targets | None:
        """The targets, where they had no fault."""
        return None if self.values is None else self.values.targets

    @property
    def fleet(self) -> Fleet | None:
        """The members of a fleet, where nothing is wrong with its keys."""
        return None if self.values is None else self.values.fleet


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drafting:
    """Works out commands.

    Attributes:
        command: What the client asks for, as far as it could be understood.
        violations: What is known to be wrong with it already; takes everything else that is.
        dataset: The file of the stored dataset that it names, if there is one.
        validation_dataset: That of the one with held-out rows.
        seed: The training's.
        initial: The version whose parameters it begins with, if it is to be one.
    """

    command: TrainCommand
    violations: Violations
    dataset: Path | None
    validation_dataset: Path | None
    modules: Modules
    limits: PlanLimits
    seed: int
    initial: ModelVersion | None = None

    def draft(self, missing: Mapping[str, EpochdError | None] = MappingProxyType({})) -> Draft:
        """The draft.

        Args:
            missing: Why the datasets that the command names in some fields cannot be read, if so.

        Raises:
            InvalidInput: Everything that is wrong; what would be refused otherwise too is among it.
            EpochdError: MODULE_NOT_FOUND, DATASET_NOT_FOUND, MODEL_TOO_LARGE or DATA_TOO_LARGE, where nothing
                else is wrong.
        """
        found = _Found(fit=self.command.fit, is_preprocessed=self.command.preprocess is not None)
        found.refusals += [(path, error) for path, error in missing.items() if error is not None]
        self._open(found)
        self._look_at_model(found)
        self._read_values(found)
        self._fit_model(found)
        self._check_against_data(found)
        self._raise_if_wrong(found)
        return self._finish(found)

    def _open(self, found: _Found) -> None:
        command = self.command
        if command.source is not None:
            found.columns = open_source(command.source, self.dataset, self.violations)
        if found.columns is not None:
            found.selection = select_columns(found.columns, command.roles, self.violations)
            if not found.columns.rows:
                self.violations.add(found.columns.field, "has no rows")
        elif isinstance(command.source, TensorPair):
            check_no_roles(command.roles, self.violations)

    def _look_at_model(self, found: _Found) -> None:
        """Finds the number of outputs that the model has by itself; of a module its parameters too."""
        model = self.command.model
        if isinstance(model, ModuleModel):
            self._inspect_module(model, found)
        elif model is not None:
            found.outputs = given_outputs(model)

    def _inspect_module(self, model: ModuleModel, found: _Found) -> None:
        try:
            facts = self.modules.inspect(model, found.feature_count)
        except InvalidInput as error:
            self.violations.found.extend(error.violations)
        except EpochdError as error:
            found.refusals.append(("model.module.name", error))
        else:
            found.model, found.outputs, found.parameters = model, facts.outputs, facts.parameters

    def _read_values(self, found: _Found) -> None:
        """Reads the values of all roles, where there are any and they are not too many."""
        columns, selection = found.columns, found.selection
        if columns is None or selection is None or not columns.rows:
            return
        size = self._row_size(selection)
        if columns.rows * size.nbytes > self._most_bytes(columns):
            limit = f"{self.limits.max_data_bytes:,} bytes"
            self._refuse(found, columns.field, Reason.DATA_TOO_LARGE, f"The data takes more than {limit}.")
            return
        reader = Reader(
            command=self.command,
            columns=columns,
            selection=selection,
            # A single output is a fault of the model, not of the labels.
            outputs=None if found.outputs == 1 else found.outputs,
            max_members=self.limits.max_members,
            seed=self.seed,
            validation_dataset=self.validation_dataset,
            max_data_bytes=self.limits.max_data_bytes,
            size=size,
        )
        found.values = reader.read(self.violations)

    def _fit_model(self, found: _Found) -> None:
        """Fills in the model's sizes from the data, and counts its parameters."""
        model = self.command.model
        if model is None:
            return
        if isinstance(model, ModuleModel) and found.is_preprocessed and found.model is not None:
            self._inspect_module(model, found)
        needed = self._needed(found)
        with self.violations.within("model"):
            if not isinstance(model, ModuleModel):
                resolved = resolve_sizes(model, needed, self.violations)
                found.model = resolved
                found.parameters = None if resolved is None else count_parameters(resolved)
            elif needed.misfit(found.outputs):
                self.violations.add("module", f"has {found.outputs} outputs, but {needed.why}")
        self._check_parameters(found)

    def _needed(self, found: _Found) -> Needed:
        loss, selection, features = self.command.loss, found.selection, found.feature_count
        if loss is None:
            return Needed(features=features)
        if loss.kind is LossKind.BCE_WITH_LOGITS:
            return Needed(features=features, outputs=1, why="bce_with_logits needs one output")
        if loss.kind is LossKind.CROSS_ENTROPY:
            why = "cross_entropy needs an output for each class, two at least"
            classes = found.targets.classes if found.targets is not None else None
            return Needed(
                features=features, outputs=None if classes is None else len(classes), least=2, why=why
            )
        if selection is None or not selection.complete:
            return Needed(features=features)
        count = len(selection.targets)
        columns = "there is 1 target column" if count == 1 else f"there are {count} target columns"
        if loss.kind is LossKind.GAUSSIAN_NLL:
            why = f"{columns}, and gaussian_nll needs a mean and a variance for each"
            return Needed(features=features, outputs=2 * count, why=why)
        return Needed(features=features, outputs=count, why=columns)

    def _check_parameters(self, found: _Found) -> None:
        count, limits = found.parameters, self.limits
        if count is None:
            return
        keys = self._keys(found)
        members = 1 if keys is None else len(keys)
        if count > limits.max_parameters:
            self._refuse_parameters(found, "The model has", count, limits.max_parameters)
        elif members * count > limits.max_fleet_parameters:
            whose = f"The fleet's {members:,} members have"
            self._refuse_parameters(found, whose, members * count, limits.max_fleet_parameters)
        if self.command.log_parameters and count > limits.max_logged_parameters:
            self.violations.add(
                "logging.parameters",
                f"is for models of at most {limits.max_logged_parameters:,} parameters, this one has {count:,}",
            )

    def _refuse_parameters(self, found: _Found, whose: str, count: int, limit: int) -> None:
        message = f"{whose} {count:,} parameters; this server allows {limit:,} at most."
        self._refuse(found, "model", Reason.MODEL_TOO_LARGE, message)

    def _check_against_data(self, found: _Found) -> None:
        self._check_batch_size(found)
        self._check_exact_fit(found)
        self._check_initial(found)
        if self.command.loss is not None and found.targets is not None and found.targets.classes is not None:
            check_class_weights(self.command.loss, found.targets.classes, self.violations)
        keys, asked = self._keys(found), self.command.log_members
        if keys is not None:
            found.log_members = resolve_log_members(asked, keys, self.violations)
        elif asked and not self.command.roles.groups:
            self.violations.add("logging.members", "is for fleets: there are no key columns and no sweep")

    def _check_initial(self, found: _Found) -> None:
        if self.initial is None:
            return
        classes = None if found.targets is None else found.targets.classes
        check_initial(
            self.initial,
            self.command,
            self.violations,
            model=found.model,
            classes=classes,
            keys=self._keys(found),
        )

    def _check_exact_fit(self, found: _Found) -> None:
        """Holds what the fit takes against what it may; where ``auto`` chose it, another is taken instead."""
        fit, model, loss = self.command.fit, found.model, self.command.loss
        if model is None or loss is None or isinstance(fit, GradientFit) or found.columns is None:
            return
        rows = found.columns.rows if found.fleet is None else int(found.fleet.assignment.sizes().max())
        found.fit = affordable(fit, model, loss, rows, self.limits.exact)
        problem = unaffordable(found.fit, model, rows, self.limits.exact)
        if problem:
            self.violations.add("auto" if fit.automatic else FIELDS[type(fit)], problem)

    def _check_batch_size(self, found: _Found) -> None:
        """A batch may be larger than some members, which are then full batches, but not than all."""
        batch_size = self.command.fit.batch_size
        if batch_size is None or found.columns is None:
            return
        rows, those = found.columns.rows, "there are {:,} rows"
        if found.fleet is not None:
            rows, those = int(found.fleet.assignment.sizes().max()), "the largest member has {:,} rows"
        if 0 < rows < batch_size:
            self.violations.add("gradient.batch_size", f"is {batch_size:,}, but {those.format(rows)}")

    def _keys(self, found: _Found) -> Keys | None:
        """The keys of a fleet's members, where nothing is wrong with them."""
        if found.fleet is not None:
            return found.fleet.assignment.keys
        sweep = self.command.sweep
        return None if sweep is None or self.command.roles.groups else sweep.keys()

    def _raise_if_wrong(self, found: _Found) -> None:
        if self.violations:
            for path, refusal in found.refusals:
                self.violations.add(path, refusal.message)
            self.violations.raise_if_any()
        if found.refusals:
            raise found.refusals[0][1]

    def _finish(self, found: _Found) -> Draft:
        columns, selection, values = found.columns, found.selection, found.values
        if columns is None or selection is None or values is None or values.targets is None:
            raise EpochdError(Reason.INTERNAL)
        if found.model is None or found.parameters is None:
            raise EpochdError(Reason.INTERNAL)
        roles, keys = selection.roles(columns.names), self._keys(found)
        size = self._row_size(selection, found.feature_count)
        data = self._data(values, values.targets, roles)
        if isinstance(data, DatasetFile) and values.fleet is None:
            data = replace(data, large=values.large or size.is_large(columns.rows), drawn=values.held.drawn)
        is_large = isinstance(data, DatasetFile) and data.large
        return Draft(
            model=found.model,
            fit=found.fit,
            parameters=found.parameters,
            rows=columns.rows - values.held.count,
            roles=named_features(roles, values.preprocess),
            keys=keys,
            sizes=self._sizes(columns.rows, values, keys),
            log_members=found.log_members,
            classes=values.targets.classes,
            data=data,
            data_bytes=LARGE_BYTES if is_large else columns.rows * size.nbytes * _copies(data),
            preprocess=values.preprocess,
        )

    def _data(self, values: Values, targets: Targets, roles: ColumnRoles) -> TrainingArrays | DatasetFile:
        held, folds = values.held.held, values.held.folds
        data: TrainingArrays | DatasetFile
        if values.features is not None:
            named = named_features(roles, values.preprocess)
            data = assemble(values.features, targets, values.weights, values.fleet, named, held)
        elif self.dataset is not None:
            data = locate(
                self.dataset, roles, targets.classes, values.fleet, held, preprocess=values.preprocess
            )
        else:
            raise EpochdError(Reason.INTERNAL)
        if values.given is not None:
            return with_validation(data, values.given)
        return data if folds is None else replace(data, folds=folds)

    def _sizes(self, rows: int, values: Values, keys: Keys | None) -> NDArray[np.int64]:
        """Rows that each member is trained on [K], or [1]: its own, or in a sweep all but its fold."""
        held, sweep = values.held, self.command.sweep
        if values.fleet is not None:
            assignment = values.fleet.assignment
            chosen = slice(None) if held.held is None else ~held.held
            return np.bincount(assignment.members[chosen], minlength=len(assignment.keys))
        if held.folds is not None and sweep is not None:
            trained = [int(np.count_nonzero(rows)) for rows in held.trained_in_folds()]
            return np.tile(np.array(trained, np.int64), sweep.size // sweep.folds)
        return np.full(1 if keys is None else len(keys), rows - held.count, np.int64)

    def _row_size(self, selection: Selection, features: int | None = None) -> RowSize:
        """How wide rows are; preprocessed ones have as many ``features`` as there are."""
        count = len(selection.features) if features is None else features
        item = ITEM_BYTES[self.command.data_precision]
        weighted = selection.weight is not None
        return RowSize.of(count, len(selection.targets), item, weighted=weighted)

    def _most_bytes(self, columns: Columns) -> float:
        """What all values may take: of a single model's dataset anything, as it is trained from the disk."""
        from_disk = isinstance(columns, PartedColumns) and not self.command.roles.groups
        return math.inf if from_disk else self.limits.max_data_bytes

    def _refuse(self, found: _Found, path: str, reason: Reason, message: str) -> None:
        found.refusals.append((path, EpochdError(reason, message)))


def _copies(data: TrainingArrays | DatasetFile) -> int:
    """How often the features are there: once, or of each fold by itself."""
    return len(data.features) if isinstance(data, TrainingArrays) and data.features.ndim == 3 else 1
