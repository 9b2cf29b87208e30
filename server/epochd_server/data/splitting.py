"""Which rows are held out of a training, and which fold of a cross-validation each row is in.

A split depends on the seed and on a member's own rows in their order, on nothing else: the same rows are held out of
a member in a fleet as out of a run of its own. Rows in random order are in the order of SplitMix64's output for the
seed and their position (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).

Legend: N rows, K members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.large_tables import RowSize
from epochd_server.domain.validation import Folds, HoldOut, Split

Integers = NDArray[np.int64]

INITIAL = -1
"""The fold of rows that no fold holds out: the earliest ones of a split by time."""
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_PURPOSE = np.uint64(int.from_bytes(b"hold out", "little"))


@dataclass(frozen=True, slots=True, eq=False)
class Traits:
    """What decides how rows are split.

    Attributes:
        members: int64 [N], the member of each row, from 0; zeros for one model.
        codes: int64 [N]: the class (STRATIFIED), the rank in time (TIME) or the group (GROUP) of each row, ≥ 0; None
            where chance alone decides.
        size: How wide the rows are: chance and classes hold rows out of each piece of a large member by itself. None
            where no member is large.
        first: The place of the first of these rows among its member's: a piece is split as it is in the whole.
    """

    members: Integers
    codes: Integers | None = None
    size: RowSize | None = None
    first: int = 0


def held_out_rows(hold_out: HoldOut, traits: Traits, seed: int) -> NDArray[np.bool_]:
    """Bool [N]: the rows that are held out.

    Of every member, the fraction of its rows (GROUP: of its groups), rounded, but at least one and not all; of a
    member with one row (or group) none is. RANDOM and STRATIFIED take each piece of a large member as a member.
    """
    places, sizes = _places(hold_out.split, traits, seed)
    held = shares(hold_out.fraction, sizes)
    if hold_out.split is Split.TIME:
        return np.asarray(places >= sizes - held)
    # evenly over the order, in which each class is in one piece: so each is held out in proportion
    return np.asarray((places + 1) * held // sizes > places * held // sizes)


def shares(fraction: float, sizes: Integers) -> Integers:
    """How many rows (or groups) of so many each are held out."""
    held: Integers = np.clip(np.rint(fraction * sizes).astype(np.int64), 1, np.maximum(sizes - 1, 1))
    held[sizes < 2] = 0
    return held


def fold_numbers(folds: Folds, traits: Traits, seed: int) -> NDArray[np.int16]:
    """int16 [N]: the fold that holds out each row, from 0; INITIAL for the earliest rows of a split by time."""
    places, sizes = _places(folds.split, traits, seed)
    if folds.split is Split.TIME:
        return (places * (folds.count + 1) // sizes - 1).astype(np.int16)
    return (places % folds.count).astype(np.int16)


def trained_rows(numbers: NDArray[np.int16], fold: int, split: Split) -> NDArray[np.bool_]:
    """Bool [N]: the rows that the member of a fold is trained on; by time those before the fold, else all others."""
    return np.asarray(numbers < fold if split is Split.TIME else numbers != fold)


def units(split: Split, traits: Traits) -> Integers:
    """int64 [K]: how many pieces each member's rows may be split into: groups, or rows."""
    if split is Split.GROUP and traits.codes is not None:
        members, _ = _groups(traits.members, traits.codes)
        return np.bincount(members)
    return np.bincount(traits.members)


def _places(split: Split, traits: Traits, seed: int) -> tuple[Integers, Integers]:
    """Each row's (or its group's) place in the order in which its member is split, and how many there are [N]."""
    members, codes = traits.members, traits.codes
    if split is Split.TIME and codes is not None:
        return _ranked(members, codes)
    if split is Split.GROUP and codes is not None:
        group_members, group_of = _groups(members, codes)
        places, sizes = _ranked(group_members, _random(group_members, seed))
        return places[group_of], sizes[group_of]
    pieces = _pieces(traits)
    random = _random(members, seed, traits.first)
    if split is Split.STRATIFIED and codes is not None:
        return _ranked(pieces, codes, random)
    return _ranked(pieces, random)


def _pieces(traits: Traits) -> Integers:
    """The members, of large ones their pieces [N]."""
    members, size = traits.members, traits.size
    if size is None or len(members) <= size.most_rows:
        return members
    positions, sizes = _ranked(members)
    pieces = np.where(sizes > size.most_rows, positions // size.piece_rows, 0)
    return _groups(members, pieces)[1].astype(np.int64)


def _ranked(members: Integers, *keys: NDArray[np.generic]) -> tuple[Integers, Integers]:
    """Each row's place among its member's by some keys, the first first, and how many its member has."""
    order = np.lexsort((*reversed(keys), members))
    sizes = np.bincount(members)
    starts = np.cumsum(sizes) - sizes
    places = np.empty(len(members), np.int64)
    places[order] = np.arange(len(members)) - starts[members[order]]
    return places, sizes[members]


def _groups(members: Integers, codes: Integers) -> tuple[Integers, Integers]:
    """The member of each group that one has, by member and code, and each row's position among them [N]."""
    span = int(codes.max()) + 1
    distinct, group_of = np.unique(members * span + codes, return_inverse=True)
    return distinct // span, group_of


def _random(members: Integers, seed: int, first: int = 0) -> NDArray[np.uint64]:
    """uint64 [N] for the seed and each row's position among its member's, the first of which is ``first``."""
    positions, _ = _ranked(members)
    positions = positions + first
    # arrays of one wrap around silently, scalars would warn
    start = _mix(_mix(np.array([seed % 2**64], np.uint64)) + _PURPOSE)
    return _mix(start + (positions.astype(np.uint64) + np.uint64(1)) * _GAMMA)


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function."""
    value = (value ^ (value >> _SHIFTS[0])) * _MIX_1
    value = (value ^ (value >> _SHIFTS[1])) * _MIX_2
    return value ^ (value >> _SHIFTS[2])
