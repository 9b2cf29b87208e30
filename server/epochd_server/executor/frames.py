"""Frames on the socket between the server and a worker: a pickle, and the large arrays in it as raw bytes.

    u64 bytes of pickle │ u32 number of buffers │ u64 bytes of each buffer │ pickle │ buffers

Both ends are this very program on this machine, joined by a socket pair that nobody else can reach.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from typing import Any

_HEAD = struct.Struct("<QI")
_LARGE_BYTES = 64 * 1024
_CHUNK_BYTES = 1024 * 1024


def encode(message: object) -> list[bytes | memoryview]:
    """The parts of a message's frame, in order. Large arrays are not copied."""
    buffers: list[memoryview] = []

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < _LARGE_BYTES:
            return True
        buffers.append(view)
        return False

    body = pickle.dumps(message, protocol=5, buffer_callback=is_small)
    sizes = struct.pack(f"<{len(buffers)}Q", *(buffer.nbytes for buffer in buffers))
    return [_HEAD.pack(len(body), len(buffers)) + sizes + body, *buffers]


def send(connection: socket.socket, message: object) -> None:
    """Sends a frame; blocks until it is on its way.

    Raises:
        OSError: The other end is gone.
    """
    for part in encode(message):
        connection.sendall(part)


def receive(connection: socket.socket) -> Any:
    """The next message; blocks until it is there. Its arrays are writable.

    Raises:
        EOFError: The other end is gone.
    """
    body_size, count = _HEAD.unpack(_receive_exactly(connection, _HEAD.size))
    sizes = struct.unpack(f"<{count}Q", _receive_exactly(connection, 8 * count))
    body = _receive_exactly(connection, body_size)
    buffers = [_receive_exactly(connection, size) for size in sizes]
    return pickle.loads(body, buffers=buffers)  # noqa: S301 - see above: no stranger writes to this socket


async def write(writer: asyncio.StreamWriter, message: object) -> None:
    """Sends a frame without blocking the loop.

    Raises:
        ConnectionError: The other end is gone.
    """
    for part in encode(message):
        for start in range(0, len(part), _CHUNK_BYTES):
            writer.write(part[start : start + _CHUNK_BYTES])
            await writer.drain()


async def read(reader: asyncio.StreamReader) -> Any:
    """The next message. Its large arrays are read-only.

    Raises:
        asyncio.IncompleteReadError: The other end is gone.
    """
    body_size, count = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    sizes = struct.unpack(f"<{count}Q", await reader.readexactly(8 * count))
    body = await reader.readexactly(body_size)
    buffers = [await reader.readexactly(size) for size in sizes]
    return pickle.loads(body, buffers=buffers)  # noqa: S301 - see above


def _receive_exactly(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError("the other end is gone")
        view = view[count:]
    return data
