"""How parameters start: PyTorch's own initialisation under a seed, zeros, or values that were given.

``torch.manual_seed(seed); nn.Linear(…)`` fills weight, then bias, from U(−1/√in, 1/√in) with the global
generator. The same draws from a generator of our own give the same numbers without touching global state.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from epochd_server.domain.specs import Init
from epochd_server.engine.chain import Affine, Chain, pack
from epochd_server.engine.task import CohortTask, Floats, Integers


def initial_parameters(task: CohortTask, chain: Chain) -> Floats:
    """The start values of every member.

    Returns:
        [K, P] in the precision of the task.
    """
    if task.initial is not None:
        return pack(task.initial, chain.slots, task.dtype)
    if task.init is Init.ZEROS:
        return np.zeros((task.members, chain.size), task.dtype)
    return seeded_parameters(chain, task.seeds, task.dtype)


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
    drawn = np.empty((len(distinct), chain.size), dtype)
    generator = torch.Generator()
    for row, seed in zip(torch.from_numpy(drawn), distinct, strict=True):
        _draw(chain, generator.manual_seed(int(seed)), row)
    return drawn if len(distinct) == len(seeds) and len(seeds) == 1 else drawn[member_of]


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
