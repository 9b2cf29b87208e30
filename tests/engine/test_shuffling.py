"""Permutations that depend on seed and epoch only."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from epochd_server.engine.shuffling import derived_seed, epoch_permutation


@given(seed=st.integers(-(2**63), 2**63 - 1), epoch=st.integers(0, 10**6), rows=st.integers(0, 300))
def test_it_is_a_permutation_and_repeats_itself(seed: int, epoch: int, rows: int) -> None:
    order = epoch_permutation(seed, epoch, rows)
    assert sorted(order) == list(range(rows))
    assert (order == epoch_permutation(seed, epoch, rows)).all()


def test_seeds_and_epochs_give_different_orders() -> None:
    orders = {tuple(epoch_permutation(seed, epoch, 20)) for seed in range(30) for epoch in range(30)}
    assert len(orders) == 900


def test_every_permutation_is_equally_likely() -> None:
    counts = np.zeros(24)
    index = {
        order: i for i, order in enumerate(sorted({tuple(epoch_permutation(0, e, 4)) for e in range(4000)}))
    }
    assert len(index) == 24
    for epoch in range(24_000):
        counts[index[tuple(epoch_permutation(1, epoch, 4))]] += 1
    assert stats.chisquare(counts).pvalue > 1e-4


def test_the_generator_is_the_documented_one() -> None:
    """Written out once more in plain integers, so that stored runs can be resumed by any version."""
    mask = 2**64 - 1

    def mix(value: int) -> int:
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        return value ^ (value >> 31)

    state = mix((mix((mix(7) + int.from_bytes(b"shuffle\0", "little")) & mask) + 3) & mask)
    assert derived_seed(7, "shuffle", 3) == state
    order = list(range(50))
    for i in range(49, 0, -1):
        while True:
            state = (state + 0x9E3779B97F4A7C15) & mask
            product = (mix(state) & 0xFFFFFFFF) * (i + 1)
            if product & 0xFFFFFFFF >= 2**32 % (i + 1):
                break
        j = product >> 32
        order[i], order[j] = order[j], order[i]
    assert list(epoch_permutation(7, 3, 50)) == order
