"""The classic first training: y = 2x from three points, W and b from zero, the cost every 100 epochs.

python examples/tutorial_three_points.py [HOST:PORT]     (or EPOCHD_SERVER; 127.0.0.1:50051 without either)
"""

from __future__ import annotations

import os
import sys

import epochd

EPOCHS = 2000
X = [[1.0], [2.0], [3.0]]
Y = [[2.0], [4.0], [6.0]]


def main(server: str) -> None:
    with epochd.connect(server) as client:
        run = client.train(
            X,
            Y,
            model=epochd.Linear(init="zeros"),
            loss="mse",
            optimizer=epochd.SGD(lr=0.01),
            epochs=EPOCHS,
            log_every=100,
            log_parameters=True,
            name="three-points",
        )
        for log in run.logs():
            if log.epoch % 100 == 0:  # the last epoch is always logged, too
                w, b = log.parameters["linear.weight"].item(), log.parameters["linear.bias"].item()
                print(f"Epoch {log.epoch:4d}/{EPOCHS - 1} W: {w:.3f}, b: {b:.3f} Cost: {log.loss:.6f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EPOCHD_SERVER", "127.0.0.1:50051"))
