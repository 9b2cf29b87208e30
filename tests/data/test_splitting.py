"""Which rows are held out: exact counts, proportions, whole groups, the latest rows; the same for a member alone."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from epochd_server.data.splitting import INITIAL, Traits, fold_numbers, held_out_rows, trained_rows, units
from epochd_server.domain.validation import Folds, HoldOut, Split

Integers = NDArray[np.int64]

fractions = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**63 - 1)
splits = st.sampled_from(list(Split))


def integers(most: int) -> st.SearchStrategy[Integers]:
    return st.integers(2, 60).flatmap(lambda rows: arrays(np.int64, rows, elements=st.integers(0, most)))


def alone(codes: Integers) -> Traits:
    return Traits(np.zeros(len(codes), np.int64), codes)


@given(integers(4), fractions, seeds)
def test_a_fraction_of_the_rows_is_held_out_to_the_row(codes: Integers, fraction: float, seed: int) -> None:
    for split in (Split.RANDOM, Split.STRATIFIED, Split.TIME):
        held = held_out_rows(HoldOut(fraction=fraction, split=split), alone(codes), seed)
        expected = min(max(round(fraction * len(codes)), 1), len(codes) - 1)
        assert held.sum() == expected


@given(integers(3), fractions, seeds)
def test_stratified_rows_have_each_class_in_proportion(codes: Integers, fraction: float, seed: int) -> None:
    held = held_out_rows(HoldOut(fraction=fraction, split=Split.STRATIFIED), alone(codes), seed)
    share = held.sum() / len(codes)
    for one in np.unique(codes):
        assert abs(held[codes == one].sum() - share * (codes == one).sum()) < 1


@given(integers(9), fractions, seeds)
def test_groups_stay_whole(codes: Integers, fraction: float, seed: int) -> None:
    held = held_out_rows(HoldOut(fraction=fraction, split=Split.GROUP), alone(codes), seed)
    assert not set(codes[held]) & set(codes[~held])
    groups = len(np.unique(codes))
    expected = min(max(round(fraction * groups), 1), groups - 1)
    assert len(np.unique(codes[held])) == expected


@given(integers(9), fractions)
def test_by_time_no_held_out_row_is_earlier_than_another(codes: Integers, fraction: float) -> None:
    held = held_out_rows(HoldOut(fraction=fraction, split=Split.TIME), alone(codes), 0)
    assert codes[held].min() >= codes[~held].max()


@given(integers(3), splits, fractions, seeds, st.data())
def test_a_member_of_a_fleet_is_split_as_it_is_alone(
    codes: Integers, split: Split, fraction: float, seed: int, data: st.DataObject
) -> None:
    members = data.draw(arrays(np.int64, len(codes), elements=st.integers(0, 3)))
    members = np.unique(members, return_inverse=True)[1]
    hold_out, folds = HoldOut(fraction=fraction, split=split), Folds(count=3, split=split)
    held = held_out_rows(hold_out, Traits(members, codes), seed)
    numbers = fold_numbers(folds, Traits(members, codes), seed)
    for member in range(members.max() + 1):
        rows = members == member
        np.testing.assert_array_equal(held[rows], held_out_rows(hold_out, alone(codes[rows]), seed))
        np.testing.assert_array_equal(numbers[rows], fold_numbers(folds, alone(codes[rows]), seed))


@given(integers(3), st.integers(2, 6), seeds)
def test_folds_are_of_equal_size_and_have_each_class_in_proportion(
    codes: Integers, count: int, seed: int
) -> None:
    for split in (Split.RANDOM, Split.STRATIFIED):
        numbers = fold_numbers(Folds(count=count, split=split), alone(codes), seed)
        sizes = np.bincount(numbers, minlength=count)
        assert sizes.max() - sizes.min() <= 1
    for one in np.unique(codes):
        sizes = np.bincount(numbers[codes == one], minlength=count)
        assert sizes.max() - sizes.min() <= 1


@given(integers(30), st.integers(2, 6), seeds)
def test_folds_by_time_are_trained_on_earlier_rows(codes: Integers, count: int, seed: int) -> None:
    numbers = fold_numbers(Folds(count=count, split=Split.TIME), alone(codes), seed)
    assert numbers.min() == INITIAL
    for fold in range(count):
        trained, held = trained_rows(numbers, fold, Split.TIME), numbers == fold
        if held.any():
            assert codes[trained].max() <= codes[held].min()


@given(integers(9), st.integers(2, 4), seeds)
def test_folds_by_group_keep_groups_whole(codes: Integers, count: int, seed: int) -> None:
    numbers = fold_numbers(Folds(count=count, split=Split.GROUP), alone(codes), seed)
    for one in np.unique(codes):
        assert len(np.unique(numbers[codes == one])) == 1


def test_another_seed_holds_out_other_rows() -> None:
    traits = alone(np.zeros(1_000, np.int64))
    first, second = (held_out_rows(HoldOut(fraction=0.5), traits, seed) for seed in (1, 2))
    assert 400 < (first ^ second).sum() < 600


def test_every_row_is_held_out_equally_often() -> None:
    """In 2,000 splits of ten rows, each is held out 600 times; 5 deviations of the binomial are 102."""
    traits = alone(np.zeros(10, np.int64))
    counts = sum(held_out_rows(HoldOut(fraction=0.3), traits, seed).astype(int) for seed in range(2_000))
    assert np.abs(counts - 600).max() < 102


@pytest.mark.parametrize("split", Split)
def test_a_single_row_is_not_held_out(split: Split) -> None:
    traits = alone(np.zeros(1, np.int64))
    assert not held_out_rows(HoldOut(split=split), traits, 0).any()
    assert units(split, traits).tolist() == [1]
