"""Exact fits, from a DataFrame (or an uploaded dataset) to the result, against scikit-learn in process."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import joblib
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression, LogisticRegression

import epochd
from benchmarks import fleets
from benchmarks.fleets import LINEAR, LOGISTIC, NAMES
from benchmarks.harness import Row, paired, server, timed

MEMBERS, SAMPLE, REPEATS = 10_000, 1_000, 3
ROWS, FEATURES = 1_000_000, 20


def measure() -> list[Row]:
    """Fleets of small fits, then one large one."""
    with server(workers=2) as address, epochd.connect(address, timeout=300) as client:
        return [*_least_squares(client), _logistic(client), _large(client)]


def _least_squares(client: epochd.Client) -> list[Row]:
    ours, loops, joined = [], [], []
    for repeat in range(REPEATS + 1):
        frame = fleets.table(LINEAR, MEMBERS, seed=repeat)
        ours.append(timed(lambda frame=frame: _fleet(client, frame, loss="mse", fit=epochd.LeastSquares())))
        loops.append(timed(lambda frame=frame: _loop(frame, LinearRegression)) * MEMBERS / SAMPLE)
        joined.append(timed(lambda frame=frame: _joblib(frame)) * MEMBERS / (2 * SAMPLE))
    mine, loop, both = (statistics.median(column[1:]) for column in (ours, loops, joined))
    work = "10,000 least-squares fits 32 × 8 by group, DataFrame to result"
    against = f"scikit-learn LinearRegression in a loop ({SAMPLE:,} groups measured, scaled)"
    return [
        Row(work=work, ours=mine, against=against, theirs=loop, aim="≥ 30 ×", better="more"),
        Row(work=work, ours=mine, against="the same by joblib × 2", theirs=both, aim="≥ 15 ×", better="more"),
    ]


def _logistic(client: epochd.Client) -> Row:
    ours, loops = [], []
    for repeat in range(REPEATS + 1):
        frame = fleets.table(LOGISTIC, MEMBERS, seed=repeat)
        how = {"loss": "bce_with_logits", "fit": epochd.Newton(l2=1.0)}
        ours.append(timed(lambda frame=frame, how=how: _fleet(client, frame, **how)))
        loops.append(timed(lambda frame=frame: _loop(frame, LogisticRegression)) * MEMBERS / SAMPLE)
    return Row(
        work="10,000 logistic fits 32 × 8 by group, l2 = 1, DataFrame to result",
        ours=statistics.median(ours[1:]),
        against=f"scikit-learn LogisticRegression in a loop ({SAMPLE:,} groups measured, scaled)",
        theirs=statistics.median(loops[1:]),
        aim="≥ 50 ×",
        better="more",
    )


def _large(client: epochd.Client) -> Row:
    random = np.random.default_rng(0)
    x = random.standard_normal((ROWS, FEATURES))
    y = x @ random.standard_normal(FEATURES) + random.standard_normal(ROWS)
    frame = pd.DataFrame(x, columns=[f"x{index}" for index in range(FEATURES)]).assign(y=y)
    dataset = client.upload(frame)

    def fit() -> None:
        client.train(dataset, target="y", model=epochd.Linear(), fit=epochd.LeastSquares()).result()

    ours, theirs, spread = paired(fit, lambda: LinearRegression().fit(x, y), REPEATS)
    return Row(
        work="least squares 1,000,000 × 20, one model, uploaded dataset to result",
        ours=ours,
        against="scikit-learn LinearRegression in process, fit only",
        theirs=theirs,
        aim="≤ 1.2",
        spread=spread,
    )


def _fleet(client: epochd.Client, frame: pd.DataFrame, **how: object) -> object:
    run = client.train(frame, target="y", group_by="store", model=epochd.Linear(), name="fleet", **how)
    return run.result()


def _loop(frame: pd.DataFrame, estimator: Callable[[], LinearRegression | LogisticRegression]) -> None:
    """Fits the first groups of a DataFrame as a scikit-learn user writes it."""
    {store: estimator().fit(group[NAMES], group["y"]) for store, group in _sample(frame).groupby("store")}


def _joblib(frame: pd.DataFrame) -> None:
    chunk, part = joblib.delayed(_loop), _sample(frame)
    joblib.Parallel(n_jobs=2)(chunk(part, LinearRegression) for _ in range(2))


def _sample(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[: SAMPLE * fleets.ROWS]
