"""A version's card as JSON: all that is known of it besides its tensors."""

from __future__ import annotations

import base64
import json

from google.protobuf import json_format

from epochd_server.codec.models import encode_exported
from epochd_server.domain.fleets import Members
from epochd_server.domain.models import ModelVersion
from epochd_server.storage import member_columns

FORMAT = 1
"""The card's form; a reader refuses a newer one."""


def card_of(version: ModelVersion, members: Members | None, tensors_sha256: str) -> str:
    """The card.

    Args:
        version: The version.
        members: Fleets: what became of its members.
        tensors_sha256: Digest of the tensors' bytes in the file that the card is for; empty where it stands alone.
    """
    card: dict[str, object] = {
        "epochd_card": FORMAT,
        "version": json_format.MessageToDict(encode_exported(version), preserving_proto_field_name=True),
    }
    if tensors_sha256:
        card["tensors_sha256"] = tensors_sha256
    if members is not None:
        card["member_keys"] = keys_of(members)
        card["members"] = base64.b64encode(member_columns.pack(members)).decode()
    return json.dumps(card, ensure_ascii=False)


def keys_of(members: Members) -> list[list[object]]:
    """The members' keys in their order, a list of values each."""
    return [
        list(values) for values in zip(*(column.tolist() for column in members.keys.columns), strict=True)
    ]
