"""What the lane kernels share: steps, snapshots, and the end of lanes that are done or diverged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.compiling import kernel
from epochd_server.engine.gradient_rules import clip_lanes, shrink_lanes
from epochd_server.engine.optimizer_steps import step_lanes
from epochd_server.engine.optimizers import LR, Method, refresh_scales
from epochd_server.engine.programs.lane_state import Record, State
from epochd_server.engine.task import Floats


@kernel
def set_rates(state: State, record: Record, offset: int) -> None:
    """Sets the learning rates of a chunk's epoch."""
    if len(record.lrs) > 0:
        for lane in range(len(state.alive)):
            state.table[LR, lane] = record.lrs[offset, lane]


@kernel
def take_step(
    method: Method,
    state: State,
    gradients: Floats,
    scales: Floats,
    norms: NDArray[np.float64],
    active: NDArray[np.bool_],
) -> None:
    """One step of the active lanes [L].

    Args:
        method: How.
        state: Is updated.
        gradients: [P, L]; are clipped.
        scales: [9, L], scratch.
        norms: [L], scratch.
        active: [L]
    """
    refresh_scales(method.optimizer, state.table, state.powers, active, scales)
    clip_lanes(method, gradients, norms, active)
    step_lanes(method, state.parameters, gradients, state.first, state.second, state.third, scales, active)
    shrink_lanes(method, state.table, state.parameters, state.second, state.third, scales, active)


@kernel
def keep_snapshot(parameters: Floats, snapshots: Floats, index: int) -> None:
    """snapshots[index] = parameters, [P, L]."""
    for p in range(parameters.shape[0]):
        for lane in range(parameters.shape[1]):
            snapshots[index, p, lane] = parameters[p, lane]


@kernel
def find_blemishes(parameters: Floats, blemish: NDArray[np.float64]) -> None:
    """Sets blemish [L] to 0, or to NaN where any of a lane's parameters [P, L] is infinite or NaN."""
    zero = parameters.dtype.type(0)
    blemish[:] = 0.0
    for p in range(parameters.shape[0]):
        for lane in range(parameters.shape[1]):
            blemish[lane] += parameters[p, lane] * zero


@kernel
def end_if_due(state: State, lane: int, epoch: int, healthy: bool) -> bool:
    """Ends a living lane that diverged or made its last epoch, keeps its parameters, and says whether it did."""
    if healthy and epoch + 1 < state.epochs[lane]:
        return False
    state.alive[lane] = False
    state.ended[lane] = epoch + 1 if healthy else epoch
    for p in range(state.parameters.shape[0]):
        state.final[p, lane] = state.parameters[p, lane]
    return True
