"""Requests with a request_id: what is kept of them, and where two of them differ.

Of a short request everything is kept. Of a longer one, rows included perhaps, a digest of each field is; a long list is
one field. What is a field of its own follows from that field alone, so that requests of very different lengths can be
compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, TypeAlias

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.once import AskedOnce
from epochd_server.domain.resources import REQUEST_ID_RULE, is_request_id

_SHOWN = 80
_SHORT = 1_024
"""Bytes of a request that is kept as it is."""
_MOST_ENTRIES = 64
"""A longer list or map is one field."""
_MOST_FIELDS = 512
"""Fields that are told apart within one field of a request; where there are more, it is one."""
_WHOLE, _DIGESTS = b"\0", b"\1"
_DIGITS = 16
"""Of a digest, in hex."""
_METHODS = {"epochd.v1.ImportHeader": "ImportVersion"}
"""Methods whose requests are a stream that begins with a header."""
_BEFORE = {"epochd.v1.ImportHeader": b"import"}
"""What the fingerprint of a message begins with, so that ids which were given before all methods had them are known."""

_Path: TypeAlias = tuple[int | str, ...]
"""Numbers of fields, which stay the same in later versions, indices of lists and keys of maps."""
_Fields: TypeAlias = dict[_Path, str]
"""Digests in hex; of a message that is there, empty."""


def decode_asked(request: Any, violations: Violations) -> AskedOnce | None:
    """What is remembered of a request, or None where it has no request_id, or a malformed one."""
    request_id = request.request_id
    if not request_id:
        return None
    if not is_request_id(request_id):
        violations.add("request_id", f"must be {REQUEST_ID_RULE}, is {request_id[:_SHOWN]!r}")
        return None
    sent = type(request)()
    sent.CopyFrom(request)
    sent.ClearField("request_id")
    data = sent.SerializeToString(deterministic=True)
    return asked(sent, request_id, data)


def asked(request: Message, request_id: str, data: bytes) -> AskedOnce:
    """What is remembered of a request without its request_id, which is ``data`` when serialised."""
    name = request.DESCRIPTOR.full_name
    return AskedOnce(
        request_id=request_id,
        message=name,
        fingerprint=fingerprint(name, data),
        fields=kept_fields(request, data),
    )


def fingerprint(name: str, data: bytes) -> bytes:
    """SHA-256 of a request: the name of its message, and what it is when serialised without its request_id."""
    return hashlib.sha256(_BEFORE.get(name, b"") + data).digest()


def kept_fields(request: Message, data: bytes) -> bytes:
    """What is kept to name the field in which another request differs."""
    if len(data) <= _SHORT:
        return _WHOLE + data
    listed = [[digest, *path] for path, digest in _fields(request).items()]
    return _DIGESTS + json.dumps(listed, separators=(",", ":")).encode()


def reused(before: AskedOnce, now: AskedOnce) -> EpochdError:
    """REQUEST_ID_REUSED, naming the first field in which a request differs from the one that had its id before."""
    message = "This request_id was used before with a different request"
    metadata = {"request_id": now.request_id}
    if before.message and before.message != now.message:
        method = _METHODS.get(before.message) or before.message.rpartition(".")[2].removesuffix("Request")
        metadata["method"] = method
        return EpochdError(Reason.REQUEST_ID_REUSED, f"{message}, of the method {method}.", metadata)
    field = first_difference(now.message, before.fields, now.fields)
    if field is None:
        return EpochdError(Reason.REQUEST_ID_REUSED, f"{message}.", metadata)
    if now.message in _METHODS:
        field = f"header.{field}"
    metadata["field"] = field
    return EpochdError(Reason.REQUEST_ID_REUSED, f"{message}: {field} differs.", metadata)


def first_difference(name: str, before: bytes, now: bytes) -> str | None:
    """The path of the first field, by number, in which two requests differ; None where nothing is known of one.

    Args:
        name: The full name of their message.
        before: What :func:`kept_fields` kept of one of them; empty where it is of a time that kept nothing.
        now: What it kept of the other.
    """
    if not before:
        return None
    descriptor = descriptor_pool.Default().FindMessageTypeByName(name)
    old, new = _unpacked(descriptor, before), _unpacked(descriptor, now)
    different = [path for path in old.keys() | new.keys() if old.get(path) != new.get(path)]
    return _named(descriptor, min(different)) if different else None


# A descriptor is Any below: the stubs know two classes of it, and only one of them has what both have.
def _unpacked(descriptor: Any, kept: bytes) -> _Fields:
    if kept[:1] == _WHOLE:
        return _fields(message_factory.GetMessageClass(descriptor).FromString(kept[1:]))
    return {tuple(path): digest for digest, *path in json.loads(kept[1:])}


def _fields(request: Message) -> _Fields:
    """The fields of a request, those of its messages included."""
    found: _Fields = {}
    for descriptor, value in request.ListFields():
        fields = {}
        for path, digest in _field(request, descriptor, value, ()):
            fields[path] = digest
            if len(fields) > _MOST_FIELDS:
                fields = {(descriptor.number,): _digest(request, descriptor, value)}
                break
        found |= fields
    return found


def _walk(message: Message, path: _Path) -> Iterator[tuple[_Path, str]]:
    """A message that is there, and its fields."""
    yield path, ""
    for descriptor, value in message.ListFields():
        yield from _field(message, descriptor, value, path)


def _field(message: Message, descriptor: Any, value: Any, above: _Path) -> Iterator[tuple[_Path, str]]:
    path = (*above, descriptor.number)
    kind = descriptor.message_type
    if kind is None or (descriptor.is_repeated and len(value) > _MOST_ENTRIES):
        yield path, _digest(message, descriptor, value)
    elif kind.GetOptions().map_entry:
        for key, entry in value.items():
            data = entry.SerializeToString() if isinstance(entry, Message) else repr(entry).encode()
            yield (*path, str(key)), _hashed(data)
    elif descriptor.is_repeated:
        for index, entry in enumerate(value):
            yield from _walk(entry, (*path, index))
    else:
        yield from _walk(value, path)


def _digest(message: Message, descriptor: Any, value: Any) -> str:
    """Of a field alone, as it is serialised."""
    alone = type(message)()
    if descriptor.is_repeated:
        getattr(alone, descriptor.name).MergeFrom(value)
    elif descriptor.message_type is not None:
        getattr(alone, descriptor.name).CopyFrom(value)
    else:
        setattr(alone, descriptor.name, value)
    return _hashed(alone.SerializeToString(deterministic=True))


def _hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def _named(descriptor: Any, path: _Path) -> str:
    """A path as errors name fields: ``data.table.columns[2].name``, ``labels['team']``."""
    text, steps = "", list(path)
    while steps:
        field = descriptor.fields_by_number[steps.pop(0)]
        text += f".{field.name}" if text else field.name
        descriptor = field.message_type
        if steps and field.is_repeated:
            text += f"[{steps.pop(0)!r}]"
    return text
