"""Labels: short texts that users put on models, versions and runs, and find them by."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epochd_server.domain.errors import FieldViolation, InvalidInput

MAX_LABELS = 64
MAX_VALUE = 255
KEY_RULE = "1 to 63 lower-case letters, digits and '-_.', starting with a letter"
_KEY = re.compile(r"[a-z][a-z0-9_.-]{0,62}")

Labels = Mapping[str, str]


def is_key(text: str) -> bool:
    """Whether ``text`` may be a label's key (see KEY_RULE)."""
    return _KEY.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelChange:
    """What is to become of a resource's labels.

    Attributes:
        labels: To be set.
        removed: Keys to be removed; one that is not there is fine.
    """

    labels: Labels
    removed: Sequence[str] = ()

    def applied_to(self, labels: Labels) -> dict[str, str]:
        """The labels after the change, by key.

        Raises:
            InvalidInput: They are too many.
        """
        gone = set(self.removed)
        kept = {key: value for key, value in labels.items() if key not in gone}
        changed = dict(sorted((kept | dict(self.labels)).items()))
        if len(changed) > MAX_LABELS:
            rule = f"a resource may have {MAX_LABELS} labels; with these it would have {len(changed):,}"
            raise InvalidInput([FieldViolation("labels", rule)])
        return changed
