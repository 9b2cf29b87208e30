"""Tables too large for memory: read, checked and split piece by piece as they would be whole."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import ipc

from epochd_server.data import drawing_by_column, row_files
from epochd_server.data.drawing import draw, drawn_rows
from epochd_server.data.drawing_by_column import ColumnDraw
from epochd_server.data.features import prepare_features
from epochd_server.data.large_checks import LargeCheck
from epochd_server.data.loading import ArrowColumns, load_training_arrays
from epochd_server.data.preprocessing.fitting import TrainingRows, fit_preprocessing
from epochd_server.data.row_files import RowFile
from epochd_server.data.selection import Selection, select
from epochd_server.data.splitting import Traits, held_out_rows
from epochd_server.data.targets import prepare_targets
from epochd_server.data.weights import prepare_weights
from epochd_server.domain import large_tables
from epochd_server.domain.data import ColumnRoles
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.large_tables import RowSize
from epochd_server.domain.preprocessing import Preprocessing
from epochd_server.domain.specs import (
    GradientFit,
    Init,
    LinearModel,
    Logging,
    Loss,
    LossKind,
    Optimizer,
    OptimizerKind,
    Precision,
    TrainingSpec,
)
from epochd_server.domain.validation import HoldOut, Split
from epochd_server.domain.work import DatasetFile

ROWS = 1_000
RANDOM = np.random.default_rng(2)
SIZE = RowSize.of(2, 1, 4, weighted=False)
Store = Callable[[pa.Table], Path]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    def write(table: pa.Table) -> Path:
        path = tmp_path / "table.arrow"
        with ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table.slice(0, 0))
            writer.write_table(table, max_chunksize=77)
        return path

    return write


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of more than 200 rows are large; pieces have 100."""
    monkeypatch.setattr(large_tables, "LARGE_BYTES", 200 * SIZE.nbytes)
    monkeypatch.setattr(large_tables, "_PIECE_BYTES", 100 * SIZE.nbytes)


def table(**changed: object) -> pa.Table:
    random = np.random.default_rng(0)
    columns: dict[str, object] = {
        "a": random.normal(size=ROWS),
        "b": random.integers(0, 9, ROWS),
        "y": random.normal(size=ROWS),
        "c": random.choice(["yes", "no", "maybe"], ROWS),
        "w": random.random(ROWS),
    }
    return pa.table(columns | changed)


def spec(kind: LossKind = LossKind.MSE, precision: Precision = Precision.FLOAT32) -> TrainingSpec:
    return TrainingSpec(
        model=LinearModel(in_features=2, out_features=1),
        loss=Loss(kind=kind),
        fit=GradientFit(optimizer=Optimizer(kind=OptimizerKind.SGD, lr=0.1), epochs=1),
        init=Init.ZEROS,
        precision=precision,
        seed=3,
        logging=Logging(every=1),
    )


ROLES = ColumnRoles(features=("a", "b"), targets=("y",), weight="w")
LABELS = ColumnRoles(features=("a", "b"), targets=("c",))


@pytest.mark.parametrize("kind", [LossKind.MSE, LossKind.CROSS_ENTROPY])
@pytest.mark.parametrize("rows", [None, np.arange(0, ROWS, 3, dtype=np.uint32)])
def test_large_rows_are_those_of_memory_and_mapped(store: Store, kind: LossKind, rows: object) -> None:
    classes = None if kind is LossKind.MSE else ("maybe", "no", "yes")
    roles = ROLES if classes is None else LABELS
    file = DatasetFile(path=str(store(table())), roles=roles, classes=classes, rows=rows)
    small, large = (load_training_arrays(replace(file, large=is_large), spec(kind)) for is_large in (0, 1))
    assert (large.features == small.features).all()
    assert large.features.dtype == np.float32
    assert (large.targets == small.targets).all()
    assert large.targets.dtype == small.targets.dtype
    if small.weights is not None and large.weights is not None:
        assert (large.weights == small.weights).all()
    owner = large.features
    while isinstance(owner, np.ndarray):
        owner = owner.base
    assert isinstance(getattr(owner, "obj", owner), mmap.mmap)
    assert [path.name for path in Path(file.path).parent.iterdir()] == ["table.arrow"]


def test_columns_go_through_their_steps_piece_by_piece(store: Store) -> None:
    path = store(spoiled("a", (0, None), (500, None)))
    asked, found = Preprocessing(), Violations()
    columns = ArrowColumns(path)
    fitted = fit_preprocessing(asked, columns, [0, 1, 3], TrainingRows(), found)
    assert fitted is not None
    roles = ColumnRoles(features=("a", "b", "c"), targets=("y",))
    file = DatasetFile(path=str(path), roles=roles, preprocess=fitted)
    small, large = (load_training_arrays(replace(file, large=is_large), spec()) for is_large in (False, True))
    assert large.feature_columns == fitted.outputs
    assert (large.features == small.features).all()


@pytest.mark.parametrize("split", [Split.RANDOM, Split.STRATIFIED])
@pytest.mark.parametrize("fraction", [0.013, 0.2, 0.5])
def test_rows_are_drawn_from_each_piece_as_from_a_member_of_the_whole(
    store: Store, split: Split, fraction: float
) -> None:
    hold_out = HoldOut(fraction=fraction, split=split)
    given = table()
    columns = ArrowColumns(store(given))
    labels = np.unique(given["c"].to_numpy(), return_inverse=True)[1].astype(np.int64)
    # among others, whose rows are fewer and split as ever
    members = np.concatenate([np.zeros(150, np.int64), np.ones(ROWS, np.int64)])
    codes = np.concatenate([labels[:150], labels])
    whole = held_out_rows(hold_out, Traits(members, codes, SIZE), 3)
    alone = held_out_rows(hold_out, Traits(members[:150], codes[:150]), 3)
    drawn = draw(hold_out, 3, ROWS, SIZE)
    label = columns.names.index("c")
    pieces = [drawn_rows(drawn, part, label, first) for first, part in columns.parts(drawn.piece_rows)]
    assert [len(piece) for piece in pieces] == [100] * 10
    assert (np.concatenate(pieces) == whole[150:]).all()
    assert (whole[:150] == alone).all()
    assert drawn.count == whole[150:].sum() == 10 * max(round(fraction * 100), 1)
    assert len({tuple(piece) for piece in pieces}) == 10
    if split is Split.STRATIFIED:
        shares = [whole[150:][labels == one].mean() for one in range(3)]
        assert np.ptp(shares) < 0.06


def test_held_out_rows_are_read_in_the_same_pass(store: Store) -> None:
    given = table()
    hold_out = HoldOut(fraction=0.2, split=Split.STRATIFIED)
    drawn = draw(hold_out, 3, ROWS, SIZE)
    file = DatasetFile(
        path=str(store(given)), roles=LABELS, classes=("maybe", "no", "yes"), large=True, drawn=drawn
    )
    arrays = load_training_arrays(file, spec(LossKind.CROSS_ENTROPY))
    labels = np.unique(given["c"].to_numpy(), return_inverse=True)[1].astype(np.int64)
    held = held_out_rows(hold_out, Traits(np.zeros(ROWS, np.int64), labels, SIZE), 3)
    assert arrays.validation is not None
    assert (arrays.targets == labels[~held]).all()
    assert (arrays.validation.targets == labels[held]).all()
    assert (arrays.validation.features[:, 0] == given["a"].to_numpy()[held].astype(np.float32)).all()


def spoiled(column: str, *places: tuple[int, object]) -> pa.Table:
    values = table()[column].to_pylist()
    for row, value in places:
        values[row] = value
    return table(**{column: values})


REGRESSION, BINARY, MULTI = LossKind.MSE, LossKind.BCE_WITH_LOGITS, LossKind.CROSS_ENTROPY
BAD: list[tuple[LossKind, str, pa.Table, int | None]] = [
    (REGRESSION, "y", spoiled("a", (777, np.nan), (900, np.inf)), None),
    (REGRESSION, "y", spoiled("a", (333, 1e300)), None),
    (REGRESSION, "y", spoiled("b", (5, None)), None),
    (REGRESSION, "y", spoiled("y", (950, None), (960, None)), None),
    (REGRESSION, "y", spoiled("w", (201, -1.0), (301, np.nan)), None),
    (REGRESSION, "y", table(w=np.zeros(ROWS)), None),
    (REGRESSION, "y", table(a=np.array(["x"] * ROWS)), None),
    (REGRESSION, "c", table(), None),
    (REGRESSION, "y", table(w=np.array(["x"] * ROWS)), None),
    (REGRESSION, "y", table(y=pa.array([0] * ROWS, pa.timestamp("us"))), None),
    (LossKind.POISSON_NLL, "b", spoiled("b", (640, -3), (700, -4)), None),
    (MULTI, "c", spoiled("c", (432, None)), None),
    (MULTI, "c", table(c=["one"] * ROWS), None),
    (MULTI, "c", table(), 2),
    (MULTI, "b", table(), 4),
    (MULTI, "y", table(), None),
    (MULTI, "b", table(b=np.ones(ROWS, np.int64)), None),
    (BINARY, "b", table(), None),
    (BINARY, "c", table(), None),
    (BINARY, "b", table(b=np.ones(ROWS, np.int64)), None),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_what_is_wrong_is_told_as_of_small_tables(store: Store, case: int) -> None:
    kind, target, given, outputs = BAD[case]
    columns = ArrowColumns(store(given))
    features = [name for name in ("a", "b") if name != target]
    roles = ColumnRoles(features=tuple(features), targets=(target,), weight="w")
    selection, loss = select(columns.names, roles, Violations()), Loss(kind=kind)
    expected = told_whole(columns, selection, loss, outputs)
    found = Violations()
    check = LargeCheck(columns, selection, loss, Precision.FLOAT32, found)
    for first, part in columns.parts(100):
        check.add(part, first)
    assert check.report(outputs, found) is None or kind is REGRESSION
    assert sorted(found.found, key=str) == sorted(expected.found, key=str)
    assert found.found


def told_whole(columns: ArrowColumns, selection: Selection, loss: Loss, outputs: int | None) -> Violations:
    found = Violations()
    prepare_features(columns, selection.features, Precision.FLOAT32, found)
    prepare_targets(columns, selection.targets, loss, Precision.FLOAT32, outputs, found)
    prepare_weights(columns, selection.weight, Precision.FLOAT32, found)
    return found


@pytest.mark.parametrize(("kind", "target"), [(MULTI, "c"), (MULTI, "b"), (REGRESSION, "y")])
def test_good_rows_have_the_same_classes(store: Store, kind: LossKind, target: str) -> None:
    columns = ArrowColumns(store(table()))
    selection = select(columns.names, ColumnRoles(features=("a",), targets=(target,)), Violations())
    found = Violations()
    check = LargeCheck(columns, selection, Loss(kind=kind), Precision.FLOAT32, found)
    for first, part in columns.parts(100):
        check.add(part, first)
    targets = check.report(None, found)
    whole = prepare_targets(columns, selection.targets, Loss(kind=kind), Precision.FLOAT32, None, found)
    assert not found
    assert targets is not None
    assert whole is not None
    assert targets.classes == whole.classes


WHEN = np.datetime64("2026-01-01", "us") + RANDOM.integers(0, 60, ROWS) * np.timedelta64(1, "D")
BY = {
    "numbers": RANDOM.integers(-9, 40, ROWS) / 4,
    "texts": np.datetime_as_string(WHEN, "D").tolist(),
    "times": pa.array(WHEN),
    "all the same": np.ones(ROWS),
    "all different": RANDOM.permutation(ROWS),
}


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize(("split", "fraction"), [(Split.TIME, 0.2), (Split.TIME, 1e-9), (Split.GROUP, 0.3)])
def test_a_column_splits_pieces_as_it_splits_rows_in_memory(
    store: Store, by: str, split: Split, fraction: float
) -> None:
    columns = ArrowColumns(store(table(a=BY[by])))
    index, hold_out = columns.names.index("a"), HoldOut(fraction=fraction, split=split, column="a")
    violations = Violations()
    draw_by = ColumnDraw(columns=columns, index=index, hold_out=hold_out, seed=11, size=SIZE)
    drawn = draw_by.draw(violations)
    if by == "all the same" and split is Split.GROUP:
        assert drawn is None
        assert [found.description for found in violations.found] == ["there is 1 group: none can be held out"]
        return
    assert drawn is not None
    held = np.concatenate([drawn_rows(drawn, part, 0, first) for first, part in columns.parts(70)])
    codes = np.unique(columns.values(index), return_inverse=True)[1].astype(np.int64)
    expected = held_out_rows(hold_out, Traits(np.zeros(ROWS, np.int64), codes), 11)
    np.testing.assert_array_equal(held, expected)
    assert drawn.count == np.count_nonzero(held)


@pytest.mark.parametrize(
    "values", [np.where(np.arange(ROWS) == 777, np.nan, 1.0), ["x"] * 777 + [None] * 223]
)
def test_a_row_without_a_value_to_split_by_is_told_of(store: Store, values: object) -> None:
    columns = ArrowColumns(store(table(a=values)))
    found = Violations()
    hold_out = HoldOut(split=Split.TIME, column="a")
    draw_by = ColumnDraw(columns=columns, index=0, hold_out=hold_out, seed=1, size=SIZE)
    assert draw_by.draw(found) is None
    assert "'a' has no value in row 777" in found.found[0].description


def test_too_many_groups_are_told_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing_by_column, "_MOST_DISTINCT", 500)
    found = Violations()
    hold_out = HoldOut(split=Split.GROUP, column="a")
    columns = ArrowColumns(store(table()))
    assert ColumnDraw(columns=columns, index=0, hold_out=hold_out, seed=1, size=SIZE).draw(found) is None
    assert "more than 500 distinct values" in found.found[0].description


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(row_files.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(EpochdError) as caught:
        RowFile(tmp_path).add(np.ones((2, 2)))
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert "no room" in caught.value.message
