"""Permutations of rows that depend on (seed, epoch, rows) and on nothing else.

The generator is SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014), whose
state starts at ``mix(mix(mix(seed) + "shuffle") + epoch)``, the purpose read as eight little-endian bytes. The
shuffle is Fisher and Yates's with Lemire's unbiased bounded draws ("Fast random integer generation in an
interval", 2019). Each epoch has its own generator, so that a resumed or re-blocked training draws the same rows
without replaying a shared one.
(``torch.randperm`` would do, but seeding its generator costs more than an epoch of a small model.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.compiling import kernel

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_PURPOSE = np.uint64(int.from_bytes(b"shuffle\0", "little"))
_LOW_32 = np.uint64(0xFFFFFFFF)
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32))


def epoch_permutation(seed: int, epoch: int, rows: int) -> NDArray[np.int64]:
    """The order in which an epoch takes its rows when a training shuffles.

    Args:
        seed: The training's seed; taken modulo 2⁶⁴.
        epoch: Counted from 0.
        rows: n, at most 2³².

    Returns:
        [n] a permutation of 0 … n − 1.
    """
    order = np.empty(rows, np.int64)
    permute(np.uint64(seed % 2**64), epoch, order)
    return order


def derived_seed(seed: int, purpose: str, epoch: int) -> int:
    """A seed in [0, 2⁶⁴) for one purpose (at most eight ASCII letters) in one epoch."""
    word = int.from_bytes(purpose.encode("ascii").ljust(8, b"\0"), "little")
    state = int(mix(np.uint64(seed % 2**64)))
    state = int(mix(np.uint64((state + word) % 2**64)))
    return int(mix(np.uint64((state + epoch) % 2**64)))


@kernel
def mix(value: np.uint64) -> np.uint64:
    """SplitMix64's output function."""
    value = (value ^ (value >> _SHIFTS[0])) * _MIX_1
    value = (value ^ (value >> _SHIFTS[1])) * _MIX_2
    return value ^ (value >> _SHIFTS[2])


@kernel
def permute(seed: np.uint64, epoch: int, order: NDArray[np.int64]) -> None:
    """Fills ``order`` [n] with the permutation of :func:`epoch_permutation`."""
    state = mix(mix(mix(seed) + _PURPOSE) + np.uint64(epoch))
    for i in range(len(order)):
        order[i] = i
    for i in range(len(order) - 1, 0, -1):
        bound = np.uint64(i + 1)
        threshold = (_LOW_32 + np.uint64(1) - bound) % bound
        while True:
            state += _GAMMA
            product = (mix(state) & _LOW_32) * bound
            if (product & _LOW_32) >= threshold:
                break
        j = np.int64(product >> _SHIFTS[3])
        order[i], order[j] = order[j], order[i]
