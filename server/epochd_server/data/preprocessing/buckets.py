"""Numbers as intervals, as scikit-learn's KBinsDiscretizer with the strategy ``quantile``.

Legend: n rows, B edges, B + 1 intervals.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.preprocessing.blocks import Block, Numbers, StepProblem, as_numbers
from epochd_server.domain.preprocessing import Bucketize, Edges

_NARROW = 1e-8
"""Intervals that are no wider are merged, as scikit-learn does."""


def fit_buckets(step: Bucketize, block: Block) -> Edges:
    """Where intervals begin: the given edges, or quantiles of the training rows by linear interpolation."""
    values = _one_column(block)
    if step.buckets is None:
        return Edges(step.edges)
    found = values[np.isfinite(values)]
    if not len(found):
        raise StepProblem("has no value in any training row: there are no quantiles")
    return inner_edges(np.quantile(found, np.linspace(0, 1, step.buckets + 1)))


def inner_edges(quantiles: NDArray[np.float64]) -> Edges:
    """The edges between the smallest and the largest value, of intervals that are wide enough."""
    edges = quantiles[np.ediff1d(quantiles, to_begin=np.inf) > _NARROW]
    return Edges(tuple(edges[1:-1].tolist()))


def apply_buckets(step: Bucketize, state: Edges, block: Block) -> Numbers:
    """Positions [n, 1], or 0 and 1 [n, B + 1]; missing numbers are in no interval."""
    values = _one_column(block)
    name = as_numbers(block, "bucketize").names[0]
    positions = np.searchsorted(np.array(state.edges), values, side="right")
    missing = np.isnan(values)
    if not step.one_hot:
        return Numbers(np.where(missing, np.nan, positions)[:, np.newaxis], (name,))
    hot = np.zeros((len(values), len(state.edges) + 1))
    rows = np.flatnonzero(~missing)
    hot[rows, positions[rows]] = 1.0
    return Numbers(hot, _names(name, state))


def _one_column(block: Block) -> NDArray[np.float64]:
    numbers = as_numbers(block, "bucketize")
    if numbers.values.shape[1] != 1:
        raise StepProblem(f"has become {numbers.values.shape[1]} features, but bucketize takes one")
    return numbers.values[:, 0]


def _names(name: str, state: Edges) -> tuple[str, ...]:
    edges = [f"{edge:g}" for edge in state.edges]
    if not edges:
        return (name,)
    between = [f"{low}<={name}<{high}" for low, high in pairwise(edges)]
    return (f"{name}<{edges[0]}", *between, f"{name}>={edges[-1]}")
