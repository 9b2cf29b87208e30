"""How parameters start: PyTorch's own initialisation under a seed, zeros, or values that were given.

``torch.manual_seed(seed); nn.Linear(…)`` fills weight, then bias, from U(−1/√in, 1/√in) with the global
generator. The same draws from a generator of our own give the same numbers without touching global state.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from epochd_server.domain.specs import Init
from epochd_server.engine.chain import Affine, Chain, LayerNorm, Slot, pack
from epochd_server.engine.inspection import module_slots
from epochd_server.engine.task import CohortTask, Floats, Integers


def initial_parameters(task: CohortTask, chain: Chain) -> Floats:
    """The start values of every member.

    Returns:
        [K, P] in the precision of the task.
    """
    if task.init is Init.ZEROS:
        fresh = np.zeros((task.members, chain.size), task.dtype)
        _set_norms(chain, fresh)
    else:
        fresh = seeded_parameters(chain, task.seeds, task.dtype)
    return _given_or(fresh, task, chain.slots)


def _given_or(fresh: Floats, task: CohortTask, slots: tuple[Slot, ...]) -> Floats:
    """The start values that members were given [K, P]; ``fresh`` ones for those that were given none."""
    if task.initial is None:
        return fresh
    given = pack(task.initial, slots, task.dtype)
    return np.where(np.isnan(given).any(1, keepdims=True), fresh, given)


def seeded_parameters(chain: Chain, seeds: Integers, dtype: np.dtype[np.floating]) -> Floats:
    """PyTorch's default initialisation, drawn once for each distinct seed.

    Args:
        chain: The network.
        seeds: [K]
        dtype: As in ``nn.Linear(…, dtype=…)``; double draws differ from float draws, in PyTorch too.

    Returns:
        [K, P]
    """
    distinct, member_of = np.unique(seeds, return_inverse=True)
    drawn = np.zeros((len(distinct), chain.size), dtype)
    _set_norms(chain, drawn)
    generator = torch.Generator()
    for row, seed in zip(torch.from_numpy(drawn), distinct, strict=True):
        _draw(chain, generator.manual_seed(int(seed)), row)
    return drawn if len(distinct) == len(seeds) and len(seeds) == 1 else drawn[member_of]


def _set_norms(chain: Chain, flat: Floats) -> None:
    """Normalisations start as nothing: weights of 1, biases as they are in ``flat`` [K, P], 0."""
    for step in chain.steps:
        if isinstance(step, LayerNorm) and step.weight is not None:
            flat[:, step.weight.offset : step.weight.end] = 1


def _draw(chain: Chain, generator: torch.Generator, flat: torch.Tensor) -> None:
    for step in chain.steps:
        if isinstance(step, Affine):
            # Both bounds in the exact order of operations of nn.Linear.reset_parameters.
            gain = math.sqrt(2.0 / (1 + math.sqrt(5) ** 2))
            bound = math.sqrt(3.0) * (gain / math.sqrt(step.in_features))
            flat[step.weight.offset : step.weight.end].uniform_(-bound, bound, generator=generator)
            if step.bias is not None:
                bound = 1 / math.sqrt(step.in_features)
                flat[step.bias.offset : step.bias.end].uniform_(-bound, bound, generator=generator)


def initial_module(
    task: CohortTask, construct: Callable[[], nn.Module]
) -> tuple[nn.Module, tuple[Slot, ...], Floats]:
    """The start of members whose model is a registered module.

    Args:
        task: The cohort.
        construct: Gives a fresh module; is called once for each distinct seed, after ``torch.manual_seed``.

    Returns:
        A module to call, its slots, and the initial values of every member [K, P].
    """
    drawn: dict[int, Floats] = {}
    with torch.random.fork_rng(devices=[]):
        for seed in np.unique(task.seeds):
            module = _seeded(task, construct, int(seed))
            slots = module_slots(module)
            state = dict(module.named_parameters()) | dict(module.named_buffers())
            values = {slot.name: state[slot.name].detach().numpy()[None] for slot in slots}
            drawn[int(seed)] = pack(values, slots, task.dtype)[0]
    start = np.stack([drawn[int(seed)] for seed in task.seeds])
    if task.init is Init.ZEROS:
        parameters = dict(module.named_parameters())
        for slot in slots:
            if slot.name in parameters:
                start[:, slot.offset : slot.end] = 0
    return module, slots, _given_or(start, task, slots)


def _seeded(task: CohortTask, construct: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The module as ``torch.manual_seed(seed)`` and its constructor make it, in the task's precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.from_numpy(np.empty(0, task.dtype)).dtype)
    try:
        torch.manual_seed(seed)
        return construct().train()
    finally:
        torch.set_default_dtype(before)
