"""Cross-validation with preprocessing on a real server: each fold as scikit-learn fits a pipeline to its rows."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pandas as pd
import pyarrow as pa
import pytest
from sklearn import metrics as sk
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

import epochd
from epochd.preprocessing import Impute, OneHot, Ordinal, Standardize

FOLDS = 4
FEATURES = ["area", "rooms", "city", "floor"]


@pytest.fixture(scope="module")
def client(server):
    with epochd.connect(server.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def flats():
    """120 flats by day: two cities come up once, late, and the floor is the same at first."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "area": rng.normal(60, 15, 120),
            "rooms": rng.integers(1, 5, 120).astype(float),
            "city": rng.choice(["Bergen", "Oslo", "Voss"], 120),
            "floor": np.where(np.arange(120) < 30, 2, rng.integers(0, 9, 120)).astype(float),
            "day": np.arange(120),
        }
    )
    frame.loc[40, "city"] = "Alta"
    frame.loc[80, "city"] = "Tana"
    frame["rent"] = frame.area * 12 + frame.rooms * 50 + (frame.city == "Oslo") * 300 + rng.normal(0, 5, 120)
    frame["dear"] = np.where(frame.rent + rng.normal(0, 150, 120) > frame.rent.median(), "yes", "no")
    frame.loc[::7, "area"] = np.nan
    frame.loc[::9, "rooms"] = np.nan
    return frame


def steps(city):
    return epochd.Preprocess(
        {
            "area": [Impute("median"), Standardize()],
            "rooms": [Impute("mean"), Standardize()],
            "city": city,
            "floor": "standardize",
        },
        others="drop",
    )


def pipeline(model, city):
    return make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["area"]),
            (make_pipeline(SimpleImputer(), StandardScaler()), ["rooms"]),
            (city, ["city"]),
            (StandardScaler(), ["floor"]),
        ),
        model,
    )


def logistic(**arguments):
    return LogisticRegression(tol=1e-12, max_iter=1_000, **{"solver": "newton-cholesky", **arguments})


ONE_HOT = OneHotEncoder(handle_unknown="ignore")
FIRST_DROPPED = OneHotEncoder(handle_unknown="ignore", drop="first")
NUMBERED = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
LEAST_SQUARES, NEWTON = epochd.LeastSquares(), epochd.Newton()
CASES = {
    "first-dropped": (OneHot(unseen="ignore", drop_first=True), FIRST_DROPPED, LEAST_SQUARES, LinearRegression()),
    "minimum-norm": (
        OneHot(unseen="ignore"), ONE_HOT, epochd.LeastSquares(rank="minimum_norm"), LinearRegression(),
    ),
    "ordinal": (Ordinal(unseen="ignore"), NUMBERED, LEAST_SQUARES, LinearRegression()),
    "ridge-logistic": (OneHot(unseen="ignore"), ONE_HOT, epochd.Newton(l2=1.0), logistic()),
    "logistic": ("drop", "drop", NEWTON, logistic(C=np.inf, solver="lbfgs")),
}  # fmt: skip


def held_out(flats):
    """The rows of each fold: those that are trained on, and those that are not."""
    return [(flats.iloc[trained], flats.iloc[held]) for trained, held in TimeSeriesSplit(FOLDS).split(flats)]


def train(client, data, **arguments):
    """Folds by day: then it is known which rows they hold out."""
    by_day = {"sweep": {"folds": FOLDS}, "validation": epochd.HoldOut(time="day"), "dtype": "float64"}
    return client.train(
        data, features=FEATURES, model=epochd.Linear(), **{"seed": 1, **by_day, **arguments}
    ).result()


@pytest.mark.filterwarnings("ignore:Found unknown categories:UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_each_fold_is_that_of_a_pipeline(client, flats, case):
    """Also where a category, or a column that varies, is in the held-out rows only."""
    city, encoder, fit, oracle = CASES[case]
    is_classifier = isinstance(oracle, LogisticRegression)
    target = "dear" if is_classifier else "rent"
    names = ["accuracy", "log_loss"] if is_classifier else ["mse", "r2"]
    fleet = train(
        client, flats, target=target, preprocess=steps(city), fit=fit, metrics=names,
        loss="bce_with_logits" if is_classifier else "mse",
    )  # fmt: skip
    (found,) = fleet.cross_validation()
    for fold, (trained, held) in enumerate(held_out(flats)):
        model, truth = pipeline(oracle, encoder).fit(trained, trained[target]), held[target]
        expected = [model.score(held, truth)]
        if is_classifier:
            expected.append(sk.log_loss(truth, model.predict_proba(held)))
        else:
            expected.insert(0, sk.mean_squared_error(truth, model.predict(held)))
        scores = [found.scores[name][fold] for name in names]
        # without a penalty a constant column leaves scikit-learn only L-BFGS, which comes less close to the optimum
        np.testing.assert_allclose(scores, expected, rtol=1e-8 if case == "logistic" else 1e-9)


@pytest.mark.filterwarnings("ignore:Found unknown categories:UserWarning")
@pytest.mark.parametrize("stored", [False, True], ids=["inline", "dataset"])
def test_a_folds_member_predicts_raw_rows_wherever_it_goes(client, flats, stored, tmp_path):
    """By its key among others, by itself as a version, in the columns' units, and in an ONNX file of all."""
    rows = flats.drop(columns="dear")
    data = client.upload(pa.Table.from_pandas(rows, preserve_index=False)) if stored else rows
    city = OneHot(unseen="ignore", drop_first=True)
    fleet = train(client, data, target="rent", preprocess=steps(city), fit=LEAST_SQUARES)
    assert fleet.features == ("area", "rooms", "city=Bergen", "city=Oslo", "city=Tana", "city=Voss", "floor")
    models = [pipeline(LinearRegression(), FIRST_DROPPED).fit(one, one.rent) for one, _ in held_out(rows)]
    expected = np.stack([model.predict(rows) for model in models])
    keyed = pd.concat([rows.assign(fold=fold) for fold in range(FOLDS)]).sample(frac=1.0, random_state=0)
    wanted = expected[keyed.fold, keyed.day]
    np.testing.assert_allclose(fleet.predict(keyed), wanted, rtol=1e-9)

    fleet.export(tmp_path / "folds.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "folds.onnx")
    inputs = {name: keyed[name].to_numpy() for name in FEATURES} | {"member": keyed.fold.to_numpy()}
    np.testing.assert_allclose(session.run(["values"], inputs)[0], wanted, rtol=1e-9)
    fleet.export(tmp_path / "folds.safetensors")
    again = client.import_model(tmp_path / "folds.safetensors", "again")
    np.testing.assert_array_equal(again.predict(keyed), fleet.predict(keyed))

    first = fleet.promote((0,), "first")
    np.testing.assert_allclose(first.predict(rows[FEATURES]), expected[0], rtol=1e-9)
    assert first.preprocess[0].features == fleet.preprocess[0].features
    units, plain = first.coefficients(), models[0][0].named_transformers_["pipeline-1"][-1]
    assert units["area"] == pytest.approx(models[0][-1].coef_[0] / plain.scale_[0])
    assert units["city=Tana"] == units["floor"] == 0.0
    np.testing.assert_array_equal(fleet.coefficients().values[0], units.values)


def test_gradients_of_a_grid_and_of_one_fold_end_alike(client, flats):
    """Every combination sees the features of its fold."""
    arguments = {
        "target": "dear",
        "loss": "bce_with_logits",
        "preprocess": "auto",
        "epochs": 30,
        "metrics": "log_loss",
    }
    grid = train(
        client, flats, optimizer=epochd.SGD(lr=0.1), **arguments, sweep={"lr": [0.5, 0.1], "folds": FOLDS}
    )
    alone = train(client, flats, optimizer=epochd.SGD(lr=0.5), **arguments)
    best = next(one for one in grid.cross_validation() if one.values == {"lr": 0.5})
    assert (
        best.scores["log_loss"].tolist() == next(iter(alone.cross_validation())).scores["log_loss"].tolist()
    )
    rows = flats[FEATURES].assign(lr=0.5, fold=2)
    np.testing.assert_array_equal(grid.predict_proba(rows), alone.predict_proba(rows.drop(columns="lr")))
    np.testing.assert_array_equal(
        grid.promote((0.5, 2)).predict_proba(flats[FEATURES]),
        alone.promote((2,)).predict_proba(flats[FEATURES]),
    )


def test_a_category_that_a_fold_does_not_know_is_told_of(client, flats):
    with pytest.raises(epochd.InvalidArgument) as refused:
        train(client, flats, target="rent", preprocess=steps(OneHot()), fit=LEAST_SQUARES)
    (violation,) = refused.value.violations
    assert "'city' is 'Alta' in row 40" in violation.description
    assert "(with fold 0 held out)" in violation.description


def test_a_fold_without_any_value_is_told_of(client, flats):
    rows = flats.assign(floor=np.where(np.arange(120) < 30, np.nan, flats.floor))
    impute = epochd.Preprocess({"floor": Impute()}, others="drop")
    with pytest.raises(epochd.InvalidArgument, match="no value in any training row") as refused:
        train(client, rows, target="rent", preprocess=impute, fit=LEAST_SQUARES)
    assert "(of the training rows of fold 0)" in str(refused.value)
