"""`epochd activation` and `epochd diff`: small calculations."""

from __future__ import annotations

import json
import re
import sys
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.text import Text

from epochd.cli import specs
from epochd.cli.output import Output, is_tty_input
from epochd.cli.session import of

_FEW = 20


def activation(
    context: typer.Context,
    function: Annotated[
        str,
        typer.Argument(metavar="FUNCTION", help="Such as sigmoid; NAME[.OP][:KEY=VALUE], several by commas."),
    ],
    values: Annotated[
        list[str] | None, typer.Argument(metavar="VALUES", help="Numbers; from standard input without any.")
    ] = None,
    op: Annotated[
        str | None, typer.Option(metavar="OP", help="forward, inverse, derivative or antiderivative.")
    ] = None,
    dtype: Annotated[str, typer.Option(metavar="DTYPE", help="float16, float32 or float64.")] = "float64",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse values for which there is no result, instead of nan.")
    ] = False,
) -> None:
    """Apply an activation function, its inverse, derivative or antiderivative.

    Right to the last digits, also where plain floating point is not:

    ```
    epochd activation sigmoid 0.3 --op derivative
    epochd activation leaky_relu:negative_slope=0.2 -1 0 1
    epochd activation sigmoid,log -40
    seq -3 3 | epochd activation softmax
    ```
    """
    session = of(context)
    steps = specs.activations(function, op)
    x = _array(values, dtype)
    with session.client() as client:
        y = client.activation(steps, x, strict=strict)
    _show_values(session.output, function if op is None else f"{function}.{op}", x, np.asarray(y))


def diff(
    context: typer.Context,
    expression: Annotated[
        str,
        typer.Argument(metavar="EXPRESSION", help="Statements separated by ; the last one is the output."),
    ],
    variables: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=VALUE", help="Numbers, or JSON lists of them: w=2 x=[1,2,3]."),
    ] = None,
    of_names: Annotated[
        str,
        typer.Option(
            "--of",
            metavar="NAMES",
            help="Gradients of these, also intermediate ones. Default: all variables.",
        ),
    ] = "",
    repeat: Annotated[int, typer.Option(help="How often to go backward.")] = 1,
    accumulate: Annotated[
        bool, typer.Option("--accumulate", help="Let gradients add up, as without zero_grad().")
    ] = False,
) -> None:
    """Evaluate an expression and differentiate it by PyTorch's autograd.

    ```
    epochd diff "2*w**2 + 5" w=2
    epochd diff "y = w**2; z = 2*y + 5" w=2 --of w,y
    epochd diff "mean((x*w - y)**2)" x=[1,2,3] y=[2,4,6] w=0
    epochd diff "2*w" w=2 --repeat 21 --accumulate
    ```
    """
    session = of(context)
    given = dict(_variable(text) for text in variables or [])
    wanted = [name.strip() for name in of_names.split(",") if name.strip()] or None
    with session.client() as client:
        result = client.differentiate(
            expression, given, gradients_of=wanted, repeat=repeat, accumulate=accumulate
        )
    fields = {"value": _number_text(result.value)}
    fields |= {f"d/d{name}": _number_text(gradient) for name, gradient in result.gradients.items()}
    if repeat > 1:
        for name in result.gradients:
            fields[f"d/d{name} each time"] = " ".join(
                _number_text(gradients[name]) for gradients in result.history
            )
    session.output.record(result, fields)


def _array(values: list[str] | None, dtype: str) -> NDArray[Any]:
    if not values and is_tty_input():
        raise typer.BadParameter("give numbers, or send them to standard input", param_hint="VALUES")
    words = values or re.split(r"[\s,]+", sys.stdin.read().strip())
    if dtype not in ("float16", "float32", "float64"):
        raise typer.BadParameter(f"must be float16, float32 or float64, is {dtype!r}", param_hint="--dtype")
    return np.array([_number(word) for word in words if word], dtype=dtype)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        what = "an option of this command" if word.startswith("--") else "a number"
        raise typer.BadParameter(f"{word!r} is not {what}", param_hint="VALUES") from None


def _variable(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="NAME=VALUE")
    try:
        return name.strip(), np.asarray(json.loads(value), dtype=np.float64)
    except (ValueError, TypeError):
        raise typer.BadParameter(
            f"{value!r} is neither a number nor a JSON list of numbers", param_hint=name
        ) from None


def _show_values(output: Output, label: str, x: NDArray[Any], y: NDArray[Any]) -> None:
    if output.as_json:
        output.json({"function": label, "input": x, "output": y})
    elif output.is_terminal and x.shape == y.shape and x.size <= _FEW:
        for before, after in zip(x, y, strict=True):
            output.text(
                Text.assemble((f"{label}({_number_text(before)}) = ", "dim"), (_number_text(after), "bold"))
            )
    else:
        for row in np.atleast_1d(y):
            output.line(" ".join(_number_text(value) for value in np.atleast_1d(row)))


def _number_text(value: Any) -> str:
    """The shortest text that reads back as the same number; arrays as JSON-like lists."""
    if isinstance(value, np.ndarray) and value.ndim:
        return "[" + ", ".join(_number_text(item) for item in value) + "]"
    return str(np.asarray(value)[()])
