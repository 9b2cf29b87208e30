"""Validation as a user has it, on a real server: held against scikit-learn on the rows that were held out."""

from __future__ import annotations

import asyncio
import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, cross_val_score

import epochd

ADAM = epochd.Adam(lr=0.05)


@pytest.fixture(scope="module")
def client(server):
    with epochd.connect(server.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def people():
    """300 rows of two features, a day, a town, three classes and a number that depend on them."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(size=300), "income": rng.normal(size=300)})
    score = frame.age + 0.5 * frame.income + rng.normal(size=300) * 0.5
    return frame.assign(
        grade=np.select([score < -0.5, score < 0.5], ["c", "b"], "a"),
        spend=2 * score + 1,
        day=pd.date_range("2026-01-01", periods=300).strftime("%Y-%m-%d"),
        town=rng.choice(list("stuvwxyz"), 300),
    )


def held_out_of(frame, model, columns):
    """The rows that a model was not trained on: those of the latest days."""
    return frame.sort_values("day").tail(model.evaluation.rows)[columns]


def test_metrics_are_scikit_learns_on_the_rows_held_out(client, people):
    model = client.train(
        people, target="grade", features=["age", "income"], model=epochd.Linear(), loss="cross_entropy",
        optimizer=ADAM, epochs=40, validation=epochd.HoldOut(0.3, time="day"),
        metrics=["accuracy", "f1_macro", "roc_auc", "log_loss"], seed=1,
    ).result()  # fmt: skip
    rows = held_out_of(people, model, ["age", "income", "grade"])
    truth, features = rows.grade.to_numpy(), rows[["age", "income"]]
    predicted, probabilities = model.predict(features), model.predict_proba(features).astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    evaluation = model.evaluation
    assert evaluation.rows == 90
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "f1_macro": sk.f1_score(truth, predicted, average="macro"),
        "roc_auc": sk.roc_auc_score(truth, probabilities, multi_class="ovr"),
        "log_loss": sk.log_loss(truth, probabilities),
    }
    assert evaluation.metrics == pytest.approx(expected, rel=1e-5)
    assert evaluation.loss == pytest.approx(expected["log_loss"], rel=1e-5)
    np.testing.assert_array_equal(evaluation.confusion, sk.confusion_matrix(truth, predicted))
    report = sk.classification_report(truth, predicted, output_dict=True)
    for label, one in evaluation.classes.items():
        assert one.f1 == pytest.approx(report[label]["f1-score"])
        assert one.support == report[label]["support"]
    assert sum(one.weight for one in evaluation.calibration) == 90
    assert client.model(model.name).evaluation == evaluation
    assert "90 rows" in str(model)


def test_an_exact_fit_is_measured_at_its_end(client, people):
    rows = people[["age", "income", "spend", "day"]]
    model = client.train(
        rows, target="spend", model=epochd.Linear(), fit=epochd.LeastSquares(),
        validation=epochd.HoldOut(0.25, time="day"), metrics=["r2", "rmse", "mae", "mape"], seed=1,
    ).result()  # fmt: skip
    train, test = rows.iloc[:225], rows.iloc[225:]
    oracle = LinearRegression().fit(train[["age", "income"]], train.spend)
    predicted = oracle.predict(test[["age", "income"]])
    expected = {
        "r2": sk.r2_score(test.spend, predicted),
        "rmse": sk.root_mean_squared_error(test.spend, predicted),
        "mae": sk.mean_absolute_error(test.spend, predicted),
        "mape": sk.mean_absolute_percentage_error(test.spend, predicted),
    }
    assert model.evaluation.metrics == pytest.approx(expected, rel=1e-9)
    assert model.metrics["validation_loss"] == pytest.approx(expected["rmse"] ** 2, rel=1e-9)


def test_early_stopping_keeps_the_best_epoch(client, people):
    features, targets = people[["age", "income"]].to_numpy(), people["spend"].to_numpy()
    run = client.train(
        features[:40], targets[:40], model=epochd.Sequential(epochd.Linear(64), "tanh", epochd.Linear(1)),
        optimizer=epochd.Adam(lr=0.05), epochs=2000, validation=(features[40:], targets[40:]),
        early_stopping=epochd.EarlyStopping(patience=20), metrics=["mae"], log_every=1, seed=1,
    )  # fmt: skip
    logs = list(run.logs())
    model = run.result()
    losses = [log.validation_loss for log in logs]
    best = int(np.argmin(losses))
    assert model.epochs == len(logs) == best + 21
    assert model.evaluation.best_epoch == best
    assert model.evaluation.loss == losses[best]
    assert model.evaluation.metrics["mae"] == logs[best].measured["mae"] == logs[best].metrics["mae"]
    predicted = model.predict(features[40:].astype(np.float32))
    assert sk.mean_squared_error(targets[40:], predicted) == pytest.approx(losses[best], rel=1e-4)
    assert list(run.events())[-1].evaluation == model.evaluation


def test_folds_are_those_of_plain_cross_validation(client, people):
    """Each fold's member is the model that scikit-learn fits on the other rows."""
    features, targets = people[["age", "income"]].to_numpy(), people["spend"].to_numpy()
    result = client.cross_validate(
        features,
        targets,
        folds=4,
        model=epochd.Linear(),
        fit=epochd.LeastSquares(),
        metrics=["r2", "mse"],
        seed=3,
    )
    (combination,) = result
    assert combination.scores["mse"] == pytest.approx(combination.losses, rel=1e-12)
    oracle = -cross_val_score(
        LinearRegression(), features, targets, cv=KFold(4), scoring="neg_mean_squared_error"
    )
    assert combination.loss == pytest.approx(oracle.mean(), rel=0.03)
    assert combination.loss_deviation == pytest.approx(np.std(combination.losses, ddof=1))


def test_a_grid_search_ranks_combinations_by_their_mean_loss(client, people):
    run = client.train(
        people, target="grade", features=["age", "income"], model=epochd.Linear(), loss="cross_entropy",
        optimizer=epochd.Adam(), epochs=20, sweep={"lr": [0.001, 0.1], "weight_decay": [0.0, 1.0], "folds": 3},
        validation=epochd.HoldOut(group="town"), metrics="accuracy", seed=1,
    )  # fmt: skip
    fleet = run.result()
    result = fleet.cross_validation()
    assert fleet.key_columns == ("lr", "weight_decay", "fold")
    assert (len(result), result.folds, len(fleet)) == (4, 3, 12)
    losses = [one.loss for one in result]
    assert losses == sorted(losses)
    assert result.best.values == {"lr": 0.1, "weight_decay": 0.0}
    summary = fleet.evaluation
    assert summary.best == (0.1, 0.0)
    assert summary.loss == pytest.approx(result.best.loss)
    assert summary.loss_deviation == pytest.approx(result.best.loss_deviation)
    assert summary.metrics["accuracy"] == pytest.approx(result.best.metrics["accuracy"])
    assert summary.deviations["accuracy"] == pytest.approx(result.best.deviations["accuracy"])
    assert summary.rows == 300
    assert str(result).splitlines()[0] == "3 folds"


def test_a_fold_is_trained_as_a_run_on_the_same_rows_is(client, people):
    """Bit for bit: a fold by time is what a run with that time held out would be."""
    rows = people[["age", "income", "spend", "day"]]
    fleet = client.train(
        rows, target="spend", model=epochd.Linear(), optimizer=ADAM, epochs=30,
        sweep={"folds": 4}, validation=epochd.HoldOut(time="day"), seed=2,
    ).result()  # fmt: skip
    first = rows.iloc[: 300 // 5]
    alone = client.train(
        first, target="spend", features=["age", "income"], model=epochd.Linear(), optimizer=ADAM, epochs=30,
        validation=rows.iloc[60:120], seed=2,
    ).result()  # fmt: skip
    member = fleet.member(0)
    assert member.rows == 60
    for name, value in alone.parameters().items():
        np.testing.assert_array_equal(member.parameters()[name], value)
    assert member.evaluation.loss == alone.evaluation.loss


def test_members_of_a_fleet_are_split_and_ranked_each(client, people):
    fleet = client.train(
        people, target="spend", features=["age", "income"], group_by="town", model=epochd.Linear(),
        optimizer=ADAM, epochs=50, validation=0.25, metrics=["mae"], early_stopping=5, seed=1,
    ).result()  # fmt: skip
    ranking = fleet.ranking()
    losses = [member.evaluation.loss for member in ranking]
    assert losses == sorted(losses)
    assert fleet.best.key == ranking[0].key
    assert fleet.evaluation.loss == pytest.approx(np.median(losses))
    assert fleet.evaluation.rows == sum(member.evaluation.rows for member in ranking)
    sizes = people.groupby("town").size()
    assert {member.key: member.rows + member.evaluation.rows for member in ranking} == dict(sizes)
    promoted = fleet.promote(fleet.best, name="best-town")
    assert promoted.evaluation == ranking[0].evaluation
    assert "validation" in str(ranking)


def test_a_member_in_a_fleet_ends_in_the_bits_of_its_own_run(client, people):
    training = {
        "target": "spend", "features": ["age", "income"], "model": epochd.Linear(), "optimizer": ADAM,
        "epochs": 50, "validation": 0.25, "early_stopping": 3, "seed": 1,
    }  # fmt: skip
    fleet = client.train(people, group_by="town", **training).result()
    rows = people[people.town == "u"]
    alone = client.train(rows, **training).result()
    member = fleet.member("u")
    assert member.evaluation.best_epoch == alone.evaluation.best_epoch
    assert member.evaluation.loss == alone.evaluation.loss
    for name, value in alone.parameters().items():
        np.testing.assert_array_equal(member.parameters()[name], value)


def test_members_that_cannot_be_split_fail_and_say_why(client):
    frame = pd.DataFrame({"x": range(9), "y": range(9), "shop": [*"aaaabbbbc"]})
    fleet = client.train(
        frame, target="y", group_by="shop", model=epochd.Linear(), fit=epochd.LeastSquares(), validation=0.25
    ).result()
    (failed,) = fleet.members(state="FAILED")
    assert (failed.key, failed.failure.reason) == ("c", "NO_VALIDATION_ROWS")
    assert failed.failure.hint
    assert failed.evaluation is None


def test_a_sweep_says_which_combination_is_best_on_the_rows_held_out(client, people):
    fleet = client.train(
        people, target="spend", features=["age", "income"], model=epochd.Linear(), optimizer=epochd.SGD(lr=1.0),
        epochs=20, sweep={"lr": [0.0001, 0.1, 0.01]}, validation=0.25, seed=1,
    ).result()  # fmt: skip
    assert fleet.evaluation.best == 0.1
    assert fleet.best.key == 0.1
    assert fleet.evaluation.loss == fleet.best.evaluation.loss


def test_a_dataset_is_split_as_the_same_table_is(client, people):
    training = {
        "target": "spend", "features": ["age", "income"], "model": epochd.Linear(), "optimizer": ADAM,
        "epochs": 10, "validation": 0.25, "seed": 1,
    }  # fmt: skip
    inline = client.train(people, **training).result()
    stored = client.train(client.upload(people), **training).result()
    assert stored.evaluation == inline.evaluation
    given = client.train(
        client.upload(people), **{**training, "validation": client.upload(people.tail(50))}
    ).result()
    assert (given.rows, given.evaluation.rows) == (300, 50)


def test_rows_too_large_for_one_request_are_uploaded(client):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(18_000, 32)).astype(np.float32)
    targets = features.sum(axis=1)
    model = client.train(
        features, targets, model=epochd.Linear(), optimizer=epochd.SGD(lr=0.01), epochs=2,
        validation=(features[:17_000], targets[:17_000]),
    ).result()  # fmt: skip
    assert (model.rows, model.evaluation.rows) == (18_000, 17_000)


def test_asyncio_cross_validates_too(server, people):
    async def use():
        async with epochd.aio.connect(server.address) as client:
            return await client.cross_validate(
                people, target="spend", features=["age", "income"], folds=3, model=epochd.Linear(),
                fit=epochd.LeastSquares(), seed=1,
            )  # fmt: skip

    assert len(asyncio.run(use()).best.losses) == 3


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"validation": 1.5}, "validation.fraction"),
        ({"validation": 0.2, "metrics": ["accuracy"]}, "validation.metrics[0]"),
        ({"validation": 0.2, "metrics": ["speed"]}, "validation.metrics[0]"),
        ({"metrics": ["mae"]}, "validation"),
        ({"early_stopping": 3}, "validation"),
        ({"validation": True}, "validation"),
        ({"validation": 0.2, "early_stopping": 0}, "validation.early_stopping.patience"),
        ({"validation": epochd.HoldOut(time="dai")}, "validation.split"),
        ({"validation": 0.2, "sweep": {"folds": 3}}, "validation.fraction"),
    ],
)
def test_what_is_wrong_is_named(client, people, wrong, field):
    with pytest.raises(epochd.InvalidArgument) as caught:
        client.train(
            people, target="spend", features=["age"], model=epochd.Linear(), optimizer=ADAM, epochs=1, **wrong
        )
    assert field in {violation.field for violation in caught.value.violations}


def test_the_same_request_ends_in_the_same_bits(client, people):
    """Splitting, measuring and stopping early are deterministic."""
    training = {
        "target": "grade", "features": ["age", "income"], "loss": "cross_entropy", "optimizer": ADAM,
        "model": epochd.Sequential(epochd.Linear(8), "relu", epochd.Linear(3)), "epochs": 60, "batch_size": 32,
        "validation": 0.2, "metrics": ["accuracy"], "early_stopping": 4, "seed": 9,
    }  # fmt: skip
    first, second = (client.train(people, **training).result() for _ in range(2))
    assert first.evaluation == second.evaluation
    pairs = itertools.zip_longest(first.parameters().values(), second.parameters().values())
    assert all(np.array_equal(one, other) for one, other in pairs)
