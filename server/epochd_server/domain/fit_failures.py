"""Why exact fits fail, told to the owner of a run or of a fleet's member."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FIT_FAILURES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "RANK_DEFICIENT": (
            "The features depend on each other, or nearly so: there is no single best solution.",
            "Leave out features that others determine (such as one of each set of indicators), give more rows than "
            "coefficients, add l2, or ask for the solution of minimum norm.",
        ),
        "SEPARABLE_CLASSES": (
            "There is no finite optimum: the classes are separable.",
            "Add l2, such as 1.0, or leave out the features that tell the classes apart without an error.",
        ),
        "NOT_CONVERGED": (
            "All iterations were made without coming to the optimum.",
            "Allow more iterations, bring the features to a common scale, or add l2.",
        ),
    }
)
"""Reason in UPPER_SNAKE → message, hint."""
