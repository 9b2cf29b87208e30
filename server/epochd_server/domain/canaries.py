"""Which versions may stand in for each other behind an alias."""

from __future__ import annotations

from epochd_server.domain.errors import Violations
from epochd_server.domain.models import VersionCard

HUNDREDTHS = 10_000
"""A canary's share is counted in hundredths of a percent."""


def check_canary(main: VersionCard, canary: VersionCard) -> None:
    """Makes sure that every request that suits an alias's version suits its canary, with answers of the same form.

    Raises:
        InvalidInput: Naming all in which they differ.
    """
    violations = Violations()
    for name in ("input_columns", "target_columns", "classes", "key_columns"):
        ours, theirs = getattr(main, name), getattr(canary, name)
        if ours != theirs:
            what = name.replace("_", " ")
            violations.add("canary.version", f"must have the same {what} as version; has others")
    if main.spec.precision is not canary.spec.precision:
        violations.add("canary.version", "must have the same dtype as version")
    violations.raise_if_any()
