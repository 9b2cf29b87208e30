"""Trainer.ActivationTransformStream: tensors larger than a message, in bounded memory.

Pieces that do not depend on one another are transformed as their bytes arrive, one piece ahead of what was
sent; gRPC's flow control makes a fast client wait. Where the first axis is acted on, the bytes go to a
temporary file and the result comes from another.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

from epochd.v1 import activation_pb2 as pb
from epochd_server.codec.activations import decode_stream_header, encode_stream_result
from epochd_server.codec.tensors import item_size
from epochd_server.domain.commands import ActivationStreamCommand
from epochd_server.domain.errors import EpochdError, FieldViolation, InvalidInput, Reason, Violations
from epochd_server.rpc.activation import check_chain
from epochd_server.rpc.activation_layout import Layout, layout
from epochd_server.rpc.activation_pieces import Pieces
from epochd_server.rpc.computing import SMALL, Computer
from epochd_server.rpc.requests import required
from epochd_server.storage.durable_files import local_io

Requests = AsyncIterator[pb.ActivationTransformStreamRequest]
Responses = AsyncGenerator[pb.ActivationTransformStreamResponse, None]

MESSAGE_BYTES: Final = 2 * 1024 * 1024
"""Largest piece of data in a message, both ways."""

PIECE_BYTES: Final = 1024 * 1024
"""Bytes of input that are gathered before they are transformed."""

BLOCK_BYTES: Final = 8 * 1024 * 1024
"""Largest block, with its result, that is transformed in memory as it arrives; larger ones go through files."""

WHOLE_BYTES: Final = 256 * 1024 * 1024
"""Largest part of a file, with its result, that can only be transformed at once."""


class ActivationStreams:
    """Applies activations to tensors of any size.

    Args:
        computer: Where pieces are computed.
        folder: For temporary files.
        max_bytes: Largest input, and largest result.
    """

    def __init__(self, computer: Computer, folder: Path, max_bytes: int) -> None:
        self._computer = computer
        self._folder = folder
        self._max_bytes = max_bytes
        self._whole = asyncio.Semaphore(1)

    async def transform(self, requests: Requests) -> Responses:
        """The responses to a stream of requests.

        Raises:
            InvalidInput: Everything that is wrong with the header; bytes that are too few or too many.
            EpochdError: DATA_TOO_LARGE, or UNDEFINED_VALUE where it is strict.
        """
        command, plan = await self._begin(requests)
        yield encode_stream_result(command.dtype, plan.output_shape)
        item = item_size(command.dtype)
        pieces = Pieces(command, plan)
        total = math.prod(plan.shape) * item
        in_memory = plan.elementwise or plan.block_elements * item <= BLOCK_BYTES
        if in_memory and total > 0:
            unit = item if plan.elementwise else math.prod(plan.block_shape) * item
            arriving = _pieces(requests, unit, total)
            function = pieces.elements if plan.elementwise else pieces.blocks
            results = self._computer.map_ahead(arriving, function)
        else:
            results = self._by_files(requests, plan, item, pieces)
        async with aclosing(results):
            async for result in results:
                for start in range(0, len(result), MESSAGE_BYTES):
                    data = bytes(result[start : start + MESSAGE_BYTES])
                    yield pb.ActivationTransformStreamResponse(data=data)

    async def _begin(self, requests: Requests) -> tuple[ActivationStreamCommand, Layout]:
        """The header, checked: nothing of the tensor's size has been allocated yet."""
        message = await anext(requests, None)
        if message is None or message.WhichOneof("part") != "header":
            raise InvalidInput([FieldViolation("header", "must be the first message of the stream")])
        violations = Violations()
        with violations.within("header"):
            command = decode_stream_header(message.header, violations)
        command = required(command, violations)
        check_chain(command.chain, command.dtype, command.shape, prefix="header.", dtype_prefix="header.")
        plan = layout(command.shape, command.chain)
        self._check_size(plan, item_size(command.dtype))
        return command, plan

    def _check_size(self, plan: Layout, item: int) -> None:
        for what, shape in (("tensor", plan.shape), ("result", plan.output_shape)):
            size = math.prod(shape) * item
            if size > self._max_bytes:
                text = f"The {what} has {size:,} bytes; this server takes at most {self._max_bytes:,}."
                raise EpochdError(Reason.DATA_TOO_LARGE, text)
        needed = plan.slice_elements * item
        if not plan.elementwise and min(needed, plan.block_elements * item) > WHOLE_BYTES:
            text = f"The chain needs {needed:,} bytes at once; at most {WHOLE_BYTES:,} are possible."
            raise EpochdError(Reason.DATA_TOO_LARGE, text)

    async def _by_files(
        self, requests: Requests, plan: Layout, item: int, pieces: Pieces
    ) -> AsyncGenerator[memoryview, None]:
        """The result of a tensor whose pieces are far apart in memory."""
        stop = threading.Event()
        with (
            local_io(),
            tempfile.TemporaryFile(dir=self._folder) as source,
            tempfile.TemporaryFile(dir=self._folder) as target,
        ):
            async for _, piece in _pieces(requests, 1, math.prod(plan.shape) * item):
                await asyncio.to_thread(source.write, piece)
            source.flush()
            try:
                async with self._whole:
                    await self._computer.run(SMALL + 1, lambda: pieces.files(source, target, stop))
            finally:
                stop.set()
            target.seek(0)
            while data := await asyncio.to_thread(target.read, PIECE_BYTES):
                yield memoryview(data)


async def _pieces(requests: Requests, unit: int, total: int) -> AsyncIterator[tuple[int, bytearray]]:
    """The bytes of a stream, gathered to about PIECE_BYTES and cut at multiples of ``unit`` only.

    Yields:
        Offset of the first byte, and the bytes.

    Raises:
        InvalidInput: A message is not data, or all of them are not ``total`` bytes.
    """
    size = max(1, PIECE_BYTES // unit) * unit
    gathered, start = bytearray(), 0
    async for message in requests:
        gathered += _data(message)
        if start + len(gathered) > total:
            raise _wrong_length(f"more than {total:,} bytes were sent", total)
        while len(gathered) >= size:
            yield start, gathered[:size]
            del gathered[:size]
            start += size
    if start + len(gathered) < total:
        raise _wrong_length(f"the stream ended after {start + len(gathered):,} bytes", total)
    if gathered:
        yield start, gathered


def _data(message: pb.ActivationTransformStreamRequest) -> bytes:
    if message.WhichOneof("part") != "data":
        raise InvalidInput([FieldViolation("part", "must be data in every message after the first")])
    data = message.data
    if len(data) > MESSAGE_BYTES:
        raise InvalidInput([FieldViolation("data", f"must be at most {MESSAGE_BYTES:,} bytes a message")])
    return data


def _wrong_length(what: str, total: int) -> InvalidInput:
    return InvalidInput([FieldViolation("data", f"{what}; the header's dtype and shape make {total:,}")])
