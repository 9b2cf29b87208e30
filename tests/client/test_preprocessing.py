"""Preprocessing against the real server: texts, timestamps and holes in, predictions and coefficients out."""

from __future__ import annotations

import asyncio

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

import epochd
from epochd.preprocessing import Drop, Impute, MinMax, OneHot, Standardize, TimeParts

LINEAR = {"target": "rent", "model": epochd.Linear(), "fit": epochd.LeastSquares(), "seed": 1}


@pytest.fixture(scope="module")
def client(server):
    with epochd.connect(server.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def flats():
    """300 flats with texts, timestamps, booleans and holes."""
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "area": rng.normal(60, 15, 300),
            "rooms": rng.integers(1, 5, 300),
            "city": rng.choice(["Oslo", "Bergen", "Ålesund"], 300),
            "lift": rng.random(300) < 0.5,
            "listed": pd.Timestamp("2024-01-01", tz="Europe/Oslo")
            + pd.to_timedelta(rng.integers(0, 9000, 300), "h"),
        }
    )
    rent = frame.area * 12 + frame.rooms * 50 + (frame.city == "Oslo") * 300 + rng.normal(0, 5, 300)
    frame = frame.assign(rent=rent)
    frame.loc[::11, "area"] = np.nan
    frame.loc[::13, "city"] = None
    frame.loc[::17, "listed"] = pd.NaT
    return frame


def test_auto_trains_on_raw_rows_and_predicts_raw_rows(client, flats):
    run = client.train(flats, preprocess="auto", **LINEAR)
    model = run.result()
    started = next(event for event in run.events() if isinstance(event, epochd.events.Started))
    assert started.preprocess == model.preprocess
    assert model.inputs == ("area", "rooms", "city", "lift", "listed")
    assert model.features[:6] == (
        "area",
        "area_missing",
        "rooms",
        "city=Oslo",
        "city=Ålesund",
        "city=<missing>",
    )
    predicted = model.predict(flats.drop(columns="rent"))
    assert np.corrcoef(predicted, flats.rent)[0, 1] > 0.9
    shuffled = flats[["listed", "city", "lift", "rooms", "area"]].iloc[::-1]
    np.testing.assert_array_equal(client.predict(model.resource_name, shuffled)[::-1], predicted)
    assert "one_hot(ignore, first dropped)" in str(model.preprocess[2])


def test_predictions_are_those_of_a_scikit_learn_pipeline(client, flats):
    rows = flats.dropna(subset=["city"])
    steps = {
        "area": [Impute("median", indicator=True), Standardize()],
        "rooms": MinMax(),
        "city": OneHot(drop_first=True),
        ("lift", "listed"): "drop",
    }
    model = client.train(rows, preprocess=steps, **LINEAR).result()
    imputer = make_pipeline(SimpleImputer(strategy="median", add_indicator=True))
    transformer = make_column_transformer(
        (imputer, ["area"]), (MinMaxScaler(), ["rooms"]), (OneHotEncoder(drop="first"), ["city"])
    )
    pipeline = make_pipeline(transformer, StandardScaler(), LinearRegression()).fit(rows, rows.rent)
    np.testing.assert_allclose(model.predict(rows), pipeline.predict(rows), rtol=1e-9)


def test_coefficients_are_in_the_units_of_the_columns(client, flats):
    rows = flats.dropna()[["area", "rooms", "rent"]]
    plain = LinearRegression().fit(rows[["area", "rooms"]], rows.rent)
    steps = {"area": "standardize", "rooms": MinMax(low=-1, high=3)}
    model = client.train(rows, preprocess=steps, **LINEAR).result()
    found = model.coefficients()
    np.testing.assert_allclose(found.values, plain.coef_, rtol=1e-9)
    np.testing.assert_allclose(found.intercept, plain.intercept_, rtol=1e-9)
    np.testing.assert_allclose(found["rooms"], plain.coef_[1], rtol=1e-9)
    assert "intercept" in str(found)


def test_a_dataset_gives_the_bits_of_its_table(client, flats):
    inline = client.train(flats, preprocess="auto", **LINEAR).result()
    table = pa.Table.from_pandas(flats, preserve_index=False)
    stored = client.upload(table)
    assert stored.columns["listed"] == "timestamp"
    uploaded = client.train(stored, preprocess="auto", **LINEAR).result()
    for name, value in inline.parameters().items():
        np.testing.assert_array_equal(uploaded.parameters()[name], value)
    assert uploaded.preprocess == inline.preprocess


@pytest.mark.parametrize("stored", [False, True], ids=["inline", "dataset"])
def test_a_members_own_steps_are_those_of_a_single_model(client, flats, stored):
    steps = {
        "area": [Impute(per_member=True), Standardize(per_member=True)],
        ("city", "lift", "listed"): Drop(),
    }
    data = client.upload(pa.Table.from_pandas(flats, preserve_index=False)) if stored else flats
    fleet = client.train(data, preprocess=steps, group_by="rooms", **LINEAR).result()
    own = flats[flats.rooms == 2].drop(columns="rooms")
    alone = {"area": [Impute(), Standardize()], ("city", "lift", "listed"): Drop()}
    single = client.train(own, preprocess=alone, **LINEAR).result()
    np.testing.assert_array_equal(fleet.predict(flats)[flats.rooms == 2], single.predict(own))
    promoted = fleet.promote(2)
    np.testing.assert_array_equal(promoted.predict(own), single.predict(own))
    np.testing.assert_array_equal(fleet.member(2).coefficients().values, single.coefficients().values)
    members = fleet.coefficients().values
    np.testing.assert_array_equal(members[1], single.coefficients().values)


def test_held_out_rows_teach_nothing(client, flats):
    odd = flats[["area", "rent"]].dropna().reset_index(drop=True)
    tail = odd.assign(area=odd.area + 1e6)
    steps = {"area": "standardize"}
    model = client.train(odd, preprocess=steps, validation=(tail, None), **LINEAR).result()
    assert model.predict(odd).std() > 1
    whole = client.train(odd, preprocess=steps, **LINEAR).result()
    np.testing.assert_array_equal(model.predict(odd), whole.predict(odd))
    half = client.train(odd, preprocess=steps, validation=0.5, **LINEAR).result()
    assert not np.array_equal(half.predict(odd), whole.predict(odd))


def test_texts_without_preprocessing_are_refused_with_the_way_out(client, flats):
    with pytest.raises(epochd.InvalidArgument, match=r"'city' is text.*preprocess .auto"):
        client.train(flats[["city", "rent"]], **LINEAR)


def test_an_unseen_category_is_refused_by_name_or_follows_the_rule(client, flats):
    rows = flats[["city", "rent"]].dropna()
    strict = client.train(rows, preprocess={"city": OneHot(drop_first=True)}, **LINEAR).result()
    with pytest.raises(epochd.InvalidArgument, match="'city' is 'Paris' in row 1"):
        strict.predict({"city": ["Oslo", "Paris"]})
    lenient = client.train(
        rows, preprocess={"city": OneHot(unseen="ignore", drop_first=True)}, **LINEAR
    ).result()
    np.testing.assert_allclose(
        lenient.predict({"city": ["Paris"]})[0], lenient.coefficients().intercept, rtol=1e-12
    )


def test_iso_texts_are_times_where_that_is_asked(client, flats):
    rows = flats.dropna()[["listed", "rent"]]
    texts = rows.assign(listed=rows.listed.map(lambda time: time.isoformat()))
    parts = {"listed": TimeParts("month", "weekday")}
    from_times = client.train(rows, preprocess=parts, **LINEAR).result()
    from_texts = client.train(texts, preprocess=parts, **LINEAR).result()
    np.testing.assert_array_equal(from_texts.predict(texts), from_times.predict(rows))


def test_an_array_can_be_preprocessed(client):
    x = np.random.default_rng(1).normal(50, 10, (40, 2))
    model = client.train(
        x, x.sum(axis=1), preprocess={("x0", "x1"): "standardize"}, model=epochd.Linear(), fit="auto"
    ).result()
    np.testing.assert_allclose(model.predict(x), x.sum(axis=1), rtol=1e-9)


def test_the_asyncio_client_has_coefficients_too(server):
    async def run() -> np.ndarray:
        async with epochd.aio.connect(server.address) as client:
            arguments = {"model": epochd.Linear(), "fit": epochd.LeastSquares()}
            started = await client.train(
                [[1.0], [2.0], [4.0]], [3.0, 5.0, 9.0], preprocess="auto", **arguments
            )
            return (await (await started.result()).coefficients()).values

    np.testing.assert_allclose(asyncio.run(run()), [2.0], rtol=1e-12)


def test_many_rows_are_predicted_as_few_are(client, flats):
    model = client.train(flats, preprocess="auto", **LINEAR).result()
    many = pd.concat([flats.drop(columns="rent")] * 10, ignore_index=True)
    np.testing.assert_array_equal(model.predict(many)[:300], model.predict(flats))


@pytest.mark.parametrize("stored", [False, True], ids=["inline", "dataset"])
def test_row_weights_count_in_means_and_deviations(client, stored):
    """A penalty makes the scale matter; rows of weight 0 may hold anything."""
    rng = np.random.default_rng(8)
    rows = pd.DataFrame(
        {"a": rng.lognormal(size=200), "b": rng.normal(5, 3, 200), "shop": np.arange(200) % 2}
    )
    rows["y"] = 2 * rows.a - rows.b + rng.normal(size=200)
    rows["w"] = rng.integers(0, 4, 200) * 0.5
    rows.loc[rows.w == 0, "a"] = 1e6
    data = client.upload(pa.Table.from_pandas(rows, preserve_index=False)) if stored else rows
    arguments = {
        "target": "y", "weight": "w", "features": ["a", "b"], "model": epochd.Linear(),
        "fit": epochd.LeastSquares(l2=3.0), "dtype": "float64",
    }  # fmt: skip

    def expected(part):
        steps = make_pipeline(StandardScaler(), Ridge(alpha=3.0))
        weights = {"standardscaler__sample_weight": part.w, "ridge__sample_weight": part.w}
        return steps.fit(part[["a", "b"]], part.y, **weights).predict(rows[["a", "b"]])

    model = client.train(data, preprocess="auto", **arguments).result()
    np.testing.assert_allclose(model.predict(rows[["a", "b"]]), expected(rows), rtol=1e-9)
    own = epochd.Preprocess({("a", "b"): Standardize(per_member=True)})
    fleet = client.train(data, group_by="shop", preprocess=own, **arguments).result()
    for shop in (0, 1):
        predicted = fleet.predict(rows[["a", "b"]].assign(shop=shop))
        np.testing.assert_allclose(predicted, expected(rows[rows.shop == shop]), rtol=1e-9)
    folds = client.train(
        data, sweep={"folds": 2}, validation=epochd.HoldOut(group="shop"), preprocess="auto", **arguments
    ).result()
    predicted = [folds.predict(rows[["a", "b"]].assign(fold=fold)) for fold in (0, 1)]
    wanted = [expected(rows[rows.shop == shop]) for shop in (0, 1)]
    first = 0 if np.allclose(predicted[0], wanted[0]) else 1
    np.testing.assert_allclose(predicted, [wanted[first], wanted[1 - first]], rtol=1e-9)
