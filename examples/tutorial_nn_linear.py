"""The same three points with nn.Linear(1, 1) as PyTorch initialises it under torch.manual_seed(1).

python examples/tutorial_nn_linear.py [HOST:PORT]     (or EPOCHD_SERVER; 127.0.0.1:50051 without either)
"""

from __future__ import annotations

import os
import sys

import epochd

EPOCHS = 2001
X = [[1.0], [2.0], [3.0]]
Y = [[2.0], [4.0], [6.0]]


def main(server: str) -> None:
    with epochd.connect(server) as client:
        run = client.train(
            X,
            Y,
            model=epochd.Linear(),
            loss="mse",
            optimizer=epochd.SGD(lr=0.01),
            epochs=EPOCHS,
            log_every=100,
            seed=1,
            name="nn-linear",
        )
        for log in run.logs():
            print(f"Epoch {log.epoch:4d}/{EPOCHS - 1} Cost: {log.loss:.6f}")
        model = run.result()
        for name, value in model.parameters().items():
            print(f"{name}: {value.item():.5f}")
        print(f"4 → {model.predict([[4.0]]).item():.4f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EPOCHD_SERVER", "127.0.0.1:50051"))
