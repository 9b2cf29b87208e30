"""Which members of a fleet cannot be trained, and why.

A value that no training can use is the fault of a request for one model; in a fleet it takes out the member it
belongs to, and no other.

Legend: N rows, K members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.grouping import Assignment

FEATURE_NOT_FINITE = "FEATURE_NOT_FINITE"
TARGET_NOT_FINITE = "TARGET_NOT_FINITE"
WEIGHT_NOT_VALID = "WEIGHT_NOT_VALID"
NO_WEIGHT = "NO_WEIGHT"
ONE_CLASS_ONLY = "ONE_CLASS_ONLY"


@dataclass(frozen=True, slots=True, eq=False)
class UnusableRows:
    """Rows of a fleet with a value that no training can use.

    Attributes:
        by_reason: Reason in UPPER_SNAKE → bool [N]; a reason without rows may be absent.
    """

    by_reason: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    def add(self, reason: str, rows: NDArray[np.bool_]) -> None:
        """Adds rows, bool [N]."""
        if rows.any():
            known = self.by_reason.get(reason)
            self.by_reason[reason] = rows if known is None else known | rows


def unfit_members(
    assignment: Assignment,
    unusable: UnusableRows,
    labels: NDArray[np.generic] | None,
    weights: NDArray[np.floating] | None,
) -> Mapping[int, str]:
    """Members that cannot be trained → the first reason that holds, in ascending order.

    Args:
        assignment: The member of each row.
        unusable: What was found when the values were read.
        labels: For classifiers the class of each row, [N] or [N, 1]; None for regression.
        weights: [N], or None where all rows count alike.
    """
    found: list[tuple[str, NDArray[np.bool_]]] = [
        (reason, assignment.where(unusable.by_reason[reason]))
        for reason in (FEATURE_NOT_FINITE, TARGET_NOT_FINITE, WEIGHT_NOT_VALID)
        if reason in unusable.by_reason
    ]
    counted = None if weights is None else weights > 0
    if counted is not None:
        found.append((NO_WEIGHT, ~assignment.where(counted)))
    if labels is not None:
        found.append((ONE_CLASS_ONLY, ~members_with_two_classes(assignment, labels.reshape(-1), counted)))
    reasons: dict[int, str] = {}
    for reason, members in found:
        for member in np.flatnonzero(members).tolist():
            reasons.setdefault(member, reason)
    return dict(sorted(reasons.items()))


def described(reasons: Mapping[int, str]) -> str:
    """``FEATURE_NOT_FINITE (3 members), ONE_CLASS_ONLY (1 member)``, most frequent first."""
    counts = Counter(reasons.values()).most_common()
    return ", ".join(f"{reason} ({count:,} member{'s' * (count > 1)})" for reason, count in counts)


def members_with_two_classes(
    assignment: Assignment, labels: NDArray[np.generic], counted: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Bool [K]: members with two classes among their rows, of those that count.

    Args:
        assignment: The member of each row.
        labels: [N]
        counted: Bool [N]; None is all.
    """
    rows = slice(None) if counted is None else counted
    members, seen = assignment.members[rows], labels[rows]
    # One class of each member, whichever was written last; a row that has another makes two.
    one = np.zeros(len(assignment.keys), labels.dtype)
    one[members] = seen
    two = np.zeros(len(one), np.bool_)
    two[members[seen != one[members]]] = True
    return two
