"""Chains of activations on tensors.

A chain is one function: all of it is computed in float64, and the result is rounded to the input's type once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from epochd_server.domain.activations import CATALOG, ActivationStep, is_elementwise, validate_steps
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.engine.activations.blocks import OnBlock, run_along_axis, run_elementwise
from epochd_server.engine.activations.kernels import ALONG_AXIS, elementwise_kernel
from epochd_server.engine.activations.primitives import pad_to_lanes


def transform(x: Tensor, steps: Sequence[ActivationStep], *, strict: bool = False) -> Tensor:
    """Applies a chain of activation steps.

    Each step is within 4 ulp of the true value (or within the smallest normal number) in float64; in the
    shorter types the whole chain is computed in float64 and rounded once. ``docs/activations.md`` has the
    formulas, the conventions and the few exceptions.

    Args:
        x: float16, bfloat16, float32 or float64, of any shape and layout; not changed.
        steps: The chain, first step first.
        strict: Raise where a result is not defined, instead of giving NaN.

    Returns:
        A new contiguous tensor of ``x``'s type.

    Raises:
        InvalidInput: If the chain does not fit ``x``.
        EpochdError: With ``Reason.UNDEFINED_VALUE`` if ``strict`` and a result is not defined; it names the
            first step and the first index, in row-major order, and the value there.
    """
    _check(x, steps)
    groups = [list(group) for _, group in groupby(enumerate(steps), _group_key)]
    result = x
    with torch.no_grad():
        for group in groups:
            dtype = x.dtype if group is groups[-1] else torch.float64
            first, chain = group[0][0], [step for _, step in group]
            run = _elementwise if is_elementwise(chain) else _along_axis
            result = run(result, chain, dtype, first if strict else None)
    return result


def transform_chunk(
    chunk: Tensor,
    steps: Sequence[ActivationStep],
    *,
    shape: Sequence[int],
    start: int,
    strict: bool = False,
) -> Tensor:
    """Transforms a piece of a larger tensor, with the bits that the whole would get.

    Args:
        chunk: One-dimensional: elements ``start`` and following of the tensor in row-major order.
        steps: An elementwise chain (``is_elementwise``).
        shape: The shape of the whole tensor, for the index in an error.
        start: Where the chunk starts.
        strict: As for ``transform``.

    Returns:
        A new tensor of the chunk's length and type.

    Raises:
        InvalidInput: If the chain is not valid.
        EpochdError: As ``transform`` does, with the index in the whole tensor.
        ValueError: If the chain has a step along an axis.
    """
    if not is_elementwise(steps):
        raise ValueError("a chain with a step along an axis cannot be cut into chunks")
    _check(chunk, steps)
    with torch.no_grad():
        return _elementwise(chunk, steps, chunk.dtype, 0 if strict else None, shape, start)


def _check(x: Tensor, steps: Sequence[ActivationStep]) -> None:
    violations = Violations()
    validate_steps(steps, str(x.dtype).removeprefix("torch."), x.dim(), violations)
    violations.raise_if_any()


def _group_key(numbered: tuple[int, ActivationStep]) -> int:
    """Elementwise steps in a row share a key; each step along an axis has its own."""
    number, step = numbered
    return number if CATALOG[step.function].along_axis else -1


def _elementwise(
    x: Tensor,
    chain: Sequence[ActivationStep],
    dtype: torch.dtype,
    strict_from: int | None,
    shape: Sequence[int] | None = None,
    start: int = 0,
) -> Tensor:
    kernels = [elementwise_kernel(step) for step in chain]
    on_block: OnBlock | None = None
    if strict_from is not None:
        flat, whole, first = x.reshape(-1), x.shape if shape is None else shape, strict_from

        def on_block(block: Tensor, at: int) -> None:
            undefined = torch.isnan(block)
            if undefined.any():
                index = at + int(undefined.to(torch.uint8).argmax())
                _raise_undefined(flat[index : index + 1], chain, first, _unravel(start + index, whole))

    return run_elementwise(x, kernels, dtype, on_block)


def _along_axis(
    x: Tensor, chain: Sequence[ActivationStep], dtype: torch.dtype, strict_from: int | None
) -> Tensor:
    step = chain[0]
    result = run_along_axis(x, ALONG_AXIS[step.function, step.operation], step.axis, dtype)
    if strict_from is not None and torch.isnan(result).any():
        index = _unravel(int(torch.isnan(result).reshape(-1).to(torch.uint8).argmax()), result.shape)
        raise _undefined(step, strict_from, index, "its slice")
    return result


def _raise_undefined(x: Tensor, chain: Sequence[ActivationStep], first: int, index: Sequence[int]) -> None:
    """Raises for the first step of the chain that gives NaN for the one element ``x``."""
    value = x.to(torch.float64)
    for number, step in enumerate(chain, start=first):
        result = elementwise_kernel(step)(pad_to_lanes(value))[:1]
        if torch.isnan(result).any():
            raise _undefined(step, number, index, f"{value.item():.17g}")
        value = result


def _undefined(step: ActivationStep, number: int, index: Sequence[int], value: str) -> EpochdError:
    place = ", ".join(map(str, index))
    name = f"{step.function.value} {step.operation.value}"
    domain = CATALOG[step.function].operations[step.operation].domain
    return EpochdError(
        Reason.UNDEFINED_VALUE,
        f"steps[{number}] ({name}) is not defined at index [{place}], where its input is {value}; "
        f"it is defined for {domain}.",
        {"step": str(number), "index": place, "value": value},
    )


def _unravel(flat_index: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the index, by dimension, of the element at a row-major position."""
    index: list[int] = []
    for size in reversed(shape):
        flat_index, place = divmod(flat_index, size)
        index.append(place)
    return tuple(reversed(index))
