"""A training as asked for, made into a request: the one place that knows the arguments of ``train``."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from epochd._core.data import Rows, gather
from epochd._core.resources import version_name
from epochd._core.uploading import Upload
from epochd._core.validating import plan_validation
from epochd._wire.fits import encode_fit
from epochd._wire.gradients import GradientRules, add_rules, encode_optimizer
from epochd._wire.keys import encode_key
from epochd._wire.limits import encode_limits
from epochd._wire.losses import encode_loss
from epochd._wire.preprocessing import encode_preprocess
from epochd._wire.specs import encode_model, encode_sweep
from epochd._wire.tensors import data_type
from epochd.errors import invalid
from epochd.fits import Fit
from epochd.keys import KeyLike
from epochd.limits import Limits
from epochd.losses import Loss, resolve
from epochd.optimizers import Optimizer
from epochd.preprocessing import Preprocess
from epochd.preprocessing import resolve as resolve_preprocess
from epochd.schedules import LinearLR, Schedule
from epochd.specs import ModelSpec
from epochd.sweeps import Sweep
from epochd.sweeps import resolve as resolve_sweep
from epochd.v1 import spec_pb2, trainer_pb2
from epochd.validation import EarlyStopping, HoldOut
from epochd.values import Dataset


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A request, and what has to be uploaded before it."""

    request: trainer_pb2.TrainRequest
    upload: Upload | None
    progress: bool
    validation_upload: Upload | None = None


def plan_training(
    X: Any | Dataset | Path,  # noqa: N803 - as everywhere in this field
    y: Any = None,
    *,
    model: ModelSpec,
    optimizer: Optimizer | None = None,
    epochs: int | None = None,
    fit: Fit | Literal["auto"] | None = None,
    loss: str | Loss = "mse",
    target: str | Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    preprocess: Preprocess | Mapping[Any, Any] | Literal["auto"] | None = None,
    group_by: Any = None,
    weight: Any = None,
    sweep: Sweep | Mapping[str, Any] | None = None,
    validation: Any = None,
    metrics: str | Sequence[str] = (),
    early_stopping: EarlyStopping | int | None = None,
    batch_size: int | None = None,
    shuffle: bool = True,
    accumulation_steps: int = 1,
    schedule: Schedule | None = None,
    warmup: LinearLR | None = None,
    max_norm: float | None = None,
    clip_value: float | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
    log_every: int | None = None,
    log_parameters: bool = False,
    log_members: Sequence[KeyLike] = (),
    seed: int | None = None,
    dtype: Literal["float32", "float64"] | None = None,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    initial: Any = None,
    limits: Limits | None = None,
    request_id: str | None = None,
    progress: bool = False,
) -> TrainingPlan:
    """Args:
    X: Features as an array [rows, features] (NumPy, torch, lists …), or a table with named columns (a dict,
        a pandas or polars frame, an Arrow table, a :class:`Dataset`, the path of a CSV, Parquet or Arrow file).
        What does not fit a message is uploaded first, once.
    y: Targets as an array [rows] or [rows, targets]; not with ``target``.
    model: What is trained: a Linear, Sequential or Module.
    optimizer: An SGD, Adam, AdamW or RMSprop, together with ``epochs``; or ``fit`` instead of both.
    epochs: Passes over the data.
    fit: Goes to the optimum itself: a LeastSquares, Newton or LBFGS, or ``"auto"`` for what suits model and loss.
    loss: What is minimised: a name such as ``"mse"``, or one of ``epochd.losses``.
    target: The column, or columns, of a table to predict.
    features: The columns of a table to learn from; None: all the others.
    preprocess: How columns become features: ``"auto"``, a :class:`Preprocess`, or a dict of steps by column such as
        ``{"age": "standardize", "city": OneHot(unseen="other")}``. Fitted on the training rows only and kept in the
        model, which then predicts rows as they are, with texts, timestamps and holes. None: columns are numbers.
    group_by: The column, or columns, of a table whose values say which member a row belongs to: one model is
        trained for each key, and the result is a :class:`Fleet`. With arrays the keys themselves, one a row (a
        dict of several), under the name of the Series that they are, else ``group``. Texts or integers.
    weight: The column of a table with the rows' weights, each >= 0; or the weights themselves, one a row.
    sweep: Hyperparameters of which every combination is trained: ``{"lr": [0.1, 0.01], "seed": [1, 2, 3]}``,
        also ``weight_decay`` and ``momentum``. The result is a :class:`Fleet` with their names as key columns.
        With ``"folds": 5`` each combination is trained five times, without a fifth of the rows, and measured on it.
    validation: What is held out: a fraction of the rows such as ``0.2``, a :class:`HoldOut`, or rows of their own,
        as ``(X, y)`` or a table with the training's columns.
    metrics: What is measured on the held-out rows beside the loss, such as ``["accuracy", "roc_auc"]``; the names
        are in ``epochd.METRICS``.
    early_stopping: Ends the training when the held-out rows tell of no more progress: an :class:`EarlyStopping`,
        or its patience.
    batch_size: Rows in a mini-batch; None: all of them.
    shuffle: Whether mini-batches are drawn from a fresh permutation each epoch.
    accumulation_steps: Mini-batches whose gradients are averaged before one update.
    schedule: How the learning rate changes from epoch to epoch: a StepLR, ExponentialLR, CosineAnnealingLR, LinearLR
        or ReduceLROnPlateau, with PyTorch's meaning.
    warmup: A LinearLR that goes before the schedule for its ``total_iters`` epochs.
    max_norm: Gradients are scaled down to this 2-norm, as by ``clip_grad_norm_``; None: not at all.
    clip_value: Entries of gradients are kept within ± this, as by ``clip_grad_value_``; None: not at all.
    l1: Adds l1 · Σ|w| over all weights, but no biases, to the loss; they become exactly 0 (proximal steps).
    l2: Adds l2 / 2 · Σw² over all weights, but no biases, to the loss (proximal steps).
    log_every: Epochs 0, log_every, 2 log_every … are logged; None: about a hundred of them.
    log_parameters: Whether logs hold the parameters after their epoch's update.
    log_members: Fleets: keys of at most 100 members whose epochs are logged, too; a fleet reports its progress.
    seed: Of initialisation and shuffling; None: the server draws one and reports it.
    dtype: Of parameters and arithmetic; None: float32, and float64 with ``fit``, which always computes in it.
    name: Of the model that gets a new version, such as ``"house-price"``; None: named after the run.
    labels: Short texts by name, put on the run and its version, such as ``{"team": "pricing"}``.
    initial: A version to begin with, by name or as a :class:`Model`: training goes on from its parameters. It must
        have the same model; a fleet takes each member's by its key, and new members start afresh.
    limits: When the server cancels the run by itself: a deadline, or a time in training.
    request_id: A second training with the same id attaches to the first one's run; None: a fresh one, so
        that retries never train twice.
    progress: Whether to show a live bar, and so to wait for the end.
    """  # noqa: D205 - the methods that take these arguments put their summary before it
    columns = {"target": target, "features": features, "group_by": group_by, "weight": weight}
    rules = GradientRules(
        schedule=schedule, warmup=warmup, max_norm=max_norm, clip_value=clip_value, l1=l1, l2=l2
    )
    how = _how(fit, optimizer, epochs, batch_size, shuffle, accumulation_steps, rules)
    exact = fit is not None
    dtype = dtype or ("float64" if exact else "float32")
    steps = resolve_preprocess(preprocess)
    sent = "float64" if exact or steps is not None else dtype
    split = (validation.time or validation.group or "") if isinstance(validation, HoldOut) else ""
    rows = gather(X, y, **columns, split=split, dtype=sent)
    swept = resolve_sweep(sweep)
    keys = rows.group_columns if swept is None else swept.names
    held_out = plan_validation(
        validation,
        metrics,
        early_stopping,
        columns,
        room=rows.room_left,
        dtype=sent,
        folds=swept is not None and swept.folds is not None,
    )
    request = trainer_pb2.TrainRequest(
        request_id=request_id or uuid.uuid4().hex,
        labels=labels,
        initial_version="" if initial is None else version_name(getattr(initial, "resource_name", initial)),
        model_name=name or "",
        data=_data(rows),
        model=encode_model(model),
        loss=encode_loss(resolve(loss)),
        **how,
        dtype=data_type(dtype),
        seed=seed,
        logging=spec_pb2.Logging(
            every=log_every,
            parameters=log_parameters,
            members=[encode_key(key, keys, "logging.members") for key in log_members],
        ),
        sweep=None if swept is None else encode_sweep(swept),
        validation=held_out.message,
        preprocess=None if steps is None else encode_preprocess(steps),
        limits=encode_limits(limits),
    )
    return TrainingPlan(request, rows.upload, progress, held_out.upload)


def _how(
    fit: Fit | str | None,
    optimizer: Optimizer | None,
    epochs: int | None,
    batch_size: int | None,
    shuffle: bool,
    accumulation_steps: int,
    rules: GradientRules,
) -> dict[str, Any]:
    """The field of a TrainRequest that says how the model is fitted."""
    if fit is not None:
        if optimizer is not None or epochs is not None or batch_size is not None:
            raise invalid("fit", "goes to the optimum itself: it takes no optimizer, epochs or batch_size")
        if rules.given:
            raise invalid(
                "fit", "goes to the optimum itself: it takes no schedule and no clipping; give l2 to the fit"
            )
        return encode_fit(fit)
    if optimizer is None or epochs is None:
        raise invalid("fit", "give optimizer and epochs, or a fit such as fit='auto'")
    gradient = spec_pb2.GradientFit(
        optimizer=encode_optimizer(optimizer),
        epochs=epochs,
        batch_size=batch_size,
        shuffle=shuffle,
        accumulation_steps=accumulation_steps,
    )
    add_rules(gradient, rules)
    return {"gradient": gradient}


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
