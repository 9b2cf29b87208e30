"""Predictions: outputs of rows under the parameters of one model, or of the member that each row names.

Networks are evaluated row by row in a compiled kernel, every sum in one fixed order, so a row's bits depend on the
row and its member's parameters only: not on the other rows, their number or place, nor on whether the parameters
come alone or in a fleet's slab. Registered modules are called with each row alone, for the same reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.specs import Model, ModuleModel
from epochd_server.engine.activation_kernels import IDENTITY, RELU, value
from epochd_server.engine.activation_kernels import SIGMOID as SIGMOID_CODE
from epochd_server.engine.activation_kernels import TANH as TANH_CODE
from epochd_server.engine.arrays import kernel_array
from epochd_server.engine.chain import Chain, Slot, chain_of, total_size
from epochd_server.engine.compiling import kernel
from epochd_server.engine.inspection import construct, in_features_of, module_slots
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.engine.numerics import sigmoid, tanh
from epochd_server.engine.programs.lane_layers import (
    AFFINE,
    BIAS,
    CODE,
    KIND,
    LAYER_NORM,
    WEIGHT,
    WIDTH_IN,
    WIDTH_OUT,
    network_of,
)
from epochd_server.engine.task import Floats, Integers
from epochd_server.engine.tracing import chain_of_module

_logger = logging.getLogger(__name__)


class Predictor:
    """Evaluates one model version. Safe to share between threads.

    Args:
        model: With resolved sizes.
        parameters: Name → […] for a single model, or [K, …] for a fleet. A fleet whose parameters are views of one
            [K, P] array, as :class:`CohortResult` and a memory-mapped slab have them, is not copied.
        modules: Where a registered module is found.

    Raises:
        KeyError: A parameter is missing.
        ValueError: A parameter has another shape than the model says.
        EpochdError: MODULE_NOT_FOUND.
    """

    def __init__(
        self, model: Model, parameters: Mapping[str, Floats], *, modules: ModuleRegistry | None = None
    ) -> None:
        self._evaluator: _Network | _Module
        chain: Chain | None
        if isinstance(model, ModuleModel):
            module = _ready(model, modules)
            chain = chain_of_module(module)
            if chain is None:
                self._evaluator = _Module(module, partial(_ready, model, modules), parameters)
                return
        else:
            chain = chain_of(model, in_features_of(model))
        self._evaluator = _Network(chain, parameters)

    @property
    def members(self) -> int:
        """K; 1 for a single model."""
        return len(self._evaluator.flat)

    @property
    def calls_module(self) -> bool:
        """Whether predictions call a registered module, whose code may do anything."""
        return isinstance(self._evaluator, _Module)

    def predict(self, rows: Floats, members: Integers | None = None) -> Floats:
        """Raw outputs (logits for classifiers).

        Args:
            rows: [n, d]; converted to the parameters' dtype.
            members: [n] the member of each row; None for member 0 throughout.

        Returns:
            [n, outputs] in the parameters' dtype.

        Raises:
            IndexError: A member does not exist.
            ValueError: Rows have another width than the model takes.
            EpochdError: MODULE_FAILED.
        """
        if members is None:
            members = np.zeros(len(rows), np.int64)
        elif len(members) and not 0 <= int(members.min()) <= int(members.max()) < self.members:
            raise IndexError("no such member")
        else:
            members = kernel_array(members, np.int64)
        return self._evaluator.evaluate(kernel_array(rows, self._evaluator.flat.dtype), members)


class _Network:
    def __init__(self, chain: Chain, parameters: Mapping[str, Floats]) -> None:
        self._width = chain.in_features
        self.flat = stacked(parameters, chain.slots)
        tables = network_of(chain)
        self._steps, self._arguments = tables.steps, tables.arguments
        self._outputs = chain.out_features
        self._room = max(self._width, int(tables.steps[:, WIDTH_OUT].max()))

    def evaluate(self, rows: Floats, members: Integers) -> Floats:
        if rows.ndim != 2 or rows.shape[1] != self._width:
            raise ValueError(f"rows must have {self._width} features, have shape {rows.shape}")
        outputs = np.empty((len(rows), self._outputs), rows.dtype)
        room = np.empty((2, self._room), rows.dtype)
        predict_rows(self._steps, self._arguments, self.flat, members, rows, outputs, room)
        return outputs


class _Module:
    """Calls a module. It bears the parameters of a call while that lasts, so calls at one time have one each."""

    def __init__(
        self, module: nn.Module, construct_another: Callable[[], nn.Module], parameters: Mapping[str, Floats]
    ) -> None:
        self._idle = [module]
        self._construct_another = construct_another
        self._slots = module_slots(module)
        self.flat = stacked(parameters, self._slots)

    def evaluate(self, rows: Floats, members: Integers) -> Floats:
        try:
            module = self._idle.pop()
        except IndexError:  # all of them are in calls, some perhaps for ever
            module = self._construct_another()
        try:
            return self._evaluate(module, rows, members)
        finally:
            self._idle.append(module)

    def _evaluate(self, module: nn.Module, rows: Floats, members: Integers) -> Floats:
        flat, inputs = torch.from_numpy(self.flat), torch.from_numpy(rows)
        outputs = []
        with torch.no_grad():
            for row, member in zip(inputs, members, strict=True):
                vector = flat[int(member)]
                state = {s.name: vector[s.offset : s.end].view(s.shape) for s in self._slots}
                outputs.append(_outputs(module, state, row[None]))
        if not outputs:
            return np.empty((0, 1), rows.dtype)
        result: Floats = torch.stack(outputs).numpy()
        return result


def _ready(model: ModuleModel, modules: ModuleRegistry | None) -> nn.Module:
    return construct(model, modules).eval()


def _outputs(module: nn.Module, state: dict[str, Tensor], row: Tensor) -> Tensor:
    """What a module makes of a row; nothing that it raises ends the process or is shown."""
    try:
        outputs: Tensor = functional_call(module, state, (row,)).reshape(-1)
    except BaseException as error:  # nothing is cancelled within a call: it is the module's own
        _logger.exception("a registered module failed to predict")
        raise EpochdError(Reason.MODULE_FAILED) from error
    return outputs


def stacked(parameters: Mapping[str, Floats], slots: tuple[Slot, ...]) -> Floats:
    """Parameters as one [K, P] array: a view where they are views of such an array already.

    Args:
        parameters: Name → […] or [K, …].
        slots: What the array holds.

    Raises:
        KeyError: A parameter is missing.
        ValueError: A parameter has another shape.
    """
    arrays = []
    for slot in slots:
        array = np.asarray(parameters[slot.name])
        array = array[None] if array.ndim == len(slot.shape) else array
        if array.shape[1:] != slot.shape:
            raise ValueError(f"{slot.name} must have shape {slot.shape}, has {array.shape[1:]}")
        arrays.append(array)
    base = arrays[0].base
    size = total_size(slots)
    if isinstance(base, np.ndarray) and base.ndim == 2 and base.shape == (len(arrays[0]), size):
        begin = base.__array_interface__["data"][0]
        places = [array.__array_interface__["data"][0] - begin for array in arrays]
        if places == [slot.offset * base.itemsize for slot in slots] and base.flags.c_contiguous:
            return kernel_array(base, base.dtype)
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], 1)


@kernel
def predict_rows(
    steps: Integers,
    arguments: NDArray[np.float64],
    flat: Floats,
    members: Integers,
    rows: Floats,
    outputs: Floats,
    room: Floats,
) -> None:
    """Evaluates rows one by one.

    Args:
        steps: [S, 8] a network's step table, see :mod:`epochd_server.engine.programs.lane_layers`.
        arguments: [S, 2]
        flat: [K, P]
        members: [n]
        rows: [n, d]
        outputs: [n, o], filled.
        room: [2, widest layer], scratch.
    """
    for n in range(len(rows)):
        member = members[n]
        here = 0
        for i in range(rows.shape[1]):
            room[here, i] = rows[n, i]
        for s in range(len(steps)):
            there = 1 - here
            if steps[s, KIND] == LAYER_NORM:
                _normalise_row(flat, member, steps, s, np.float64(arguments[s, 0]), room, here, there)
            elif steps[s, KIND] == AFFINE:
                for o in range(steps[s, WIDTH_OUT]):
                    begin = steps[s, WEIGHT] + o * steps[s, WIDTH_IN]
                    total = _dot(flat, member, begin, room, here, steps[s, WIDTH_IN])
                    if steps[s, BIAS] >= 0:
                        total += flat[member, steps[s, BIAS] + o]
                    room[there, o] = total
            else:
                _activate_row(
                    steps[s, CODE], arguments[s, 0], arguments[s, 1], room, here, there, steps[s, WIDTH_IN]
                )
            here = there
        for o in range(outputs.shape[1]):
            outputs[n, o] = room[here, o]


@kernel
def _dot(flat: Floats, member: int, begin: int, room: Floats, here: int, count: int) -> np.floating:
    """Σᵢ flat[member, begin + i] · room[here, i], as four sums over i mod 4, then pairwise."""
    zero = flat.dtype.type(0)
    a, b, c, d = zero, zero, zero, zero
    i = 0
    while i + 4 <= count:
        a += flat[member, begin + i] * room[here, i]
        b += flat[member, begin + i + 1] * room[here, i + 1]
        c += flat[member, begin + i + 2] * room[here, i + 2]
        d += flat[member, begin + i + 3] * room[here, i + 3]
        i += 4
    while i < count:
        a += flat[member, begin + i] * room[here, i]
        i += 1
    return (a + b) + (c + d)


@kernel
def _normalise_row(
    flat: Floats, member: int, steps: Integers, s: int, eps: float, room: Floats, here: int, there: int
) -> None:
    """nn.LayerNorm of one row; mean and variance in float64."""
    width, weight, bias = steps[s, WIDTH_IN], steps[s, WEIGHT], steps[s, BIAS]
    mean = 0.0
    for i in range(width):
        mean += np.float64(room[here, i])
    mean /= width
    variance = 0.0
    for i in range(width):
        variance += (np.float64(room[here, i]) - mean) ** 2
    scale = 1.0 / np.sqrt(variance / width + eps)
    for i in range(width):
        value = (np.float64(room[here, i]) - mean) * scale
        if weight >= 0:
            value *= np.float64(flat[member, weight + i])
        if bias >= 0:
            value += np.float64(flat[member, bias + i])
        room[there, i] = value


@kernel
def _activate_row(code: int, p0: float, p1: float, room: Floats, here: int, there: int, width: int) -> None:
    zero = room.dtype.type(0)
    for i in range(width):
        x = room[here, i]
        if code == RELU:
            room[there, i] = zero if x <= zero else x
        elif code == TANH_CODE:
            room[there, i] = tanh(np.float64(x))
        elif code == SIGMOID_CODE:
            room[there, i] = sigmoid(np.float64(x))
        elif code == IDENTITY:
            room[there, i] = x
        else:
            room[there, i] = value(code, np.float64(x), p0, p1)
