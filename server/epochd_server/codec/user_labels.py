"""Labels of models, versions and runs: messages → domain. (``codec.labels`` is about classes.)"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from epochd_server.domain.errors import Violations
from epochd_server.domain.labels import KEY_RULE, MAX_LABELS, MAX_VALUE, LabelChange, Labels, is_key

_SHOWN = 80


def decode_user_labels(labels: Mapping[str, str], violations: Violations) -> Labels:
    """Labels by key, in alphabetical order; field paths begin with ``labels``."""
    if len(labels) > MAX_LABELS:
        violations.add("labels", f"has {len(labels):,} labels, at most {MAX_LABELS} are allowed")
        return {}
    for key, value in labels.items():
        _check_key(key, f"labels[{key[:_SHOWN]!r}]", violations)
        if len(value) > MAX_VALUE or "\0" in value:
            rule = f"must have at most {MAX_VALUE} characters and no NUL"
            violations.add(f"labels[{key[:_SHOWN]!r}]", f"{rule}, has {len(value):,}")
    return dict(sorted(labels.items()))


def decode_label_change(
    labels: Mapping[str, str], removed: Iterable[str], violations: Violations
) -> LabelChange:
    """The change that an Update…Labels request asks for."""
    keys = tuple(removed)
    for index, key in enumerate(keys):
        _check_key(key, f"removed[{index}]", violations)
        if key in labels:
            violations.add(f"removed[{index}]", f"{key!r} is among labels, too")
    change = LabelChange(labels=decode_user_labels(labels, violations), removed=keys)
    if not labels and not keys:
        violations.add("labels", "must have labels to set, or removed the keys of some")
    return change


def _check_key(key: str, field: str, violations: Violations) -> None:
    if not is_key(key):
        violations.add(field, f"the key must be {KEY_RULE}, is {key[:_SHOWN]!r}")
