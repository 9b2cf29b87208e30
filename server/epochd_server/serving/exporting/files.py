"""Safetensors files with a card in their metadata: written and taken apart.

The format: eight bytes with the header's length (little-endian), the header as JSON, then the tensors' bytes. What
is in the header may grow without a byte of the tensors being moved.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, cast

from epochd_server.domain.errors import FieldViolation, InvalidInput

CARD = "epochd_card"
"""Key of the card in the file's metadata."""

_LENGTH_BYTES = 8
_MAX_HEADER = 100_000_000
"""As in the safetensors library."""
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """A file in two parts.

    Attributes:
        header: Tensor name → type, shape and place; ``__metadata__`` → texts by name.
        tensors: The bytes behind the header.
    """

    header: dict[str, Any]
    tensors: memoryview

    @property
    def digest(self) -> str:
        """SHA-256 of the tensors' bytes, in hex."""
        return hashlib.sha256(self.tensors).hexdigest()

    @property
    def metadata(self) -> dict[str, str]:
        """Texts by name."""
        return dict(self.header.get("__metadata__", {}))

    def head_with(self, card: str) -> bytes:
        """What comes before the tensors' bytes in a file that also has this card."""
        header = {**self.header, "__metadata__": {**self.metadata, CARD: card}}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def read_file(data: memoryview) -> SafetensorsFile:
    """Takes a file apart; nothing of its tensors is looked at.

    Raises:
        InvalidInput: It is no such file.
    """
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    begin = _LENGTH_BYTES + length
    if len(data) < _LENGTH_BYTES or not 2 <= length <= _MAX_HEADER or begin > len(data):
        raise _not_one("its header's length does not fit")
    try:
        header = json.loads(bytes(data[_LENGTH_BYTES:begin]))
    except (ValueError, RecursionError):
        raise _not_one("its header is no JSON") from None
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _not_one("its header is no object with texts as __metadata__")
    return SafetensorsFile(cast("dict[str, Any]", header), data[begin:])


def _not_one(why: str) -> InvalidInput:
    return InvalidInput([FieldViolation("data", f"must be a safetensors file, but {why}")])
