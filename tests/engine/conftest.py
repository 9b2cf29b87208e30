"""What the engine's tests share: tasks made in a line, an observer that remembers, PyTorch's own loop as the oracle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from epochd_server.domain.schedules import ReduceLROnPlateau
from epochd_server.domain.specs import (
    ActivationLayer,
    DropoutLayer,
    Init,
    LinearLayer,
    LinearModel,
    Loss,
    LossKind,
    OptimizerKind,
    Precision,
    SequentialModel,
)
from epochd_server.domain.validation import EarlyStopping
from epochd_server.engine.cohort import (
    CohortData,
    CohortResult,
    CohortTask,
    EndBatch,
    Hyperparameters,
    LogBatch,
    ProgressBatch,
    train_cohort,
)
from epochd_server.engine.shuffling import derived_seed, epoch_permutation

HYPERPARAMETERS = {
    "lr": 0.01,
    "weight_decay": 0.0,
    "momentum": 0.0,
    "dampening": 0.0,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "alpha": 0.99,
    "l1": 0.0,
    "l2": 0.0,
}


class Recorder:
    """An observer that keeps everything; ``stop_when`` decides who shall stop from what was logged so far."""

    def __init__(self, stop_when: Callable[[Recorder], Collection[int]] | None = None) -> None:
        self.batches: list[LogBatch] = []
        self.ends: list[EndBatch] = []
        self.places: list[ProgressBatch] = []
        self._stop_when = stop_when

    def logs(self, batch: LogBatch) -> None:
        self.batches.append(batch)

    def ended(self, batch: EndBatch) -> None:
        self.ends.append(batch)

    def progress(self, batch: ProgressBatch) -> None:
        self.places.append(batch)

    def stopped_members(self) -> Collection[int]:
        return self._stop_when(self) if self._stop_when else ()

    def points(self, member: int) -> list[tuple[int, float, dict[str, Any] | None]]:
        """(epoch, loss, parameters) of every log point of a member."""
        return [
            (int(batch.epochs[i]), float(batch.losses[i]), batch.parameters[i] if batch.parameters else None)
            for batch in self.batches
            for i in np.flatnonzero(batch.members == member)
        ]


def hyperparameters(
    members: int, nesterov: bool = False, centered: bool = False, **values: Any
) -> Hyperparameters:
    columns = {
        name: np.broadcast_to(np.asarray(values.pop(name, default), np.float64), (members,)).copy()
        for name, default in HYPERPARAMETERS.items()
    }
    assert not values, values
    return Hyperparameters(nesterov=nesterov, centered=centered, **columns)


def make_task(
    features: Any,
    targets: Any,
    *,
    model: Any = None,
    sizes: Any = None,
    loss: LossKind | Loss = LossKind.MSE,
    optimizer: OptimizerKind = OptimizerKind.SGD,
    epochs: Any = 10,
    seeds: Any = 0,
    log_every: Any = 1,
    log_parameters: Any = False,
    precision: Precision = Precision.FLOAT32,
    init: Init = Init.DEFAULT,
    batch_size: int | None = None,
    shuffle: bool = True,
    accumulation_steps: int = 1,
    weights: Any = None,
    shared_members: int | None = None,
    initial: Mapping[str, Any] | None = None,
    held_out: Any = None,
    metrics: Any = (),
    early_stopping: EarlyStopping | None = None,
    schedule: Any = None,
    warmup: Any = None,
    clipping: Any = None,
    **optimizer_values: Any,
) -> CohortTask:
    """A task from concatenated rows and the row counts of its members (``sizes``; one member by default).

    ``held_out`` are features, targets, sizes and maybe weights of the validation.
    """
    dtype = np.float32 if precision is Precision.FLOAT32 else np.float64
    loss = loss if isinstance(loss, Loss) else Loss(kind=loss)
    data = _cohort_data(loss, dtype, features, targets, sizes, weights)
    features, targets = data.features, data.targets
    members = shared_members or len(data.offsets) - 1

    def column(value: Any, kind: Any) -> Any:
        return np.broadcast_to(np.asarray(value, kind), (members,)).copy()

    outputs = 1 if targets.ndim == 1 else targets.shape[1]
    return CohortTask(
        model=model or LinearModel(in_features=features.shape[1], out_features=outputs),
        loss=loss,
        optimizer_kind=optimizer,
        batch_size=batch_size,
        shuffle=shuffle,
        accumulation_steps=accumulation_steps,
        init=init,
        precision=precision,
        data=data,
        shared_data=shared_members is not None,
        epochs=column(epochs, np.int64),
        seeds=column(seeds, np.int64),
        hyperparameters=hyperparameters(members, **optimizer_values),
        log_every=column(log_every, np.int64),
        log_parameters=column(log_parameters, np.bool_),
        initial=initial,
        validation=None if held_out is None else _cohort_data(loss, dtype, *held_out),
        metrics=tuple(metrics),
        early_stopping=early_stopping,
        schedule=schedule,
        warmup=warmup,
        clipping=clipping,
    )


def _cohort_data(
    loss: Loss, dtype: Any, features: Any, targets: Any, sizes: Any = None, weights: Any = None
) -> CohortData:
    targets = np.asarray(targets)
    return CohortData(
        features=np.asarray(features, dtype),
        targets=targets.astype(np.int64 if loss.kind is LossKind.CROSS_ENTROPY else dtype),
        offsets=np.concatenate([[0], np.cumsum([len(targets)] if sizes is None else sizes)]).astype(np.int64),
        weights=None if weights is None else np.asarray(weights, dtype),
    )


def run(task: CohortTask, **recorder: Any) -> tuple[CohortResult, Recorder]:
    observer = Recorder(**recorder)
    return train_cohort(task, observer), observer


def mlp(*widths: int, activation: str = "relu", **arguments: float) -> SequentialModel:
    """Linear layers of these widths with an activation between them."""
    layers: list[Any] = []
    for i in range(len(widths) - 1):
        if i:
            layers.append(ActivationLayer(function=activation, parameters=arguments))
        layers.append(LinearLayer(in_features=widths[i], out_features=widths[i + 1]))
    return SequentialModel(layers=tuple(layers))


def torch_loss(loss: Loss) -> nn.Module:
    return {
        LossKind.MSE: nn.MSELoss,
        LossKind.L1: nn.L1Loss,
        LossKind.HUBER: lambda: nn.HuberLoss(delta=loss.delta),
        LossKind.BCE_WITH_LOGITS: nn.BCEWithLogitsLoss,
        LossKind.CROSS_ENTROPY: lambda: nn.CrossEntropyLoss(label_smoothing=loss.label_smoothing),
        LossKind.POISSON_NLL: lambda: nn.PoissonNLLLoss(log_input=loss.log_input),
        LossKind.QUANTILE: lambda: _Pinball(loss.quantile),
        LossKind.GAUSSIAN_NLL: _GaussianLoss,
    }[loss.kind]()


class _Pinball(nn.Module):
    def __init__(self, quantile: float) -> None:
        super().__init__()
        self.quantile = quantile

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        below = targets - outputs
        return torch.maximum(self.quantile * below, (self.quantile - 1) * below).mean()


class _GaussianLoss(nn.Module):
    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        means, logarithms = outputs.chunk(2, 1)
        return nn.functional.gaussian_nll_loss(means, targets, logarithms.exp())


def torch_schedule(task: CohortTask, optimizer: Any) -> Any:
    """The scheduler of torch.optim.lr_scheduler that a task's schedule and warm-up name; None where it has none."""
    schedulers = torch.optim.lr_scheduler

    def make(schedule: Any) -> Any:
        arguments = {field.name: getattr(schedule, field.name) for field in dataclasses.fields(schedule)}
        if "t_max" in arguments:
            arguments["T_max"] = arguments.pop("t_max")
        if "threshold_mode" in arguments:
            arguments["threshold_mode"] = arguments["threshold_mode"].value
        return getattr(schedulers, type(schedule).__name__)(optimizer, **arguments)

    if task.warmup is None:
        return None if task.schedule is None else make(task.schedule)
    after = make(task.schedule) if task.schedule else schedulers.ConstantLR(optimizer, factor=1.0)
    return schedulers.SequentialLR(optimizer, [make(task.warmup), after], [task.warmup.total_iters])


def torch_optimizer(task: CohortTask, parameters: Any, member: int = 0) -> torch.optim.Optimizer:
    values = task.hyperparameters
    lr, decay = float(values.lr[member]), float(values.weight_decay[member])
    if task.optimizer_kind is OptimizerKind.SGD:
        momentum, dampening = float(values.momentum[member]), float(values.dampening[member])
        return torch.optim.SGD(
            parameters,
            lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=decay,
            nesterov=values.nesterov,
        )
    if task.optimizer_kind is OptimizerKind.RMSPROP:
        return torch.optim.RMSprop(
            parameters,
            lr,
            alpha=float(values.alpha[member]),
            eps=float(values.eps[member]),
            weight_decay=decay,
            momentum=float(values.momentum[member]),
            centered=values.centered,
        )
    kind = torch.optim.Adam if task.optimizer_kind is OptimizerKind.ADAM else torch.optim.AdamW
    betas = (float(values.beta1[member]), float(values.beta2[member]))
    return kind(parameters, lr, betas=betas, eps=float(values.eps[member]), weight_decay=decay)


def torch_module(task: CohortTask, member: int = 0) -> nn.Module:
    """The member's network as a user of PyTorch would write it, under the member's seed."""
    dtype = torch.float32 if task.precision is Precision.FLOAT32 else torch.float64
    torch.manual_seed(int(task.seeds[member]))
    if isinstance(task.model, LinearModel):
        module = nn.Module()
        module.linear = nn.Linear(
            task.model.in_features, task.model.out_features, task.model.bias, dtype=dtype
        )
        module.forward = module.linear.forward
    else:
        module = nn.Sequential(*(_torch_layer(layer, dtype) for layer in task.model.layers))
    if task.init is Init.ZEROS:
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
    return module


def _torch_layer(layer: Any, dtype: torch.dtype) -> nn.Module:
    if isinstance(layer, LinearLayer):
        return nn.Linear(layer.in_features, layer.out_features, layer.bias, dtype=dtype)
    if isinstance(layer, DropoutLayer):
        return nn.Dropout(layer.p)
    names = {
        "relu": nn.ReLU, "relu6": nn.ReLU6, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "selu": nn.SELU,
        "celu": nn.CELU, "gelu": nn.GELU, "silu": nn.SiLU, "mish": nn.Mish, "softplus": nn.Softplus,
        "softsign": nn.Softsign, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "log_sigmoid": nn.LogSigmoid,
        "hardtanh": nn.Hardtanh, "hardsigmoid": nn.Hardsigmoid, "hardswish": nn.Hardswish, "tanhshrink": nn.Tanhshrink,
        "identity": nn.Identity,
    }  # fmt: skip
    extra = {"approximate": layer.approximate} if layer.function == "gelu" else {}
    return names[layer.function](**dict(layer.parameters), **extra)


def plain_loop(
    task: CohortTask, member: int = 0, module: nn.Module | None = None
) -> tuple[dict[str, Any], list[float]]:
    """The loop everybody writes: parameters by name and each epoch's loss, for one member."""
    data = task.data
    begin, end = (0, len(data.features)) if task.shared_data else data.offsets[member : member + 2]
    x, y = torch.from_numpy(data.features[begin:end]), torch.from_numpy(data.targets[begin:end])
    if y.dtype != torch.int64:
        y = y.reshape(len(y), -1)
    module = module or torch_module(task, member)
    criterion, optimizer = torch_loss(task.loss), torch_optimizer(task, module.parameters(), member)
    scheduler = torch_schedule(task, optimizer)
    batch, losses = task.batch_size or len(x), []
    for epoch in range(int(task.epochs[member])):
        order = torch.arange(len(x))
        torch.manual_seed(derived_seed(int(task.seeds[member]), "dropout", epoch) >> 1)
        if task.shuffle and batch < len(x):
            order = torch.from_numpy(epoch_permutation(int(task.seeds[member]), epoch, len(x)))
        pieces, total = order.split(batch), 0.0
        for first in range(0, len(pieces), task.accumulation_steps):
            group = pieces[first : first + task.accumulation_steps]
            optimizer.zero_grad()
            for piece in group:
                loss = criterion(module(x[piece]), y[piece])
                (loss / len(group)).backward()
                total += loss.item() * len(piece)
            _clip(task, module)
            optimizer.step()
        losses.append(total / len(x))
        if isinstance(task.schedule, ReduceLROnPlateau):
            scheduler.step(losses[-1])
        elif scheduler is not None:
            scheduler.step()
    return {name: value.detach().numpy().copy() for name, value in module.named_parameters()}, losses


def _clip(task: CohortTask, module: nn.Module) -> None:
    if task.clipping is not None and task.clipping.max_norm is not None:
        nn.utils.clip_grad_norm_(module.parameters(), task.clipping.max_norm)
    if task.clipping is not None and task.clipping.clip_value is not None:
        nn.utils.clip_grad_value_(module.parameters(), task.clipping.clip_value)


def distance(actual: Any, expected: Any) -> float:
    """‖actual − expected‖∞ / ‖expected‖∞ over all arrays of two mappings (or two arrays)."""
    if isinstance(expected, Mapping):
        actual = np.concatenate([np.ravel(actual[name]) for name in expected])
        expected = np.concatenate([np.ravel(value) for value in expected.values()])
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-300))


def subset(task: CohortTask, members: Any) -> CohortTask:
    """The same task with some of its members, in the order given; rows are copied together."""
    members = np.asarray(members)
    values = task.hyperparameters
    columns = {name: getattr(values, name)[members] for name in HYPERPARAMETERS}
    return dataclasses.replace(
        task,
        data=_rows_of(task.data, members),
        validation=None if task.validation is None else _rows_of(task.validation, members),
        epochs=task.epochs[members],
        seeds=task.seeds[members],
        hyperparameters=Hyperparameters(nesterov=values.nesterov, centered=values.centered, **columns),
        log_every=task.log_every[members],
        log_parameters=task.log_parameters[members],
    )


def _rows_of(data: CohortData, members: Any) -> CohortData:
    rows = [np.arange(data.offsets[k], data.offsets[k + 1]) for k in members]
    chosen = np.concatenate(rows)
    return CohortData(
        features=data.features[chosen],
        targets=data.targets[chosen],
        offsets=np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64),
        weights=None if data.weights is None else data.weights[chosen],
    )


def member(result: CohortResult, index: int = 0) -> dict[str, Any]:
    """One member's parameters."""
    return {name: value[index] for name, value in result.parameters.items()}


@pytest.fixture(scope="session")
def lab() -> Any:
    """The helpers of this file, as attributes."""
    helpers = (
        make_task,
        run,
        mlp,
        plain_loop,
        torch_module,
        torch_optimizer,
        torch_schedule,
        distance,
        hyperparameters,
        member,
        subset,
    )

    class Lab:
        pass

    for helper in (*helpers, Recorder):
        setattr(Lab, helper.__name__, staticmethod(helper))
    return Lab
