"""Exact fits end to end: from the client through a real server to the stored version and back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from sklearn.linear_model import LinearRegression, LogisticRegression

import epochd
from epochd.fits import Fit


@pytest.fixture(scope="module")
def client(server) -> Iterator[epochd.Client]:
    with epochd.connect(server.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Forty stores of 60 rows; store 3 has a constant feature, store 5 separable classes."""
    random = np.random.default_rng(1)
    frame = pd.DataFrame(random.standard_normal((40 * 60, 2)), columns=["price", "rain"])
    frame["store"] = np.repeat(np.arange(40), 60)
    frame["sales"] = 3 - 2 * frame["price"] + random.standard_normal(len(frame))
    frame["good"] = (frame["sales"] + random.standard_normal(len(frame)) > 3).astype(int)
    frame.loc[frame["store"] == 3, "rain"] = 1.0
    frame.loc[frame["store"] == 5, "good"] = (frame.loc[frame["store"] == 5, "price"] > 0).astype(int)
    return frame


FEATURES = ["price", "rain"]


def train(client: epochd.Client, table: pd.DataFrame, target: str, fit: Fit | str, **more):
    loss = "mse" if target == "sales" else "bce_with_logits"
    how = {"target": target, "features": FEATURES, "model": epochd.Linear(), "loss": loss, "fit": fit}
    return client.train(table, **how | more)


def test_a_model_has_the_statistics_of_statsmodels(client, table):
    run = train(client, table, "sales", "auto", name="exact")
    model = run.result()
    right = sm.OLS(table["sales"], sm.add_constant(table[FEATURES])[[*FEATURES, "const"]]).fit()
    found = model.statistics()
    (output,) = found.outputs
    assert model.fit == "least_squares (auto)"
    assert model.dtype == "float64"
    assert found.coefficient_names == ("price", "rain", "bias")
    assert output.name == "sales"
    np.testing.assert_allclose(output.coefficients, right.params, rtol=1e-12)
    np.testing.assert_allclose(output.standard_errors, right.bse, rtol=1e-10)
    np.testing.assert_allclose(output.statistics, right.tvalues, rtol=1e-10)
    np.testing.assert_allclose(output.p_values, right.pvalues, rtol=1e-8, atol=1e-300)
    for ours, theirs in {
        "r_squared": right.rsquared,
        "adjusted_r_squared": right.rsquared_adj,
        "residual_standard_error": np.sqrt(right.scale),
        "log_likelihood": right.llf,
        "aic": right.aic,
        "bic": right.bic,
        "f_statistic": right.fvalue,
        "f_p_value": right.f_pvalue,
    }.items():
        assert getattr(output, ours) == pytest.approx(theirs, rel=1e-9, abs=1e-300), ours
    assert (found.df_model, found.df_residual, found.rank, found.rows) == (2, 2397, 3, 2400)
    text = str(found)
    assert "price" in text
    assert "P>|t|" in text
    assert "r squared" in text


def test_without_a_bias_r_squared_is_that_about_0(client, table):
    model = train(client, table, "sales", epochd.LeastSquares(), model=epochd.Linear(bias=False)).result()
    right = sm.OLS(table["sales"], table[FEATURES]).fit()
    (output,) = model.statistics().outputs
    assert output.r_squared == pytest.approx(right.rsquared, rel=1e-10)
    assert output.adjusted_r_squared == pytest.approx(right.rsquared_adj, rel=1e-10)
    assert output.f_statistic == pytest.approx(right.fvalue, rel=1e-10)


def test_a_logistic_model_has_the_statistics_of_statsmodels(client, table):
    model = train(client, table, "good", "auto").result()
    right = sm.Logit(table["good"], sm.add_constant(table[FEATURES])[[*FEATURES, "const"]])
    right = right.fit(disp=0, tol=1e-12)
    found = model.statistics()
    (output,) = found.outputs
    np.testing.assert_allclose(output.p_values, right.pvalues, rtol=1e-8, atol=1e-300)
    assert found.log_likelihood == pytest.approx(right.llf, rel=1e-10)
    assert found.null_log_likelihood == pytest.approx(right.llnull, rel=1e-7)
    assert found.aic == pytest.approx(right.aic, rel=1e-10)
    assert found.bic == pytest.approx(right.bic, rel=1e-10)
    assert found.deviance == pytest.approx(-2 * right.llf, rel=1e-10)
    assert found.df_residual == right.df_resid
    np.testing.assert_allclose(model.predict_proba(table[FEATURES])[:, 1], right.predict(), rtol=1e-9)


def test_class_weights_are_those_of_scikit_learn_for_each_member_of_a_fleet(client, table):
    frame = table.query("store < 3").assign(good=lambda rows: np.where(rows["good"] == 1, "yes", "no"))
    how = {"fit": epochd.Newton(l2=0.5), "loss": epochd.BCEWithLogits(class_weights="balanced")}
    fleet = train(client, frame, "good", group_by="store", **how).result()
    given = epochd.BCEWithLogits(class_weights={"yes": 3.0})
    single = train(client, frame, "good", "auto", loss=given).result()
    assert single.fit == "newton (auto)"
    assert fleet.keys() == [0, 1, 2]
    weights = [("balanced", 0.5, rows) for _, rows in frame.groupby("store")] + [({"yes": 3.0}, 1e-12, frame)]
    found = [*fleet.parameters()["linear.weight"], single.parameters()["linear.weight"]]
    for weight, (class_weight, l2, rows) in zip(found, weights, strict=True):
        right = LogisticRegression(C=1 / l2, class_weight=class_weight, tol=1e-12, solver="newton-cholesky")
        right.fit(rows[FEATURES], rows["good"])
        np.testing.assert_allclose(weight, right.coef_, rtol=1e-8)


def test_a_softmax_model_has_statistics_for_each_class(client, table):
    labels = np.array(["high", "low", "middle"])[pd.qcut(table["sales"], 3, labels=False)]
    frame = table[FEATURES].assign(level=labels)
    run = client.train(
        frame, target="level", model=epochd.Linear(), loss="cross_entropy", fit=epochd.Newton()
    )
    found = run.result().statistics()
    assert [output.name for output in found.outputs] == ["high", "low", "middle"]
    right = sm.MNLogit(labels, sm.add_constant(table[FEATURES])).fit(disp=0, tol=1e-12)
    assert found.log_likelihood == pytest.approx(right.llf, rel=1e-10)
    assert found.aic == pytest.approx(right.aic, rel=1e-10)
    assert found.df_residual == right.df_resid
    assert "z" in str(found).split()


@pytest.mark.parametrize(("target", "fit"), [("sales", epochd.LeastSquares()), ("good", epochd.Newton())])
def test_a_fleets_members_are_the_single_fits_in_bits(client, table, target, fit):
    fleet = train(client, table, target, fit, group_by="store").result()
    failed = {member.key: member.failure.reason for member in fleet.members(state="FAILED")}
    assert failed == {3: "RANK_DEFICIENT"} | ({5: "SEPARABLE_CLASSES"} if target == "good" else {})
    parameters, keys = fleet.parameters(), fleet.keys()
    statistics = {each.key: each for each in fleet.statistics()}
    assert list(statistics) == [key for key in keys if key not in failed]
    for key in (0, 17, 39):
        alone = train(client, table[table["store"] == key], target, fit).result()
        for name, array in alone.parameters().items():
            assert parameters[name][keys.index(key)].tobytes() == array.tobytes()
        assert str(statistics[key]).splitlines()[1:] == str(alone.statistics()).splitlines()[1:]
        assert str(fleet.member(key).statistics()) == str(statistics[key])


def test_a_fleets_statistics_are_one_table(client, table):
    fleet = train(client, table, "sales", epochd.LeastSquares(), group_by="store").result()
    frame = pd.DataFrame(fleet.statistics().to_table())
    assert list(frame.columns) == [
        "store", "output", "coefficient", "estimate", "standard_error", "statistic", "p_value",
    ]  # fmt: skip
    assert len(frame) == 39 * 3
    right = sm.OLS(
        table.query("store == 7")["sales"], sm.add_constant(table.query("store == 7")[FEATURES])
    ).fit()
    mine = frame[frame["store"] == 7].set_index("coefficient")
    np.testing.assert_allclose(mine.loc[FEATURES, "p_value"], right.pvalues[FEATURES], rtol=1e-8)
    assert "more members" in str(fleet.statistics())


def test_a_promoted_member_keeps_its_statistics(client, table):
    fleet = train(client, table, "sales", epochd.LeastSquares(), group_by="store").result()
    solo = fleet.promote(7, "solo-exact")
    assert str(solo.statistics()) == str(fleet.member(7).statistics()).removeprefix("7: ")


def test_a_failed_fit_says_why_and_what_helps(client, table):
    frame = table[FEATURES].assign(again=2 * table["price"], sales=table["sales"])
    how = {"target": "sales", "model": epochd.Linear()}
    with pytest.raises(epochd.TrainingFailed, match=r"rank is 3 of 4, the condition number") as failure:
        client.train(frame, fit=epochd.LeastSquares(), **how).result()
    assert failure.value.reason == "RANK_DEFICIENT"
    assert "minimum" in str(failure.value).lower()
    shortest = client.train(frame, fit=epochd.LeastSquares(rank="minimum_norm"), **how).result()
    weights = shortest.parameters()["linear.weight"][0]
    assert weights[2] == pytest.approx(2 * weights[0])
    with pytest.raises(epochd.TrainingFailed, match="classes are separable") as failure:
        train(client, table[table["store"] == 5], "good", epochd.Newton()).result()
    assert failure.value.reason == "SEPARABLE_CLASSES"


def test_lbfgs_fits_networks_and_logs_its_iterations(client, table):
    model = epochd.Sequential(epochd.Linear(8), "tanh", epochd.Linear())
    how = {"target": "sales", "features": FEATURES, "model": model, "seed": 1, "log_every": 1}
    run = client.train(table, fit=epochd.LBFGS(l2=1.0, max_iterations=40), **how)
    losses = [log.loss for log in run.logs()]
    assert losses[-1] < losses[0]
    assert run.result().epochs <= 40
    with pytest.raises(epochd.InvalidArgument, match=r"least_squares or newton; .* was not"):
        run.result().statistics()


def test_what_an_exact_fit_cannot_do_is_refused_by_field(client, table):
    def fields(**how):
        with pytest.raises(epochd.InvalidArgument) as refused:
            client.check(table, features=FEATURES, **how)
        return [violation.field for violation in refused.value.violations]

    linear, layers = epochd.Linear(), epochd.Sequential(epochd.Linear(4), "relu", epochd.Linear())
    assert fields(target="sales", model=linear, fit=epochd.Newton()) == ["newton"]
    assert fields(target="sales", model=layers, fit=epochd.LeastSquares()) == ["least_squares"]
    assert fields(target="sales", model=layers, fit="auto") == ["auto"]
    assert fields(target="sales", model=linear, fit=epochd.LeastSquares(l2=-1)) == ["least_squares.l2"]
    assert fields(target="sales", model=linear, loss="l1", fit="auto") == ["auto"]
    smooth = epochd.BCEWithLogits(class_weights="balanced", label_smoothing=0.1)
    assert fields(target="good", model=linear, loss=smooth, fit=epochd.Newton()) == ["newton"]
    assert fields(target="sales", model=linear, fit="auto", sweep={"lr": [0.1]}) == ["sweep"]
    assert fields(target="sales", model=linear) == ["fit"]
    assert fields(target="sales", model=linear, fit="auto", epochs=3) == ["fit"]


def test_where_newton_takes_too_much_it_is_refused_and_auto_takes_lbfgs(client):
    wide, labels = np.zeros((40, 2_000)), np.arange(40) % 20
    how = {"model": epochd.Linear(), "loss": "cross_entropy"}
    with pytest.raises(
        epochd.InvalidArgument, match=r"takes about 12,\S+ bytes and .*; use lbfgs"
    ) as refused:
        client.check(wide, labels, fit=epochd.Newton(l2=1.0), **how)
    assert [violation.field for violation in refused.value.violations] == ["newton"]
    assert client.check(wide, labels, fit="auto", **how).started.fit == "lbfgs (auto)"


def test_five_thousand_coefficients_of_sixty_rows_are_those_of_scikit_learn(client):
    random = np.random.default_rng(0)
    wide, target = random.standard_normal((60, 5_000)), random.standard_normal(60)
    shortest = epochd.LeastSquares(rank="minimum_norm")
    model = client.train(wide, target, model=epochd.Linear(), fit=shortest).result()
    right = LinearRegression().fit(wide, target)
    np.testing.assert_allclose(model.parameters()["linear.weight"][0], right.coef_, rtol=1e-8, atol=1e-12)


def test_an_exact_fit_is_measured_on_held_out_rows(client, table):
    model = train(client, table, "sales", epochd.LeastSquares(), validation=0.25, seed=1).result()
    assert model.evaluation is not None
    assert model.evaluation.rows == 600
    assert 0.5 < model.evaluation.loss < 2.0


def test_the_asyncio_client_does_the_same(server, table):
    async def both() -> tuple[str, str]:
        async with epochd.aio.connect(server.address) as client:
            how = {"target": "sales", "features": FEATURES, "model": epochd.Linear(), "fit": "auto"}
            fleet = await (await client.train(table, group_by="store", **how)).result()
            member = await fleet.member(1)
            return str((await fleet.statistics())[1]), str(await member.statistics())

    one, other = asyncio.run(both())
    assert one == other
