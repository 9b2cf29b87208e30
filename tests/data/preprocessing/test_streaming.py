"""Fitting piece by piece learns what fitting to all rows learns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pyarrow import ipc

from epochd_server.data.columns import Columns
from epochd_server.data.loading import ArrowColumns
from epochd_server.data.preprocessing.fitting import TrainingRows, fit_preprocessing
from epochd_server.data.preprocessing.selecting import StreamedValues
from epochd_server.data.preprocessing.streaming import PartRows, fit_streamed
from epochd_server.domain.errors import Violations
from epochd_server.domain.preprocessing import (
    Affine,
    Auto,
    Bucketize,
    ColumnSteps,
    Fill,
    Hashing,
    Impute,
    Log1p,
    MinMax,
    OneHot,
    Ordinal,
    Preprocessing,
    Remainder,
    Standardize,
    Step,
    TimePart,
    TimeParts,
    Unseen,
)

ROWS, PIECE = 700, 90


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> ArrowColumns:
    random = np.random.default_rng(0)
    numbers = random.lognormal(size=ROWS)
    table = pa.table(
        {
            "x": np.where(random.random(ROWS) < 0.2, np.nan, numbers),
            "n": random.integers(-5, 5, ROWS),
            "b": random.random(ROWS) < 0.3,
            "c": [None if k == 4 else f"city {k % 7}" for k in random.integers(0, 30, ROWS).tolist()],
            "many": [f"{k}" for k in range(ROWS)],
            "t": pa.array(random.integers(0, 10**15, ROWS), pa.timestamp("us")),
            "same": np.ones(ROWS),
            "none": pa.array([None] * ROWS, pa.float64()),
        }
    )
    path = tmp_path_factory.mktemp("streaming") / "table.arrow"
    with ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=64)
    return ArrowColumns(path)


def of(name: str, steps: tuple[Step, ...]) -> ColumnSteps:
    return ColumnSteps(columns=(name,), steps=steps)


CASES = [
    ("x", (Impute(fill=Fill.MEDIAN, indicator=True), Standardize())),
    ("x", (Impute(fill=Fill.MEAN), MinMax(low=-1, high=1))),
    ("x", (Impute(fill=Fill.CONSTANT, number=2.0), Log1p())),
    ("x", (Impute(fill=Fill.MOST_FREQUENT),)),
    ("x", (Bucketize(buckets=7),)),
    ("x", (Bucketize(edges=(0.5, 1.0), one_hot=True), Standardize())),
    ("n", (OneHot(),)),
    ("n", (Ordinal(), Standardize())),
    ("n", (Impute(fill=Fill.MOST_FREQUENT),)),
    ("c", (OneHot(max_categories=3, unseen=Unseen.OTHER),)),
    ("c", (Impute(fill=Fill.MOST_FREQUENT), Ordinal())),
    ("c", (Impute(fill=Fill.CONSTANT, text="elsewhere"), OneHot())),
    ("c", (Hashing(features=4), Standardize())),
    ("t", (TimeParts(parts=(TimePart.HOUR, TimePart.MONTH)), Standardize())),
    *((name, (Auto(),)) for name in ("x", "n", "b", "c", "many", "t", "same", "none")),
]


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("rows", ["all", "held out", "weighted"])
def test_steps_learn_what_they_learn_of_all_rows_at_once(columns: ArrowColumns, case: int, rows: str) -> None:
    name, steps = CASES[case]
    indices = list(dict.fromkeys([columns.names.index(name), columns.names.index("b")]))
    asked = Preprocessing(
        columns=(of(name, steps), *(() if name == "b" else (of("b", (Auto(),)),))),
        remainder=Remainder.DROP,
    )
    chosen = np.random.default_rng(1).random(ROWS) < 0.7 if rows != "all" else np.ones(ROWS, np.bool_)
    weights = None
    if rows == "weighted":
        weights = np.where(np.arange(ROWS) < PIECE, 0, np.random.default_rng(2).random(ROWS))
    training = TrainingRows.of(chosen, weights)

    def part_rows(part: Columns, first: int) -> PartRows:
        here = slice(first, first + part.rows)
        if weights is None:
            return PartRows(chosen[here])
        return PartRows(chosen[here] & (weights[here] > 0), weights[here])

    whole, pieces = Violations(), Violations()
    expected = fit_preprocessing(asked, columns, indices, training, whole)
    found = fit_streamed(
        asked,
        columns,
        PIECE,
        indices,
        part_rows,
        pieces,
    )
    assert pieces.found == whole.found
    if expected is None or found is None:
        assert expected is found
        return
    assert found.outputs == expected.outputs
    for one, other in zip(found.columns, expected.columns, strict=True):
        assert one.note == other.note
        assert [step.step for step in one.steps] == [step.step for step in other.steps]
        for step, wanted in zip(one.steps, other.steps, strict=True):
            if isinstance(step.state, Affine) and isinstance(wanted.state, Affine):
                np.testing.assert_allclose(step.state.center, wanted.state.center, rtol=1e-12, atol=1e-14)
                np.testing.assert_allclose(step.state.scale, wanted.state.scale, rtol=1e-12)
            elif isinstance(step.step, Impute) and step.step.fill is Fill.MEAN:
                np.testing.assert_allclose(step.state.numbers, wanted.state.numbers, rtol=1e-12)
            else:
                assert step.state == wanted.state


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("n", (Log1p(),)),
        ("none", (Impute(fill=Fill.MEAN),)),
        ("none", (Bucketize(buckets=3),)),
        ("c", (Standardize(),)),
        ("c", (Impute(fill=Fill.MEAN),)),
        ("t", (Impute(fill=Fill.MEAN),)),
        ("many", (TimeParts(parts=(TimePart.HOUR,)),)),
        ("t", (OneHot(),)),
    ],
)
def test_what_a_step_cannot_take_is_told_likewise(columns: ArrowColumns, name: str, steps: tuple) -> None:
    asked = Preprocessing(columns=(of(name, steps),), remainder=Remainder.DROP)
    whole, pieces = Violations(), Violations()
    index = [columns.names.index(name)]
    assert fit_preprocessing(asked, columns, index, TrainingRows(), whole) is None
    assert fit_streamed(asked, columns, PIECE, index, lambda *_: PartRows(), pieces) is None
    assert [violation.field for violation in pieces.found] == [violation.field for violation in whole.found]
    (told,), (expected,) = pieces.found, whole.found
    # one piece's rows are counted, not those of all
    assert told.description.split(" and ")[0] == expected.description.split(" and ")[0]


@given(
    arrays(np.float64, st.integers(1, 60), elements=st.floats(allow_nan=True, allow_infinity=True)),
    st.integers(1, 12),
    st.integers(1, 9),
)
def test_order_statistics_are_exact(values: np.ndarray, piece: int, buckets: int) -> None:
    streamed = StreamedValues(lambda: ((values[i : i + piece], None) for i in range(0, len(values), piece)))
    finite = np.sort(values[np.isfinite(values)])
    assert streamed.counts[0] == len(finite)
    if len(finite):
        assert streamed.ranked(list(range(len(finite)))) == finite.tolist()
        shares = np.linspace(0, 1, buckets + 1)
        if np.ptp(finite / 4) < 1e300:
            assert (streamed.quantiles(shares) == np.quantile(finite, shares)).all()
