"""The compiled heart of small trainings: all epochs of a block of members in one loop, one member a lane."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.compiling import kernel
from epochd_server.engine.optimizers import Method
from epochd_server.engine.programs.lane_epochs import (
    end_if_due,
    find_blemishes,
    keep_snapshot,
    set_rates,
    take_step,
)
from epochd_server.engine.programs.lane_layers import TARGET, WIDTH_OUT, Network, backward, forward
from epochd_server.engine.programs.lane_losses import batch_loss
from epochd_server.engine.programs.lane_state import Record, State
from epochd_server.engine.shuffling import permute
from epochd_server.engine.task import Floats, Integers


class Recipe(NamedTuple):
    """What all lanes have in common: plain numbers, so that one compiled kernel serves every spec."""

    loss: int
    parameter: float
    """The loss's number, see :mod:`.lane_losses`."""
    batch: int
    """Rows of a batch, the most that any lane has."""
    full: bool
    """Whether a batch is all rows: they are loaded once and never permuted."""
    shuffle: bool
    accumulation: int
    width: int
    """Targets of a row; 1 for class indices."""


class Rows(NamedTuple):
    """Where the lanes' rows are."""

    features: Floats
    """[N, d]"""
    targets: Floats
    """[N, t]; class indices as floats."""
    weights: Floats
    """[N], or empty for weights of 1."""
    starts: Integers
    """[L]"""
    counts: Integers
    """[L]"""
    seeds: NDArray[np.uint64]
    """[L]"""


class Scratch(NamedTuple):
    """Space that a block uses again and again."""

    gradients: Floats
    scales: Floats
    norms: NDArray[np.float64]
    """[L]"""
    values: Floats
    """[batch · positions, L]"""
    slopes: Floats
    """[batch · positions, L]"""
    inputs: Floats
    """[batch · d, L]"""
    targets: Floats
    """[batch · t, L]"""
    weights: Floats
    """[batch, L]"""
    order: Integers
    """[L, n]"""
    row_scales: Floats
    """[L]"""
    partial: Floats
    """[L]"""
    loss: Floats
    """[2, L]"""
    totals: NDArray[np.float64]
    """[5, L]: batch loss, batch weight, epoch loss, epoch weight, and whether a parameter is not finite."""
    weighted: NDArray[np.bool_]
    """[L] whether any row of the batches gathered so far has a weight above 0."""
    stepping: NDArray[np.bool_]
    """[L]"""


_BATCH_LOSS, _BATCH_WEIGHT, _EPOCH_LOSS, _EPOCH_WEIGHT = range(4)


@kernel
def load_all_rows(recipe: Recipe, rows: Rows, state: State, scratch: Scratch) -> None:
    """Copies all rows of full batches into the lanes, before the first epoch; they stay there."""
    _load(recipe, rows, state, scratch, 0)
    _scale(recipe, rows, scratch, 0)


@kernel
def run_epochs(
    network: Network,
    recipe: Recipe,
    method: Method,
    rows: Rows,
    state: State,
    scratch: Scratch,
    record: Record,
    first_epoch: int,
    epochs: int,
) -> int:
    """Runs epochs ``first_epoch`` … ``first_epoch + epochs − 1`` of all lanes that are alive.

    Returns:
        Epochs run: fewer than asked once no lane is alive.
    """
    for offset in range(epochs):
        epoch = first_epoch + offset
        _shuffle(recipe, rows, state, scratch, epoch)
        set_rates(state, record, offset)
        _epoch(network, recipe, method, rows, state, scratch, record.wanted[offset].any())
        snapshot = record.snapshot_of[offset]
        if snapshot >= 0:
            keep_snapshot(state.parameters, record.snapshots, snapshot)
        if not _close_epoch(state, scratch, record.losses[offset], epoch):
            return offset + 1
    return epochs


@kernel
def _shuffle(recipe: Recipe, rows: Rows, state: State, scratch: Scratch, epoch: int) -> None:
    """Draws the epoch's order of every living lane; equal seeds and counts share one draw."""
    if recipe.full or not recipe.shuffle:
        return
    drawn = -1
    for lane in range(len(rows.counts)):
        if not state.alive[lane]:
            continue
        count = rows.counts[lane]
        if count <= recipe.batch:  # one batch: its order would change nothing but the rounding
            for i in range(count):
                scratch.order[lane, i] = i
        elif drawn >= 0 and rows.seeds[lane] == rows.seeds[drawn] and count == rows.counts[drawn]:
            for i in range(count):
                scratch.order[lane, i] = scratch.order[drawn, i]
        else:
            permute(rows.seeds[lane], epoch, scratch.order[lane, :count])
            drawn = lane


@kernel
def _epoch(
    network: Network,
    recipe: Recipe,
    method: Method,
    rows: Rows,
    state: State,
    scratch: Scratch,
    exact: bool,
) -> None:
    scratch.totals[_EPOCH_LOSS] = 0.0
    scratch.totals[_EPOCH_WEIGHT] = 0.0
    most = 0
    for lane in range(len(rows.counts)):
        if state.alive[lane]:
            most = max(most, rows.counts[lane])
    batches = (most + recipe.batch - 1) // recipe.batch
    for number in range(batches):
        gathered = number % recipe.accumulation
        if gathered == 0:
            scratch.gradients[:] = 0
        if not recipe.full:
            if gathered == 0:
                scratch.weighted[:] = False
            _load(recipe, rows, state, scratch, number)
            _scale(recipe, rows, scratch, number - gathered)
        last = min(recipe.batch, most - number * recipe.batch)
        _batch(network, recipe, state, scratch, last, exact)
        _step(recipe, method, rows, state, scratch, number, gathered)


@kernel
def _load(recipe: Recipe, rows: Rows, state: State, scratch: Scratch, number: int) -> None:
    """Copies batch ``number`` into the lanes' layout; lanes with fewer rows get zeros of weight 0."""
    width_in, width_out = rows.features.shape[1], recipe.width
    permuted = recipe.shuffle and not recipe.full
    for lane in range(len(rows.counts)):
        if not state.alive[lane]:
            continue
        for row in range(recipe.batch):
            index = number * recipe.batch + row
            if index >= rows.counts[lane]:
                for i in range(width_in):
                    scratch.inputs[row * width_in + i, lane] = 0
                for t in range(width_out):
                    scratch.targets[row * width_out + t, lane] = 0
                scratch.weights[row, lane] = 0
                continue
            source = rows.starts[lane] + (scratch.order[lane, index] if permuted else index)
            for i in range(width_in):
                scratch.inputs[row * width_in + i, lane] = rows.features[source, i]
            for t in range(width_out):
                scratch.targets[row * width_out + t, lane] = rows.targets[source, t]
            scratch.weights[row, lane] = 1 if len(rows.weights) == 0 else rows.weights[source]


@kernel
def _scale(recipe: Recipe, rows: Rows, scratch: Scratch, group_begin: int) -> None:
    """What a row's gradient is multiplied with: 1 / (Σ weights · targets · batches that share a step)."""
    weights = scratch.totals[_BATCH_WEIGHT]
    weights[:] = 0.0
    for row in range(recipe.batch):
        for lane in range(len(weights)):
            weights[lane] += scratch.weights[row, lane]
    for lane in range(len(weights)):
        batches = (rows.counts[lane] + recipe.batch - 1) // recipe.batch
        group = max(1, min(recipe.accumulation, batches - group_begin))
        positive = weights[lane] > 0.0
        scratch.row_scales[lane] = 1.0 / (weights[lane] * recipe.width * group) if positive else 0.0
        scratch.weighted[lane] = scratch.weighted[lane] or positive


@kernel
def _batch(network: Network, recipe: Recipe, state: State, scratch: Scratch, count: int, exact: bool) -> None:
    """Gradients and loss of one batch of ``count`` rows."""
    last = network.steps.shape[0] - 1
    totals = scratch.totals
    forward(network, state.parameters, scratch.inputs, scratch.values, count)
    batch_loss(
        recipe.loss,
        recipe.parameter,
        scratch.values,
        scratch.slopes,
        network.steps[last, TARGET],
        network.positions,
        network.steps[last, WIDTH_OUT],
        scratch.targets,
        recipe.width,
        scratch.weights,
        scratch.row_scales,
        count,
        scratch.partial,
        totals[_BATCH_LOSS],
        scratch.loss,
        exact,
    )
    backward(
        network, state.parameters, scratch.gradients, scratch.inputs, scratch.values, scratch.slopes, count
    )
    for lane in range(totals.shape[1]):
        weight = totals[_BATCH_WEIGHT, lane]
        if weight > 0.0:
            mean = scratch.row_scales.dtype.type(totals[_BATCH_LOSS, lane] / (weight * recipe.width))
            totals[_EPOCH_LOSS, lane] += weight * mean
            totals[_EPOCH_WEIGHT, lane] += weight


@kernel
def _step(
    recipe: Recipe, method: Method, rows: Rows, state: State, scratch: Scratch, number: int, gathered: int
) -> None:
    """The optimizer's step of the lanes whose group of batches ends with batch ``number``."""
    stepping = scratch.stepping
    for lane in range(len(rows.counts)):
        batches = (rows.counts[lane] + recipe.batch - 1) // recipe.batch
        closes = gathered + 1 == recipe.accumulation or number + 1 == batches
        stepping[lane] = scratch.weighted[lane] and closes and number < batches
    take_step(method, state, scratch.gradients, scratch.scales, scratch.norms, stepping)


@kernel
def _close_epoch(state: State, scratch: Scratch, losses: NDArray[np.float64], epoch: int) -> bool:
    """Notes losses, ends lanes that diverged or are done, and says whether any lane is still alive."""
    blemish = scratch.totals[4]
    find_blemishes(state.parameters, blemish)
    any_alive = False
    for lane in range(len(state.alive)):
        weight = scratch.totals[_EPOCH_WEIGHT, lane]
        loss = scratch.totals[_EPOCH_LOSS, lane] / weight if weight > 0.0 else np.nan
        losses[lane] = loss
        if state.alive[lane]:
            healthy = np.isfinite(loss) and blemish[lane] == 0.0
            any_alive |= not end_if_due(state, lane, epoch, healthy)
    return any_alive
