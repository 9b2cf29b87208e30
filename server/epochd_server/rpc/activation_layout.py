"""How a tensor may be cut into pieces that a chain of activations transforms one by one. No tensor library here.

A chain acts on some of the input's axes; along every other axis its slices are independent. Where the first
axes are such, the tensor is a row of independent blocks that can be transformed as their bytes arrive.
Otherwise it is cut along one independent axis once all of it is here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from epochd_server.domain.activations import CATALOG, ActivationStep, is_elementwise, output_shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """An axis of the input along which slices are independent.

    Attributes:
        size: Its length.
        axis: Which axis of the input it is.
        axes: Which axis of each step's result it is, first step first.
    """

    size: int
    axis: int
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a chain does to a shape.

    Attributes:
        shape: Of the input.
        output_shape: Of the result.
        steps: The chain, with every axis counted from the end, so that it also fits a block.
        elementwise: Whether elements are independent.
        leading: How many of the first axes are independent.
        cut: The longest independent axis; None where there is none.
    """

    shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    steps: tuple[ActivationStep, ...]
    elementwise: bool
    leading: int
    cut: Cut | None

    @property
    def block_shape(self) -> tuple[int, ...]:
        """Shape of one of the input's independent blocks, which follow one another in memory."""
        return self.shape[self.leading :]

    @property
    def block_elements(self) -> int:
        """Elements of a block and of its result together."""
        return math.prod(self.block_shape) + math.prod(self.output_shape[self.leading :])

    @property
    def slice_elements(self) -> int:
        """Elements of a slice one index wide along ``cut``, and of its result together."""
        elements = math.prod(self.shape) + math.prod(self.output_shape)
        return elements if self.cut is None else elements // max(self.cut.size, 1)


def layout(shape: Sequence[int], steps: Sequence[ActivationStep]) -> Layout:
    """The layout of a valid chain on an input of ``shape``."""
    origins: list[int | None] = list(
        range(len(shape))
    )  # of each axis of a step's result: an axis of the input
    results: list[list[int | None]] = []
    acted: set[int | None] = set()
    from_the_end = []
    for step in steps:
        if CATALOG[step.function].along_axis:
            axis = step.axis % len(origins)
            acted.add(origins[axis])
            from_the_end.append(replace(step, axis=axis - len(origins)))
            if step.reduces_axis:
                origins.pop(axis)
            elif step.is_jacobian:
                origins.append(None)
        else:
            from_the_end.append(step)
        results.append(origins.copy())
    independent = [axis for axis in range(len(shape)) if axis not in acted]
    longest = max(independent, key=lambda axis: shape[axis], default=None)
    return Layout(
        shape=tuple(shape),
        output_shape=output_shape(shape, steps),
        steps=tuple(from_the_end),
        elementwise=is_elementwise(steps),
        leading=next((axis for axis in range(len(shape)) if axis in acted), len(shape)),
        cut=None
        if longest is None
        else Cut(size=shape[longest], axis=longest, axes=tuple(axes.index(longest) for axes in results)),
    )
