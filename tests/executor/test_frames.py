"""Frames arrive as they were sent, by blocking and by asynchronous ends alike."""

from __future__ import annotations

import asyncio
import socket
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from epochd_server.executor import frames

ANY_ARRAY = arrays.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.bool_]),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=60),
)
MESSAGES = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=20), ANY_ARRAY),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def same(one, other):
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def large(megabytes):
    return np.random.default_rng(0).normal(size=megabytes * 2**17)


@settings(deadline=None, max_examples=60)
@given(st.lists(MESSAGES, min_size=1, max_size=3))
def test_what_one_end_sends_the_other_receives(messages):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=lambda: [frames.send(ours, message) for message in messages])
        sender.start()
        assert all(same(message, frames.receive(theirs)) for message in messages)
        sender.join()


def test_received_arrays_are_writable_and_large_ones_are_sent_without_a_copy():
    array = large(1)
    parts = frames.encode({"array": array})
    assert np.shares_memory(np.frombuffer(parts[1]), array)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=frames.send, args=(ours, {"array": array}))
        sender.start()
        received = frames.receive(theirs)["array"]
        sender.join()
    received[0] = 7.0
    assert same(received[1:], array[1:])


async def asynchronous(connection):
    connection.setblocking(False)
    return await asyncio.open_unix_connection(sock=connection)


async def test_large_messages_cross_both_ways_without_blocking_the_loop():
    ours, theirs = socket.socketpair()
    reader, writer = await asynchronous(ours)
    message = {"array": large(16), "more": [large(1), "text"]}

    def echo():
        frames.send(theirs, frames.receive(theirs))

    other = threading.Thread(target=echo)
    other.start()
    await frames.write(writer, message)
    answer = await frames.read(reader)
    other.join()
    assert same(answer, message)
    writer.close()
    await writer.wait_closed()
    theirs.close()


@pytest.mark.parametrize("sent", [0, 1, 11, 12, 40])
async def test_an_end_that_closes_in_the_middle_of_a_frame_is_noticed(sent):
    frame = b"".join(frames.encode(list(range(100))))
    ours, theirs = socket.socketpair()
    theirs.sendall(frame[:sent])
    theirs.close()
    reader, writer = await asynchronous(ours)
    with pytest.raises(asyncio.IncompleteReadError):
        await frames.read(reader)
    writer.close()
    await writer.wait_closed()

    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(frame[:sent])
        theirs.close()
        with pytest.raises(EOFError):
            frames.receive(ours)
