"""Write docs/api.md from the protos and the example requests beside it: `python docs/generate_api.py`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2

DOCS = Path(__file__).resolve().parent
PROTOS = DOCS.parent / "protos"
EXAMPLES = DOCS / "api_examples.json"
MIRRORS = "epochd/v1/errors.proto"
SERVICES = ("Trainer", "Runs", "Models", "Datasets")

_HEAD = """# API

<!-- Written by docs/generate_api.py; a test holds it to the protos. Edit those. -->

The contract is in [protos/epochd/v1](../protos/epochd/v1). Every method is listed here with an example request in
protobuf's JSON, as generic gRPC clients take it, such as

```sh
buf curl --protocol grpc --http2-prior-knowledge -d '{…}' http://127.0.0.1:50051/epochd.v1.Trainer/Predict
```

`grpc.health.v1.Health` and `grpc.reflection.v1.ServerReflection` are served, too. Errors are told in
[errors.md](errors.md), activations in [activations.md](activations.md), expressions in
[differentiate.md](differentiate.md).
"""

Comments = dict[tuple[int, ...], str]
File = descriptor_pb2.FileDescriptorProto
Field = descriptor_pb2.FieldDescriptorProto


def files() -> list[File]:
    """The protos with their comments, in the order of their names."""
    paths = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("epochd/v1/*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/protos.bin"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", "--include_source_info"]
        subprocess.run([*command, f"--descriptor_set_out={out}", *paths], check=True)
        described = descriptor_pb2.FileDescriptorSet.FromString(Path(out).read_bytes())
    return [file for file in described.file if file.name != MIRRORS]


def page() -> str:
    """The whole page."""
    described = files()
    examples = json.loads(EXAMPLES.read_text(encoding="utf-8"))
    homes = {service.name: (file, index) for file in described for index, service in enumerate(file.service)}
    parts = [_HEAD, *(_service(*homes[name], examples) for name in SERVICES)]
    parts.append("## Messages\n")
    for file in described:
        parts += _messages(file)
    return "\n".join(parts)


def _comments(file: File) -> Comments:
    return {
        tuple(place.path): " ".join(place.leading_comments.split())
        for place in file.source_code_info.location
    }


def _service(file: File, index: int, examples: dict[str, object]) -> str:
    service, comments = file.service[index], _comments(file)
    lines = [f"## {service.name}\n", comments[(6, index)] + "\n"]
    for number, method in enumerate(service.method):
        lines.append(f"### {service.name}.{method.name}\n")
        lines.append(f"{_shape(method)}. {comments[(6, index, 2, number)]}\n")
        lines.append(_example(examples[f"{service.name}.{method.name}"]))
    return "\n".join(lines)


def _shape(method: descriptor_pb2.MethodDescriptorProto) -> str:
    request, response = (_link(name) for name in (method.input_type, method.output_type))
    client, server = (
        "stream of " if stream else "" for stream in (method.client_streaming, method.server_streaming)
    )
    return f"{client}{request} → {server}{response}"


def _example(example: object) -> str:
    messages = example if isinstance(example, list) else [example]
    text = "\n".join(json.dumps(message, ensure_ascii=False) for message in messages)
    return f"```json\n{text}\n```\n"


def _messages(file: File) -> Iterator[str]:
    comments = _comments(file)
    for index, message in enumerate(file.message_type):
        lines = [f"### {message.name}\n", comments[(4, index)] + "\n"]
        if message.field:
            lines.append("| field | type | meaning |\n|---|---|---|")
        for number, field in enumerate(message.field):
            lines.append(f"| {field.name} | {_type(field)} | {_cell(comments[(4, index, 2, number)])} |")
        yield "\n".join(lines) + "\n"
    for index, enum in enumerate(file.enum_type):
        lines = [
            f"### {enum.name}\n",
            comments[(5, index)] + "\n",
            "| value | number | meaning |\n|---|---|---|",
        ]
        for number, value in enumerate(enum.value):
            lines.append(f"| {value.name} | {value.number} | {_cell(comments[(5, index, 2, number)])} |")
        yield "\n".join(lines) + "\n"


def _type(field: Field) -> str:
    label = "repeated " if field.label == Field.LABEL_REPEATED else ""
    if field.type_name.endswith("Entry"):
        return "map"
    name = (
        _link(field.type_name)
        if field.type_name
        else Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    )
    alternative = " (one of)" if field.HasField("oneof_index") and not field.proto3_optional else ""
    return f"{label}{name}{alternative}"


def _link(type_name: str) -> str:
    name = type_name.rsplit(".", 1)[-1]
    return f"[{name}](#{name.lower()})" if type_name.startswith(".epochd.") else name


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    (DOCS / "api.md").write_text(page(), encoding="utf-8")
