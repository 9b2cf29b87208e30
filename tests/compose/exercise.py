"""Trains and predicts through a running compose stack: ``exercise.py HOST:PORT train|after-restart``."""

from __future__ import annotations

import sys

import numpy as np

import epochd

X = [[1.0], [2.0], [3.0]]
Y = [[2.0], [4.0], [6.0]]


def train(client: epochd.Client) -> None:
    """Trains the tutorial set and checks the last line that plain PyTorch prints."""
    run = client.train(
        X,
        Y,
        model=epochd.Linear(init="zeros"),
        loss="mse",
        optimizer=epochd.SGD(lr=0.01),
        epochs=2000,
        log_every=100,
        log_parameters=True,
        name="compose",
    )
    log = next(log for log in run.logs() if log.epoch == 1900)
    assert f"{log.parameters['linear.weight'].item():.3f}" == "1.997", log
    assert f"{log.loss:.6f}" == "0.000008", log


def predict(client: epochd.Client) -> None:
    """Predicts with what was trained."""
    prediction = client.model("compose").predict([[4.0]])
    np.testing.assert_allclose(prediction, 7.9949, atol=5e-3)


def main(address: str, stage: str) -> None:
    """Runs one stage against the server at ``address``."""
    with epochd.connect(address, timeout=60, wait=180) as client:
        if stage == "train":
            train(client)
        predict(client)
    print(f"  {stage}: ok")


if __name__ == "__main__":
    main(*sys.argv[1:])
