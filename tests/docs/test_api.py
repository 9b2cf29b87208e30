"""docs/api.md says what the protos say, and its examples work."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor

from epochd.v1 import datasets_pb2, models_pb2, runs_pb2, trainer_pb2

DOCS = Path(__file__).parents[2] / "docs"
METHODS: dict[str, MethodDescriptor] = {
    f"{service.name}.{method.name}": method
    for file in (trainer_pb2, runs_pb2, models_pb2, datasets_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def requests(name: str, examples: dict[str, Any]) -> list[Any]:
    """The example's messages."""
    kind = message_factory.GetMessageClass(METHODS[name].input_type)
    example = examples[name]
    return [
        json_format.ParseDict(one, kind()) for one in (example if isinstance(example, list) else [example])
    ]


def call(channel: grpc.Channel, name: str, messages: list[Any]) -> list[Any]:
    """Sends the messages, and returns every response."""
    method = METHODS[name]
    kind = message_factory.GetMessageClass(method.output_type)
    encode = type(messages[0]).SerializeToString
    path = f"/{method.containing_service.full_name}/{method.name}"
    answers = channel.stream_stream(path, encode, kind.FromString)(iter(messages), timeout=60)
    return list(answers)


FLEET = {
    "modelName": "sales-by-store",
    "data": {
        "table": {
            "columns": [
                {"name": "store", "strings": {"values": ["north", "north", "south", "south"]}},
                {"name": "visitors", "numbers": {"values": [1, 2, 1, 2]}},
                {"name": "sales", "numbers": {"values": [2, 4, 3, 6]}},
            ]
        },
        "targetColumns": ["sales"],
        "groupColumns": ["store"],
    },
    "model": {"linear": {}},
    "loss": {"mse": {}},
    "leastSquares": {},
}
"""Trains the fleet whose members the examples ask for."""


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_api", DOCS / "generate_api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def examples() -> dict[str, Any]:
    return json.loads((DOCS / "api_examples.json").read_text(encoding="utf-8"))


def test_the_page_is_what_the_script_writes(generator: ModuleType):
    assert (DOCS / "api.md").read_text(encoding="utf-8") == generator.page()


def test_every_method_has_an_example_and_every_example_a_method(examples: dict[str, Any]):
    assert set(examples) == set(METHODS)


def test_every_example_is_a_valid_request(examples: dict[str, Any]):
    assert all(requests(name, examples) for name in examples)


def test_the_examples_work_one_after_the_other(examples: dict[str, Any], server_address: str):
    with grpc.insecure_channel(server_address) as channel:
        trained = call(channel, "Trainer.Train", requests("Trainer.Train", examples))
        run = trained[0].events[0].queued.run
        data = str(DOCS.parent / "examples" / "data")
        text = json.dumps(examples).replace("runs/RUN", run).replace("/srv/data", data)
        again = text.replace("6a0c2d4e-three-points", "6a0c2d4e-three-points-again")
        call(
            channel, "Trainer.Train", requests("Trainer.Train", json.loads(again))
        )  # a version stays after the deletion
        call(channel, "Trainer.Train", requests("Trainer.Train", {"Trainer.Train": FLEET}))
        for name in examples:
            assert call(channel, name, requests(name, json.loads(text)))
