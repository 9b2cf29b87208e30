"""What the exact fits of linear models share: slices of members, and coefficients as parameters.

Legend: M members, t outputs, p coefficients of one output, the bias first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from epochd_server.engine.exact.reporting import ExactReporter
from epochd_server.engine.exact.task import Doubles
from epochd_server.engine.task import Integers

SLICE_OPERATIONS = 2e8
"""Multiplications between two looks at who shall stop: some tens of milliseconds."""
SLICE_MEMBERS = 4096


def slices(costs: Doubles) -> Iterator[Integers]:
    """The members in runs of about :data:`SLICE_OPERATIONS`, each of one member at least.

    Args:
        costs: [K] multiplications of each.
    """
    total = np.cumsum(np.maximum(costs, SLICE_OPERATIONS / SLICE_MEMBERS))
    cuts = np.searchsorted(total, np.arange(SLICE_OPERATIONS, total[-1], SLICE_OPERATIONS))
    yield from (part for part in np.split(np.arange(len(costs)), np.unique(cuts)) if len(part))


def without_stopped(members: Integers, parameters: int, reporter: ExactReporter) -> Integers:
    """Ends the members that shall stop before their next iteration; gives the others.

    Args:
        members: Who is next.
        parameters: P, the parameters of each.
        reporter: Knows who shall stop.
    """
    stopped = np.isin(members, list(reporter.stopped()))
    gone = members[stopped]
    reporter.stop(gone, reporter.begun[gone], np.zeros((len(gone), parameters)))
    return members[~stopped]


def flat_parameters(coefficients: Doubles, bias: bool) -> Doubles:
    """[M, t, p] as flat parameters [M, P]: the weights, then the biases."""
    members, outputs, width = coefficients.shape
    weights = coefficients[:, :, bias:].reshape(members, outputs * (width - bias))
    return np.concatenate([weights, coefficients[:, :, 0]], 1) if bias else weights


def bias_last(coefficients: Doubles, bias: bool) -> Doubles:
    """[…, p] with the bias moved behind the weights."""
    return np.roll(coefficients, -1, -1) if bias else coefficients
