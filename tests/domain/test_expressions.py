"""The limits of an expression refuse values that would switch a check off or crash the parser."""

import dataclasses

import pytest

from epochd_server.domain.expressions import (
    MAX_SUPPORTED_DEPTH,
    MAX_SUPPORTED_EXPONENT,
    ExpressionLimits,
)

NAMES = [field.name for field in dataclasses.fields(ExpressionLimits)]


def test_the_defaults_are_valid_and_the_documented_ones():
    limits = ExpressionLimits()
    assert (limits.max_length, limits.max_depth, limits.max_repeat) == (4096, 50, 1000)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"{name} must be > 0"):
        ExpressionLimits(**{name: value})


@pytest.mark.parametrize(
    ("name", "largest"), [("max_depth", MAX_SUPPORTED_DEPTH), ("max_exponent", MAX_SUPPORTED_EXPONENT)]
)
def test_a_limit_stays_within_what_the_engine_supports(name, largest):
    assert getattr(ExpressionLimits(**{name: largest}), name) == largest
    with pytest.raises(ValueError, match=f"{name} must be <="):
        ExpressionLimits(**{name: largest + 1})


def test_limits_cannot_be_changed_after_the_fact():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ExpressionLimits().max_depth = 3  # type: ignore[misc]
