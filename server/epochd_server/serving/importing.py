"""Exported versions, read back: every part of a file is held against the others before anything is stored.

Nothing in a file is trusted, and nothing in it is code: it is a header of JSON and the bytes of tensors.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf import json_format
from numpy.typing import NDArray

from epochd.v1 import models_pb2 as pb
from epochd_server.codec.models import decode_card
from epochd_server.codec.names import stored_version
from epochd_server.codec.user_labels import decode_user_labels
from epochd_server.data.preprocessing.transforming import makes_its_features
from epochd_server.domain.errors import EpochdError, FieldViolation, InvalidInput, Reason, Violations
from epochd_server.domain.fleets import Members, MemberState
from epochd_server.domain.labels import Labels
from epochd_server.domain.lineage import Lineage, Parent, ParentKind
from epochd_server.domain.models import TrainedModel, VersionCard
from epochd_server.domain.resources import version_name
from epochd_server.domain.runs import Parameters
from epochd_server.engine.inspection import output_size, parameter_shapes
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.serving.exporting.cards import FORMAT
from epochd_server.serving.exporting.files import CARD, SafetensorsFile, read_file
from epochd_server.storage import member_columns

_TYPES: Mapping[str, str] = {"float32": "F32", "float64": "F64"}
_MAX_MEMBERS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Imported:
    """What a file holds.

    Attributes:
        model: What its model was called.
        labels: Of the version.
        trained: The version itself; its parameters are views of the file.
    """

    model: str
    labels: Labels
    trained: TrainedModel


def read_import(data: memoryview, modules: ModuleRegistry, *, max_parameters: int) -> Imported:
    """Takes an exported file apart and checks all of it.

    Args:
        data: The file.
        modules: The registered modules.
        max_parameters: As many parameters a single model, or a member of a fleet, may have.

    Raises:
        InvalidInput: It is no such file, or its parts do not fit each other.
        EpochdError: DIGEST_MISMATCH where the tensors have changed; MODULE_NOT_FOUND; MODEL_TOO_LARGE.
    """
    file = read_file(data)
    card_json = _card_json(file)
    message = _message(card_json)
    card, (model, version) = _card(message), _source(message)
    if card_json.get("tensors_sha256") != file.digest:
        raise EpochdError(Reason.DIGEST_MISMATCH, "The file's tensors do not have the digest in its card.")
    members = _members(card_json, card)
    parameters = _parameters(file, card, modules, max_parameters)
    _check_columns(card, modules)
    _check_preprocessing(card, members)
    violations = Violations()
    labels = decode_user_labels(message.labels, violations)
    violations.raise_if_any()
    parent = Parent(name=version_name(model, version), kind=ParentKind.IMPORT)
    lineage = replace(card.lineage or Lineage(dataset=None, data_digest=""), parent=parent)
    trained = TrainedModel(card=replace(card, lineage=lineage), parameters=parameters, members=members)
    return Imported(model=model, labels=labels, trained=trained)


def _card_json(file: SafetensorsFile) -> dict[str, Any]:
    text = file.metadata.get(CARD)
    if text is None:
        raise _invalid(f"has no card: its metadata lacks {CARD}; export it by ExportVersion")
    try:
        card = json.loads(text)
    except (ValueError, RecursionError):
        card = None
    if not isinstance(card, dict) or not isinstance(card.get("version"), dict):
        raise _invalid("has a card that is no JSON object with a version")
    if card.get("epochd_card") != FORMAT:
        raise _invalid(f"has a card of form {str(card.get('epochd_card'))[:20]}; this server knows {FORMAT}")
    return card


def _message(card: Mapping[str, Any]) -> pb.ModelVersion:
    try:
        return json_format.ParseDict(card["version"], pb.ModelVersion())
    except (json_format.ParseError, RecursionError, ValueError, TypeError) as error:
        problem = str(error).partition("\n")[0][:200]
        raise _invalid(f"has a card whose version cannot be read: {problem}") from None


def _card(message: pb.ModelVersion) -> VersionCard:
    try:
        return decode_card(message.SerializeToString())
    except (EpochdError, ValueError, KeyError, TypeError):
        raise _invalid("has a card that describes no model this server can make") from None


def _source(message: pb.ModelVersion) -> tuple[str, int]:
    try:
        return stored_version(message.name)
    except EpochdError:
        raise _invalid("has a card without the version's name") from None


def _members(card_json: Mapping[str, Any], card: VersionCard) -> Members | None:
    if not card.members and not card.key_columns:
        return None
    try:
        packed = base64.b64decode(card_json["members"], validate=True)
        with pa.ipc.open_file(pa.py_buffer(packed)) as reader:
            reader.get_batch(0).validate(full=True)
        members = member_columns.unpack(memoryview(packed))
    except (pa.ArrowException, KeyError, ValueError, TypeError, IndexError, AttributeError):
        raise _invalid("has a card whose members cannot be read") from None
    if problem := _misfit(members, card):
        raise _invalid(f"has a card whose members {problem}")
    return members


def _misfit(members: Members, card: VersionCard) -> str:
    """What is wrong with the members of a fleet; empty where nothing is."""
    count = len(members.keys)
    facts = (members.states, members.rows, members.epochs, members.final_losses)
    if not 1 <= count <= _MAX_MEMBERS or count != card.members:
        return "are not as many as the card says"
    if members.keys.names != card.key_columns:
        return "have other key columns than the card says"
    if any(len(column) != count for column in (*members.keys.columns, *facts)):
        return "have columns of several lengths"
    if not np.isin(members.states, list(MemberState)).all():
        return "have unknown states"
    if int((members.states == MemberState.FAILED).sum()) != card.failed_members:
        return "have not failed as often as the card says"
    return "" if _is_ascending(members) else "are not in the ascending order of their keys, each once"


def _is_ascending(members: Members) -> bool:
    keys = [members.keys.key(member) for member in range(len(members.keys))]
    if any(len({type(value) for value in column}) > 1 for column in zip(*keys, strict=True)):
        return False
    return all(before < after for before, after in itertools.pairwise(keys))


def _parameters(
    file: SafetensorsFile, card: VersionCard, modules: ModuleRegistry, max_parameters: int
) -> Parameters:
    """The parameters that the card's model has, in its order; views of the file."""
    try:
        shapes = parameter_shapes(card.spec.model, modules=modules)
    except ValueError:
        raise _invalid("has a card whose model has open sizes") from None
    if shapes.count > max_parameters:
        message = f"The model has {shapes.count:,} parameters; this server allows {max_parameters:,} at most."
        raise EpochdError(Reason.MODEL_TOO_LARGE, message)
    lead = (card.members,) if card.members else ()
    wanted = {slot.name: (*lead, *slot.shape) for slot in shapes.parameters}
    found = {name: entry for name, entry in file.header.items() if name != "__metadata__"}
    if set(found) != set(wanted):
        raise _invalid(f"must hold exactly the tensors {', '.join(sorted(wanted))[:200]}")
    return {name: _tensor(file, name, shape, card) for name, shape in wanted.items()}


def _tensor(
    file: SafetensorsFile, name: str, shape: tuple[int, ...], card: VersionCard
) -> NDArray[np.floating]:
    dtype, entry = np.dtype(card.spec.precision.value), file.header[name]
    nbytes = math.prod(shape) * dtype.itemsize
    first, last = _place(entry)
    is_there = 0 <= first <= last <= len(file.tensors) and last - first == nbytes
    if not is_there or (entry.get("dtype"), entry.get("shape")) != (_TYPES[dtype.name], list(shape)):
        raise _invalid(f"must hold {name} as {dtype.name} {list(shape)}")
    return np.frombuffer(file.tensors[first:last], dtype).reshape(shape)


def _place(entry: Any) -> tuple[int, int]:
    """Where a tensor's bytes begin and end, as the header says; (-1, -1) where it says nothing of the kind."""
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(offset) is int for offset in offsets)
    ):
        return -1, -1
    return offsets[0], offsets[1]


def _check_columns(card: VersionCard, modules: ModuleRegistry) -> None:
    """Features, targets and classes must be what the model takes and gives."""
    features, targets = card.feature_columns, card.target_columns
    if not features or len(set(features)) < len(features) or not targets:
        raise _invalid("has a card without features, each once, or without targets")
    try:
        outputs = output_size(card.spec.model, len(features), modules=modules)
    except ValueError:
        raise _invalid("has a card whose model takes another number of features") from None
    classes = card.classes
    if classes is not None and (len(set(classes)) < len(classes) or len(classes) < 2):
        raise _invalid("has a card without two classes, each once")
    if classes is not None and outputs not in {len(classes), 1 if len(classes) == 2 else len(classes)}:
        raise _invalid(f"has a card with {len(classes)} classes for a model of {outputs} outputs")


def _check_preprocessing(card: VersionCard, members: Members | None) -> None:
    """It must make the features that the model reads, for every member."""
    preprocess = card.preprocess
    if preprocess is None:
        return
    learned = None if members is None else members.learned
    if learned is not None and len(learned) != card.members:
        raise _invalid("has a card whose preprocessing has other members than the model")
    if preprocess.outputs != card.feature_columns or not makes_its_features(preprocess, learned):
        raise _invalid("has a card whose preprocessing makes other features than the model reads")
    if preprocess.folds and (not card.members or card.members % len(preprocess.folds)):
        raise _invalid("has a card whose preprocessing has other folds than its members")


def _invalid(what: str) -> InvalidInput:
    return InvalidInput([FieldViolation("data", what)])
