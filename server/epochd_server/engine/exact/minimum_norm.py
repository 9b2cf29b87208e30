"""Solutions where the rank is deficient, from the triangular factor of a matrix with scaled columns.

Legend: p coefficients, t right-hand sides, r ≤ p rows of the factor.
"""

from __future__ import annotations

import numpy as np

from epochd_server.engine.exact.task import Doubles


def matrix_rank(triangle: Doubles, limit: float) -> int:
    """Number of singular values above the largest one divided by ``limit``.

    Args:
        triangle: [r, p], upper trapezoidal.
        limit: The condition number from which on the rank counts as deficient.
    """
    values = np.linalg.svd(np.triu(triangle), compute_uv=False)
    return int((values > values[0] / limit).sum())


def minimum_norm(triangle: Doubles, right: Doubles, scales: Doubles, bias: bool, limit: float) -> Doubles:
    """The solution with the smallest sum of squared weights; a bias is not counted, and centres the rest.

    Args:
        triangle: R [r, p] of the matrix whose columns were multiplied by ``scales``, the bias first.
        right: Qᵀ y [r, t].
        scales: [p].
        bias: Whether there is a constant.
        limit: The condition number from which on the rank counts as deficient.

    Returns:
        [t, p], in the columns' own scale.
    """
    first = 1 if bias else 0
    left, values, rows = np.linalg.svd(np.triu(triangle)[first:, first:], full_matrices=False)
    # Against the whole matrix: what is left of constant columns once they are centred is rounding.
    largest = np.linalg.svd(np.triu(triangle), compute_uv=False)[0]
    rank = int((values > largest / limit).sum())
    # what the weights in their own scale must satisfy, and of all such weights the shortest
    known = (values[:rank, None] * rows[:rank]) / scales[first:]
    base, transposed = np.linalg.qr(known.T)
    weights = base @ np.linalg.solve(transposed.T, left[:, :rank].T @ right[first:])
    solution = np.zeros((right.shape[1], len(scales)))
    solution[:, first:] = weights.T
    if bias:
        rest = right[0] - triangle[0, 1:] @ (weights / scales[1:, None])
        solution[:, 0] = rest / triangle[0, 0] * scales[0]
    return solution
