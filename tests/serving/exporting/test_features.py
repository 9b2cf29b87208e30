"""Preprocessing in ONNX graphs: run by onnxruntime, held against what Predict makes of the same rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from epochd_server.data.columns import TableColumns
from epochd_server.data.preprocessing.fitting import TrainingRows, fit_preprocessing
from epochd_server.data.preprocessing.transforming import Transformer, positions
from epochd_server.domain.data import Column, Table
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.preprocessing import (
    Bucketize,
    ColumnSteps,
    Fill,
    Hashing,
    Impute,
    Log1p,
    MinMax,
    OneHot,
    Ordinal,
    Passthrough,
    Preprocessing,
    Standardize,
    Unseen,
)
from epochd_server.domain.specs import LinearModel
from epochd_server.engine.inference import Predictor
from epochd_server.serving.exporting.features import Learned, add_features
from epochd_server.serving.exporting.graph import Graph
from epochd_server.serving.exporting.onnx_file import onnx_file

RNG = np.random.default_rng(0)
NUMBERS = np.where(RNG.random(60) < 0.2, np.nan, RNG.normal(size=60) * 3 + 5)
WHOLE = np.where(RNG.random(60) < 0.1, np.nan, RNG.integers(0, 5, 60)).astype(float)
TEXTS = np.array([["red", "green", "blue", ""][n] for n in RNG.integers(0, 4, 60)], object)


def as_columns(values) -> TableColumns:
    return TableColumns(Table((Column("c", values),)))


def fitted_to(values, *steps):
    violations = Violations()
    asked = Preprocessing(columns=(ColumnSteps(columns=("c",), steps=steps),))
    fitted = fit_preprocessing(asked, as_columns(values), range(1), TrainingRows(), violations)
    violations.raise_if_any()
    return fitted


def expected_of(fitted, values) -> np.ndarray:
    violations, transformer = Violations(), Transformer(fitted)
    out = np.empty((len(values), transformer.width))
    source = as_columns(values)
    transformer.transform(source, positions(source.names), out, violations)
    violations.raise_if_any()
    return out


def graph_of(fitted, values) -> np.ndarray:
    graph = Graph(np.dtype(np.float64))
    graph.output(add_features(graph, fitted), "features", graph.dtype, ["rows", len(fitted.outputs)])
    session = onnxruntime.InferenceSession(graph.model({}).SerializeToString())
    return session.run(["features"], {"c": values})[0]


@pytest.mark.parametrize(
    "steps",
    [
        (Passthrough(),),
        (Standardize(),),
        (Standardize(with_mean=False),),
        (MinMax(low=-1.0, high=3.0),),
        (Log1p(), Standardize()),
        (Impute(fill=Fill.MEDIAN),),
        (Impute(fill=Fill.MEAN, indicator=True), Standardize()),
        (Bucketize(buckets=4),),
        (Bucketize(edges=(3.0, 5.0), one_hot=False),),
    ],
)
def test_numbers(steps):
    fitted = fitted_to(np.abs(NUMBERS), *steps)
    rows = np.concatenate([np.abs(NUMBERS), [0.0, 3.0, 5.0, 1e6, np.nan]])
    np.testing.assert_allclose(graph_of(fitted, rows), expected_of(fitted, rows), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "steps",
    [
        (OneHot(unseen=Unseen.IGNORE),),
        (OneHot(unseen=Unseen.OTHER),),
        (OneHot(unseen=Unseen.IGNORE, max_categories=2),),
        (OneHot(unseen=Unseen.OTHER, drop_first=True),),
        (Impute(fill=Fill.MOST_FREQUENT), OneHot(unseen=Unseen.IGNORE)),
        (Impute(fill=Fill.CONSTANT, text="none", indicator=True), OneHot(unseen=Unseen.IGNORE)),
        (Ordinal(unseen=Unseen.IGNORE),),
        (Ordinal(unseen=Unseen.OTHER),),
    ],
)
def test_texts(steps):
    fitted = fitted_to(TEXTS, *steps)
    rows = np.append(TEXTS, np.array(["violet", "", "Red"], object))
    np.testing.assert_array_equal(graph_of(fitted, rows), expected_of(fitted, rows))


@pytest.mark.parametrize(
    "step", [OneHot(unseen=Unseen.OTHER), OneHot(unseen=Unseen.IGNORE), Ordinal(unseen=Unseen.OTHER)]
)
def test_categories_of_numbers(step):
    fitted = fitted_to(WHOLE, step)
    rows = np.append(WHOLE, [17.0, np.nan, 0.5])
    np.testing.assert_array_equal(graph_of(fitted, rows), expected_of(fitted, rows))


@pytest.mark.parametrize("step", [OneHot(), Ordinal()])
def test_an_unseen_category_that_predict_refuses_is_nan(step):
    fitted = fitted_to(TEXTS[TEXTS != ""], step)
    features = graph_of(fitted, np.array(["red", "violet", ""], object))
    assert np.isnan(features[1:]).all()
    np.testing.assert_array_equal(features[:1], expected_of(fitted, np.array(["red"], object)))


@pytest.mark.parametrize(("values", "step"), [(TEXTS, Hashing(features=4)), (NUMBERS, Hashing(features=4))])
def test_what_has_no_form_is_refused_by_name(values, step):
    with pytest.raises(EpochdError, match="'c'") as caught:
        graph_of(fitted_to(values, step), values)
    assert caught.value.reason is Reason.EXPORT_NOT_POSSIBLE


@pytest.mark.parametrize(
    "steps",
    [(Standardize(per_member=True),), (Impute(per_member=True), MinMax(per_member=True, high=2.0))],
)
def test_members_have_numbers_of_their_own(steps):
    violations, of_rows = Violations(), np.arange(60) % 3
    training = TrainingRows(members=of_rows, count=3)
    asked = Preprocessing(columns=(ColumnSteps(columns=("c",), steps=steps),))
    fitted = fit_preprocessing(asked, as_columns(NUMBERS), range(1), training, violations)
    violations.raise_if_any()
    expected = np.empty((60, 1))
    Transformer(fitted).transform(as_columns(NUMBERS), {"c": 0}, expected, violations, of_rows)
    graph = Graph(np.dtype(np.float64))
    member = graph.input("member", np.dtype(np.int64), ["rows"])
    features = add_features(graph, fitted, Learned(fitted.statistics, member))
    graph.output(features, "features", graph.dtype, ["rows", 1])
    session = onnxruntime.InferenceSession(graph.model({}).SerializeToString())
    found = session.run(["features"], {"c": NUMBERS, "member": of_rows})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_whole_model_takes_raw_columns(card, draw):
    table = Table((Column("age", NUMBERS), Column("colour", TEXTS)))
    asked = Preprocessing(
        columns=(
            ColumnSteps(columns=("age",), steps=(Impute(), Standardize())),
            ColumnSteps(columns=("colour",), steps=(OneHot(unseen=Unseen.IGNORE),)),
        )
    )
    violations = Violations()
    source = TableColumns(table)
    fitted = fit_preprocessing(asked, source, range(2), TrainingRows(), violations)
    width = len(fitted.outputs)
    model = LinearModel(in_features=width, out_features=1)
    parameters = draw(model)
    made = replace(card(model, features=width), preprocess=fitted)
    session = onnxruntime.InferenceSession(onnx_file("", made, parameters, []))
    features = np.empty((60, width))
    Transformer(fitted).transform(source, positions(source.names), features, violations)
    values = session.run(["values"], {"age": NUMBERS, "colour": TEXTS})[0]
    np.testing.assert_allclose(values, Predictor(model, parameters).predict(features)[:, 0], rtol=1e-12)
