"""From ``--preprocess`` texts to steps by column: ``age,income=impute:fill=median+standardize``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer

from epochd import preprocessing as steps
from epochd.errors import InvalidArgument

AUTO = "auto"
_KINDS: Mapping[str, Callable[..., steps.Step]] = {
    **steps.BY_NAME,
    "bucketize": steps.Bucketize,
    "hash": steps.Hash,
    "time_parts": steps.TimeParts,
}
_LISTS = ("parts", "edges", "categories")


def preprocess(texts: Sequence[str]) -> steps.Preprocess | None:
    """Reads steps.

    Args:
        texts: ``auto``, ``others=drop`` (or ``passthrough``), or columns and their steps:
            ``COLUMN,COLUMN=STEP+STEP`` with ``STEP`` such as ``one_hot:unseen=other`` or
            ``time_parts:parts=hour/weekday``. None of them: no preprocessing.
    """
    columns: dict[str | tuple[str, ...], list[steps.Step | str]] = {}
    others: Any = AUTO
    for text in texts:
        names, equals, given = text.partition("=")
        if text == AUTO:
            continue
        if not (equals and names and given):
            raise _bad(f"must be auto or COLUMNS=STEPS, is {text!r}")
        if names == "others":
            others = given
        else:
            columns[tuple(name.strip() for name in names.split(","))] = [*map(_step, given.split("+"))]
    if not texts:
        return None
    try:
        return steps.Preprocess(columns, others=others)
    except (TypeError, InvalidArgument) as error:
        raise _bad(str(error)) from None


def _step(text: str) -> steps.Step:
    name, *arguments = text.strip().split(":")
    kind = _KINDS.get(name.replace("-", "_"))
    if kind is None:
        raise _bad(f"{name!r} is no step; steps are {', '.join(_KINDS)}")
    given = dict(_argument(argument) for argument in arguments)
    try:
        if kind is steps.TimeParts:
            return steps.TimeParts(*given.pop("parts", ()), **given)
        return kind(**given)
    except TypeError as error:
        raise _bad(f"{text!r}: {error}") from None


def _argument(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise _bad(f"{text!r} must be KEY=VALUE")
    if key in _LISTS:
        return key, [_value(part) if key == "edges" else part for part in value.split("/")]
    return key, _value(value)


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _bad(problem: str) -> typer.BadParameter:
    return typer.BadParameter(problem, param_hint="--preprocess")
