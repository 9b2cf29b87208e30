"""Ids of runs: ULIDs, 26 characters that sort by the time at which they were made."""

from __future__ import annotations

import random
import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80
_LENGTH = 26


class RunIds:
    """Makes ULIDs (https://github.com/ulid/spec), each larger than the one before, also within a millisecond."""

    def __init__(self) -> None:
        self._last = 0
        # seeded by the system once: an id is a name and no secret, and the system's own generator takes a call each
        self._random = random.Random(secrets.randbits(256))  # noqa: S311

    def new(self) -> str:
        """A new id."""
        value = (time.time_ns() // 1_000_000 << _RANDOM_BITS) | self._random.getrandbits(_RANDOM_BITS)
        if value <= self._last or value >> _RANDOM_BITS == self._last >> _RANDOM_BITS:
            value = self._last + 1  # the same millisecond, or a clock that went back
        self._last = value
        return _encode(value)


def _encode(value: int) -> str:
    """A 128-bit number in Crockford's base 32, most significant digit first."""
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))
