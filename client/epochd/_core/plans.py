"""A training as asked for, made into a request: the one place that knows the arguments of ``train``."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from epochd._core.data import Rows, gather
from epochd._core.uploading import Upload
from epochd._wire.keys import encode_key
from epochd._wire.specs import encode_loss, encode_model, encode_optimizer, encode_sweep
from epochd._wire.tensors import data_type
from epochd.keys import KeyLike
from epochd.losses import Loss, resolve
from epochd.optimizers import Optimizer
from epochd.specs import ModelSpec
from epochd.sweeps import Sweep
from epochd.sweeps import resolve as resolve_sweep
from epochd.v1 import spec_pb2, trainer_pb2
from epochd.values import Dataset


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A request, and what has to be uploaded before it."""

    request: trainer_pb2.TrainRequest
    upload: Upload | None
    progress: bool


def plan_training(
    X: Any | Dataset | Path,  # noqa: N803 - as everywhere in this field
    y: Any = None,
    *,
    model: ModelSpec,
    optimizer: Optimizer,
    epochs: int,
    loss: str | Loss = "mse",
    target: str | Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    group_by: Any = None,
    weight: Any = None,
    sweep: Sweep | Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    shuffle: bool = True,
    accumulation_steps: int = 1,
    log_every: int | None = None,
    log_parameters: bool = False,
    log_members: Sequence[KeyLike] = (),
    seed: int | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    name: str | None = None,
    request_id: str | None = None,
    progress: bool = False,
) -> TrainingPlan:
    """Args:
    X: Features as an array [rows, features] (NumPy, torch, lists …), or a table with named columns (a dict,
        a pandas or polars frame, an Arrow table, a :class:`Dataset`, the path of a CSV, Parquet or Arrow file).
        What does not fit a message is uploaded first, once.
    y: Targets as an array [rows] or [rows, targets]; not with ``target``.
    model: What is trained: a Linear, Sequential or Module.
    optimizer: An SGD, Adam or AdamW.
    epochs: Passes over the data.
    loss: What is minimised: a name such as ``"mse"``, or one of ``epochd.losses``.
    target: The column, or columns, of a table to predict.
    features: The columns of a table to learn from; None: all the others.
    group_by: The column, or columns, of a table whose values say which member a row belongs to: one model is
        trained for each key, and the result is a :class:`Fleet`. With arrays the keys themselves, one a row (a
        dict of several), under the name of the Series that they are, else ``group``. Texts or integers.
    weight: The column of a table with the rows' weights, each >= 0; or the weights themselves, one a row.
    sweep: Hyperparameters of which every combination is trained: ``{"lr": [0.1, 0.01], "seed": [1, 2, 3]}``,
        also ``weight_decay`` and ``momentum``. The result is a :class:`Fleet` with their names as key columns.
    batch_size: Rows in a mini-batch; None: all of them.
    shuffle: Whether mini-batches are drawn from a fresh permutation each epoch.
    accumulation_steps: Mini-batches whose gradients are averaged before one update.
    log_every: Epochs 0, log_every, 2 log_every … are logged; None: about a hundred of them.
    log_parameters: Whether logs hold the parameters after their epoch's update.
    log_members: Fleets: keys of at most 100 members whose epochs are logged, too; a fleet reports its progress.
    seed: Of initialisation and shuffling; None: the server draws one and reports it.
    dtype: Of parameters and arithmetic.
    name: Of the model that gets a new version, such as ``"house-price"``; None: named after the run.
    request_id: A second training with the same id attaches to the first one's run; None: a fresh one, so
        that retries never train twice.
    progress: Whether to show a live bar, and so to wait for the end.
    """  # noqa: D205 - the methods that take these arguments put their summary before it
    columns = {"target": target, "features": features, "group_by": group_by, "weight": weight}
    rows = gather(X, y, **columns, dtype=dtype)
    swept = resolve_sweep(sweep)
    keys = rows.group_columns if swept is None else swept.names
    gradient = spec_pb2.GradientFit(
        optimizer=encode_optimizer(optimizer),
        epochs=epochs,
        batch_size=batch_size,
        shuffle=shuffle,
        accumulation_steps=accumulation_steps,
    )
    request = trainer_pb2.TrainRequest(
        request_id=request_id or uuid.uuid4().hex,
        model_name=name or "",
        data=_data(rows),
        model=encode_model(model),
        loss=encode_loss(resolve(loss)),
        gradient=gradient,
        dtype=data_type(dtype),
        seed=seed,
        logging=spec_pb2.Logging(
            every=log_every,
            parameters=log_parameters,
            members=[encode_key(key, keys, "logging.members") for key in log_members],
        ),
        sweep=None if swept is None else encode_sweep(swept),
    )
    return TrainingPlan(request, rows.upload, progress)


def _data(rows: Rows) -> spec_pb2.TrainingData:
    return spec_pb2.TrainingData(
        table=rows.table,
        tensors=rows.tensors,
        feature_columns=rows.feature_columns,
        target_columns=rows.target_columns,
        group_columns=rows.group_columns,
        weight_column=rows.weight_column,
        **({} if rows.dataset is None else {"dataset": rows.dataset}),
    )
