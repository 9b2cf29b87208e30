"""The statements of docs/activations.md hold: its code runs, its tables are the catalog's and the computed values."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from epochd_server.domain.activations import CATALOG, Activation, ActivationStep, Operation
from epochd_server.engine.activations import transform

PAGE = (Path(__file__).parents[3] / "docs" / "activations.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)

PYTORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "softplus inverse": lambda y: torch.log(torch.expm1(y)),
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "normal_cdf": torch.special.ndtr,
    "softsign": F.softsign,
    "hardsigmoid": F.hardsigmoid,
    "celu": lambda x: F.celu(x, 0.6),
    "log_softmax": lambda x: torch.log_softmax(x, -1),
    "logsumexp": lambda x: torch.logsumexp(x, -1),
    "tanhshrink": F.tanhshrink,
    "logit": torch.logit,
    "silu": F.silu,
    "hardswish": F.hardswish,
}
PARAMETERS = {"celu": {"alpha": 0.6}}


def section(name: str) -> str:
    return PAGE.split(f"<!-- {name} -->\n")[1].split(f"<!-- end of {name} -->")[0]


def catalog_table() -> Iterator[str]:
    yield "| function | operation | formula | defined for |\n| --- | --- | --- | --- |"
    for function, spec in CATALOG.items():
        for operation, entry in spec.operations.items():
            formula, domain = (text.replace("|", r"\|") for text in (entry.formula, entry.domain))
            yield f"| {function.value} | {operation.value} | `{formula}` | {domain} |"


def parameter_table() -> Iterator[str]:
    yield "| function | parameter | default | allowed |\n| --- | --- | --- | --- |"
    for function, spec in CATALOG.items():
        for name, parameter in spec.parameters.items():
            needs = "; > 0 for the inverse" if parameter.inverse_minimum is not None else ""
            yield f"| {function.value} | {name} | {parameter.default:g} | {parameter.bounds}{needs} |"


def wrong_places() -> list[list[str]]:
    rows = [line.strip("|\n ").split(" | ") for line in section("wrong places").splitlines()[2:]]
    return [[cell.strip("` ") for cell in row] for row in rows if len(row) == 6]


def number(text: str) -> float:
    return math.nan if text == "nan" else float(text)


def pytorch_value(name: str, operation: str, x: Tensor) -> Tensor:
    if operation != "derivative":
        return PYTORCH[f"{name} inverse" if operation == "inverse" and name == "softplus" else name](x)
    x = x.requires_grad_()
    PYTORCH[name](x).sum().backward()
    assert x.grad is not None
    return x.grad


def test_the_table_of_operations_is_the_catalog() -> None:
    assert section("catalog").strip() == "\n".join(catalog_table())


def test_the_table_of_parameters_is_the_catalog() -> None:
    assert section("parameters").strip() == "\n".join(parameter_table())


def test_the_python_blocks_run_in_order() -> None:
    assert len(BLOCKS) >= 6
    namespace: dict[str, object] = {}
    for number_of_block, block in enumerate(BLOCKS):
        exec(compile(block, f"docs/activations.md block {number_of_block}", "exec"), namespace)


def test_the_blocks_state_something() -> None:
    asserted = sum(isinstance(node, ast.Assert) for block in BLOCKS for node in ast.walk(ast.parse(block)))
    assert asserted >= 20


@pytest.mark.parametrize("row", wrong_places(), ids=lambda row: " ".join(row[:4]))
def test_where_pytorch_is_wrong_both_values_are_as_stated(row: list[str]) -> None:
    label, operation, dtype, argument, theirs, ours = row
    x = torch.tensor(eval(argument, {"inf": math.inf}), dtype=getattr(torch, dtype))
    name, _, approximate = label.partition(" ")
    step = ActivationStep(
        function=Activation(name),
        operation=Operation(operation),
        approximate=approximate or "none",
        parameters=PARAMETERS.get(name, {}),
    )
    actual = transform(x, [step]).reshape(-1)[0].item()
    assert actual == pytest.approx(number(ours), rel=1e-6 if dtype == "float32" else 1e-14, abs=0)
    wrong = pytorch_value(label, operation, x).reshape(-1)[0].item()
    assert wrong == pytest.approx(number(theirs), rel=1e-9, abs=1e-300, nan_ok=True)
    assert math.isnan(wrong) or wrong != actual
