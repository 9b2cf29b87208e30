"""The rows of a request as columns, and which of them play which role."""

from __future__ import annotations

from pathlib import Path

from epochd_server.data.columns import FEATURES, TARGETS, Columns, TableColumns, TensorColumns
from epochd_server.data.selection import Selection, select
from epochd_server.domain.data import ColumnRoles, DatasetReference, DataSource, Table, TensorPair
from epochd_server.domain.errors import Violations

MAX_FEATURES = 100_000


def open_source(source: DataSource, dataset: Path | None, violations: Violations) -> Columns | None:
    """The columns of a request's rows; they may have no rows.

    Args:
        source: Where the request says that they are.
        dataset: The file, where they are a stored dataset that exists.
        violations: Takes shapes that do not fit each other.

    Returns:
        None where there are none to look at.

    Raises:
        EpochdError: The stored dataset is gone or damaged.
    """
    match source:
        case Table():
            return TableColumns(source)
        case TensorPair():
            return TensorColumns(source) if _shapes_fit(source, violations) else None
        case DatasetReference():
            if dataset is None:
                return None
            # Imported here: most servers start without ever needing pyarrow.
            from epochd_server.data.loading import ArrowColumns

            return ArrowColumns(dataset)


def select_columns(columns: Columns, roles: ColumnRoles, violations: Violations) -> Selection:
    """Which columns play which role; of tensors each does, and roles given besides are a fault."""
    if not isinstance(columns, TensorColumns):
        return select(columns.names, roles, violations)
    check_no_roles(roles, violations)
    return select(columns.names, columns.roles, violations)


def check_no_roles(roles: ColumnRoles, violations: Violations) -> None:
    """Adds a violation for each role that is given although the rows are tensors."""
    given = {
        "feature_columns": roles.features,
        "target_columns": roles.targets,
        "group_columns": roles.groups,
        "weight_column": roles.weight,
    }
    for field, names in given.items():
        if names:
            violations.add(f"data.{field}", "is for tables and datasets; tensors have no named columns")


def _shapes_fit(pair: TensorPair, violations: Violations) -> bool:
    before = len(violations.found)
    for field, array, columns in ((FEATURES, pair.features, "features"), (TARGETS, pair.targets, "targets")):
        if array.ndim not in (1, 2):
            rule = f"must be [rows, {columns}] or [rows]"
            violations.add(f"{field}.shape", f"{rule}, has {array.ndim} dimensions")
        elif array.ndim == 2 and not 1 <= array.shape[1] <= MAX_FEATURES:
            rule = f"must have 1 to {MAX_FEATURES:,} {columns}"
            violations.add(f"{field}.shape[1]", f"{rule}, has {array.shape[1]:,}")
    if pair.features.ndim and pair.targets.ndim and len(pair.features) != len(pair.targets):
        rows = f"has {len(pair.targets):,} rows, but features has {len(pair.features):,}"
        violations.add(f"{TARGETS}.shape[0]", rows)
    return len(violations.found) == before
