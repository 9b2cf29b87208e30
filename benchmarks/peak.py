"""What one core can do at most, measured, and what a cohort's algorithm asks of it, counted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch

from epochd_server.domain.specs import LinearLayer, LinearModel, OptimizerKind, SequentialModel
from epochd_server.engine.cohort import CohortTask

_MATRIX = 768
_VECTOR = 2_048
_CHAIN = 16
_ROUNDS = 20_000
_ADAM_OPERATIONS = 12
"""A parameter and step: two moments, two corrections, a root, a division, the step."""


@dataclass(frozen=True, slots=True)
class Peak:
    """Billions of floating-point operations a second.

    Attributes:
        matmul: Of PyTorch's product of two square matrices that fit the cache: the widest vectors there are.
        chain: Of a compiled loop of multiplications and additions, fused, with the vectors that compilers take.
    """

    matmul: float
    chain: float


def measure(dtype: torch.dtype) -> Peak:
    """The peak of this core, one thread, in a precision; medians of nine."""
    left, right = (torch.rand(_MATRIX, _MATRIX, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    matmul = 2 * _MATRIX**3 / _median(lambda: torch.mm(left, right, out=out))
    values = np.ones(_VECTOR, left.numpy().dtype)
    half = values.dtype.type(0.5)
    _chains(values, half, half, 1)
    count = 2 * _CHAIN * _VECTOR * _ROUNDS
    return Peak(matmul / 1e9, count / _median(lambda: _chains(values, half, half, _ROUNDS)) / 1e9)


def operations(given: CohortTask, *, through_gram: bool) -> float:
    """Floating-point operations that the training of one member asks for.

    Counted are the products and sums of layers, gradients and steps; not losses, exponentials and activations,
    shuffling, and what an implementation does besides.

    Args:
        given: The cohort; its members are alike.
        through_gram: Whether it is trained through the Gram matrix of its rows.
    """
    layers = _layers(given)
    rows, epochs = int(given.data.offsets[1]), int(given.epochs[0])
    parameters = sum(o * (i + 1) for i, o in layers)
    step = parameters * (2 if given.optimizer_kind is OptimizerKind.SGD else _ADAM_OPERATIONS)
    if through_gram:
        width, outputs = layers[0][0] + 1, layers[0][1]
        gram = rows * width * (width + 1) + 2 * rows * width * outputs
        return float(gram + epochs * (2 * width * width * outputs + step))
    forward = sum(o * (2 * i + 1) for i, o in layers)
    backward = forward + sum(2 * i * o for i, o in layers[1:])
    steps = -(-rows // (given.batch_size or rows))
    return float(epochs * (rows * (forward + backward) + steps * step))


def _layers(given: CohortTask) -> list[tuple[int, int]]:
    """Inputs and outputs of each linear layer."""
    model = given.model
    if isinstance(model, LinearModel):
        return [(model.in_features or 1, model.out_features or 1)]
    if not isinstance(model, SequentialModel):
        raise TypeError("operations are counted for layers only")
    linear = [layer for layer in model.layers if isinstance(layer, LinearLayer)]
    return [(layer.in_features or 1, layer.out_features or 1) for layer in linear]


def _median(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(9):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


@numba.njit(fastmath={"contract"}, error_model="numpy")  # type: ignore[untyped-decorator]
def _chains(values: Any, a: Any, b: Any, rounds: int) -> None:
    """Sixteen dependent steps ``v = v · a + b`` for each of many values that stay in the cache."""
    for _ in range(rounds):
        for i in range(len(values)):
            v = values[i]
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            values[i] = v
