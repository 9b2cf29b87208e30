"""Transforms pieces of a tensor that are too large to be held, with the bits that the whole would get."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import BinaryIO, Final

import numpy as np
import torch

from epochd_server.codec.tensors import item_size
from epochd_server.domain.commands import ActivationStreamCommand
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.engine.activations import transform, transform_chunk
from epochd_server.rpc.activation import undefined_in_request
from epochd_server.rpc.activation_layout import Cut, Layout
from epochd_server.rpc.tensors import from_bytes, to_raw, torch_dtype

SLICE_BYTES: Final = 8 * 1024 * 1024
"""Bytes of a slice of files, with its result, that are transformed at once."""

Move = Callable[[int, list[int]], list[int]]
"""From a step and an index in its result for a piece to the index in its result for the whole tensor."""


class Pieces:
    """Transforms a tensor piece by piece.

    Args:
        command: What is to be done.
        plan: The layout of its chain on its shape.
    """

    def __init__(self, command: ActivationStreamCommand, plan: Layout) -> None:
        self._command = command
        self._plan = plan
        self._item = item_size(command.dtype)

    def elements(self, piece: tuple[int, bytearray]) -> memoryview:
        """The result of a run of elements of an elementwise chain.

        Args:
            piece: Offset of its first byte in the tensor, and its bytes.
        """
        start, data = piece
        command = self._command
        chunk = from_bytes(data, command.dtype, (len(data) // self._item,))
        try:
            result = transform_chunk(
                chunk, command.chain, shape=command.shape, start=start // self._item, strict=command.strict
            )
        except EpochdError as error:
            raise undefined_in_request(error) from None
        return to_raw(result).data

    def blocks(self, piece: tuple[int, bytearray]) -> memoryview:
        """The result of a row of whole blocks.

        Args:
            piece: Offset of its first byte in the tensor, and its bytes.
        """
        start, data = piece
        plan = self._plan
        size = math.prod(plan.block_shape) * self._item
        outer, first = plan.shape[: plan.leading], start // size
        rows = from_bytes(data, self._command.dtype, (len(data) // size, *plan.block_shape))

        def move(step: int, index: list[int]) -> list[int]:
            place = np.unravel_index(first + index[0], outer) if outer else ()
            return [*map(int, place), *index[1:]]

        return to_raw(self._transform(rows, move)).data

    def files(self, source: BinaryIO, target: BinaryIO, stop: threading.Event) -> None:
        """Transforms a file into another, slice by slice along the layout's cut.

        Args:
            source: Holds the input.
            target: Empty; gets the result.
            stop: Ends the work early when set.
        """
        plan = self._plan
        whole = self._mapped(source, plan.shape)
        target.truncate(math.prod(plan.output_shape) * self._item)
        result = self._mapped(target, plan.output_shape)
        cut = plan.cut
        if cut is None:
            result.copy_(self._transform(whole, lambda _, index: index))
            return
        width = max(1, SLICE_BYTES // max(1, plan.slice_elements * self._item))
        for start in range(0, cut.size, width):
            if stop.is_set():
                return
            length = min(width, cut.size - start)
            part = self._transform(whole.narrow(cut.axis, start, length), _along(cut, start))
            result.narrow(cut.axes[-1], start, length).copy_(part)

    def _transform(self, x: torch.Tensor, move: Move) -> torch.Tensor:
        try:
            return transform(x, self._plan.steps, strict=self._command.strict)
        except EpochdError as error:
            raise undefined_in_request(_moved(error, move)) from None

    def _mapped(self, file: BinaryIO, shape: tuple[int, ...]) -> torch.Tensor:
        if not math.prod(shape):
            return torch.empty(shape, dtype=torch_dtype(self._command.dtype))
        mapped = np.memmap(file, dtype=np.uint8, mode="r+")
        return torch.from_numpy(mapped).view(torch_dtype(self._command.dtype)).reshape(shape)


def _along(cut: Cut, start: int) -> Move:
    """Moves an index of a slice that begins at ``start`` of the cut axis."""

    def move(step: int, index: list[int]) -> list[int]:
        axis = cut.axes[step]
        return [*index[:axis], index[axis] + start, *index[axis + 1 :]]

    return move


def _moved(error: EpochdError, move: Move) -> EpochdError:
    """UNDEFINED_VALUE with the index that the value has in the whole tensor."""
    if error.reason is not Reason.UNDEFINED_VALUE:
        return error
    old = error.metadata["index"]
    index = move(int(error.metadata["step"]), [int(place) for place in old.split(", ") if place])
    new = ", ".join(map(str, index))
    message = error.message.replace(f"index [{old}]", f"index [{new}]", 1)
    return EpochdError(error.reason, message, {**error.metadata, "index": new})
