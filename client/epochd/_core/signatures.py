"""Arguments that several methods take, written down once."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


def takes(builder: Callable[P, Any]) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]:
    """Gives a method the arguments of a function, for type checkers, ``help()`` and editors alike.

    The method itself takes ``*args, **kwargs`` and hands them to the function. The function's docstring, which is
    its ``Args:``, takes the place of ``{arguments}`` in the method's.
    """

    def decorate(method: Callable[..., R]) -> Callable[Concatenate[Any, P], R]:
        own, given = inspect.signature(method), inspect.signature(builder)
        self = next(iter(own.parameters.values())).replace(kind=inspect.Parameter.POSITIONAL_ONLY)
        parameters = [self, *given.parameters.values()]
        signature = inspect.Signature(parameters, return_annotation=own.return_annotation)
        method.__signature__ = signature  # type: ignore[attr-defined]
        head, _, entries = (inspect.getdoc(builder) or "").partition("\n")
        arguments = f"{head}\n{textwrap.indent(entries, '    ')}"
        method.__doc__ = inspect.cleandoc(method.__doc__ or "").replace("{arguments}", arguments)
        return cast("Callable[Concatenate[Any, P], R]", method)

    return decorate
