"""Tables of many groups, and the fleets that the benchmarks train on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import epochd
from benchmarks import loops

ROWS, FEATURES, EPOCHS = 32, 8, 200
NAMES = [f"x{index}" for index in range(FEATURES)]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of member.

    Attributes:
        name: For the table.
        target: ``number``, ``binary`` or ``class`` (three of them).
        arguments: What ``client.train`` is given.
        aim: The speed-up aimed at against the plain loop.
    """

    name: str
    target: str
    arguments: dict[str, Any]
    aim: int


SGD = {"model": epochd.Linear(), "optimizer": epochd.SGD(lr=0.05), "epochs": EPOCHS}
LINEAR = Kind("linear", "number", {**SGD, "loss": "mse"}, 1000)
LOGISTIC = Kind("logistic", "binary", {**SGD, "loss": "bce_with_logits"}, 300)
SOFTMAX = Kind("softmax(3)", "class", {**SGD, "loss": "cross_entropy"}, 300)
MLP = Kind(
    "MLP 8-16-1, Adam, batch 16",
    "number",
    {
        "model": epochd.Sequential(epochd.Linear(16), "relu", epochd.Linear(1)),
        "optimizer": epochd.Adam(lr=1e-2),
        "loss": "mse",
        "epochs": EPOCHS,
        "batch_size": 16,
    },
    100,
)


def table(kind: Kind, members: int, seed: int) -> pd.DataFrame:
    """``members`` stores of 32 rows and 8 features each; every seed makes new bytes, so no upload is remembered."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((members * ROWS, FEATURES))
    score = (x * random.standard_normal(FEATURES)).sum(1) + 0.1 * random.standard_normal(len(x))
    frame = pd.DataFrame(x, columns=NAMES)
    frame["store"] = np.repeat(np.arange(members), ROWS)
    if kind.target == "binary":
        # Each store has both classes: the sign of the score above the store's own median.
        frame["y"] = (score > np.repeat(np.median(score.reshape(members, ROWS), 1), ROWS)).astype(np.int64)
    elif kind.target == "class":
        frame["y"] = np.argsort(np.argsort(score.reshape(members, ROWS), 1), 1).ravel() * 3 // ROWS
    else:
        frame["y"] = score
    return frame


def train(client: epochd.Client, kind: Kind, frame: pd.DataFrame) -> Any:
    """Trains a fleet from the DataFrame to its result."""
    return client.train(frame, target="y", group_by="store", seed=0, name="fleet", **kind.arguments).result()


def plain_loop(kind: Kind, frame: pd.DataFrame, members: int) -> None:
    """Trains the first members one after another as a PyTorch user writes it."""
    x = torch.tensor(frame[NAMES].to_numpy(np.float32)[: members * ROWS]).reshape(members, ROWS, FEATURES)
    target_type = np.int64 if kind.target == "class" else np.float32
    y = torch.tensor(frame["y"].to_numpy()[: members * ROWS].astype(target_type)).reshape(members, ROWS)
    for member in range(members):
        torch.manual_seed(0)
        plain_member(kind, x[member], y[member])


def plain_member(kind: Kind, x: torch.Tensor, y: torch.Tensor) -> None:
    """One member's loop."""
    if kind is MLP:
        loops.batches(x, y[:, None], loops.mlp(FEATURES, 16, 1), lr=1e-2, batch=16, epochs=EPOCHS)
    elif kind.target == "class":
        loops.full_batch(x, y, nn.Linear(FEATURES, 3), nn.CrossEntropyLoss(), lr=0.05, epochs=EPOCHS)
    else:
        loss = nn.BCEWithLogitsLoss() if kind.target == "binary" else nn.MSELoss()
        loops.full_batch(x, y[:, None], nn.Linear(FEATURES, 1), loss, lr=0.05, epochs=EPOCHS)
