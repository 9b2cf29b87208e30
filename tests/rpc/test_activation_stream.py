"""Trainer.ActivationTransformStream over real sockets: the unary call is the oracle."""

from __future__ import annotations

import asyncio
import math
import tempfile
import threading
from collections.abc import AsyncIterator, Sequence

import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochd.v1 import activation_pb2 as pb
from epochd.v1 import tensor_pb2
from epochd_server.domain.activations import Activation, ActivationStep, Operation
from epochd_server.engine.activations import transform
from epochd_server.rpc.activation_stream import BLOCK_BYTES, MESSAGE_BYTES, WHOLE_BYTES, ActivationStreams
from epochd_server.rpc.computing import Computer

FUNCTION = {f: pb.ActivationFunction.Value(f"ACTIVATION_FUNCTION_{f.name}") for f in Activation}
OPERATION = {o: pb.ActivationOperation.Value(f"ACTIVATION_OPERATION_{o.name}") for o in Operation}

SIGMOID = ActivationStep(function=Activation.SIGMOID)
LOGIT = ActivationStep(function=Activation.LOGIT)


def along(function: Activation, axis: int, operation: Operation = Operation.FORWARD) -> ActivationStep:
    return ActivationStep(function=function, operation=operation, axis=axis)


def header(
    shape: Sequence[int], *steps: ActivationStep, dtype: str = "float32", strict: bool = False
) -> pb.ActivationTransformStreamRequest:
    chain = []
    for step in steps:
        message = pb.ActivationStep(function=FUNCTION[step.function], operation=OPERATION[step.operation])
        if step.axis != -1:
            message.axis = step.axis
        chain.append(message)
    number = tensor_pb2.DataType.Value(f"DATA_TYPE_{dtype.upper()}")
    head = pb.ActivationStreamHeader(dtype=number, shape=shape, chain=chain, strict=strict)
    return pb.ActivationTransformStreamRequest(header=head)


def cut(data: bytes, piece: int) -> list[pb.ActivationTransformStreamRequest]:
    return [
        pb.ActivationTransformStreamRequest(data=data[start : start + piece])
        for start in range(0, len(data), piece)
    ]


async def collect(responses: AsyncIterator[pb.ActivationTransformStreamResponse]) -> np.ndarray:
    """The streamed result as an array."""
    first = await anext(responses)
    assert first.WhichOneof("part") == "header"
    data = bytearray()
    async for message in responses:
        assert 1 <= len(message.data) <= MESSAGE_BYTES
        data += message.data
    name = tensor_pb2.DataType.Name(first.header.dtype).removeprefix("DATA_TYPE_").lower()
    return np.frombuffer(bytes(data), name).reshape(tuple(first.header.shape))


async def stream(api, x: np.ndarray, *steps: ActivationStep, piece=MESSAGE_BYTES, strict=False) -> np.ndarray:
    head = header(x.shape, *steps, dtype=x.dtype.name, strict=strict)
    requests = [head, *cut(x.tobytes(), piece)]
    return await collect(aiter(api.trainer.ActivationTransformStream(requests)))


def whole(x: np.ndarray, *steps: ActivationStep) -> np.ndarray:
    return transform(torch.tensor(x), steps).numpy()


SHAPES_AND_CHAINS = {
    "elementwise": ((7, 11), [SIGMOID, LOGIT]),
    "scalar": ((), [SIGMOID]),
    "last axis": ((5, 6, 7), [along(Activation.SOFTMAX, -1)]),
    "middle axis": ((5, 6, 7), [along(Activation.SOFTMAX, 1)]),
    "first axis": ((5, 6, 7), [along(Activation.SOFTMAX, 0)]),
    "first and last": ((5, 6, 7), [along(Activation.SOFTMAX, 0), along(Activation.LOG_SOFTMAX, -1)]),
    "reduced": ((5, 6, 7), [along(Activation.LOGSUMEXP, -1), SIGMOID]),
    "reduced twice": ((5, 6, 7), [along(Activation.LOGSUMEXP, 1), along(Activation.SOFTMAX, -1)]),
    "reduced to a scalar": ((5,), [along(Activation.LOGSUMEXP, 0)]),
    "jacobian": ((5, 6, 7), [along(Activation.SOFTMAX, 1, Operation.DERIVATIVE)]),
    "jacobian of the first axis": ((5, 6), [along(Activation.LOG_SOFTMAX, 0, Operation.DERIVATIVE)]),
    "empty": ((0, 3), [SIGMOID]),
    "empty axis": ((3, 0), [along(Activation.LOGSUMEXP, -1)]),
    "empty and reduced": ((0, 3), [along(Activation.LOGSUMEXP, -1)]),
}


@pytest.mark.parametrize("piece", [1, 13, MESSAGE_BYTES])
@pytest.mark.parametrize("case", SHAPES_AND_CHAINS)
async def test_a_stream_gives_the_bits_of_the_whole(api, case, piece):
    shape, steps = SHAPES_AND_CHAINS[case]
    x = np.random.default_rng(0).uniform(0.1, 0.9, shape).astype("float32")
    np.testing.assert_array_equal(await stream(api, x, *steps, piece=piece), whole(x, *steps))


@pytest.mark.parametrize(
    ("shape", "steps"),
    [
        ((3_000_000,), [SIGMOID]),
        ((3_000, 1_000), [along(Activation.SOFTMAX, -1)]),
        ((3_000, 1_000), [along(Activation.SOFTMAX, 0)]),
        ((3_000_000,), [along(Activation.LOG_SOFTMAX, 0)]),
        ((2, 1_500_000), [along(Activation.SOFTMAX, -1)]),
        ((8, 400), [along(Activation.SOFTMAX, -1, Operation.DERIVATIVE)]),
        ((1_000, 40), [along(Activation.SOFTMAX, 0, Operation.DERIVATIVE)]),
    ],
    ids=str,
)
async def test_a_tensor_of_many_messages_gives_the_bits_of_the_whole(api, shape, steps):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    np.testing.assert_array_equal(await stream(api, x, *steps), whole(x, *steps))


@st.composite
def cases(draw):
    """A shape, a valid chain for it, and where the stream is cut."""
    shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    steps, ndim = [], len(shape)
    for _ in range(draw(st.integers(1, 3))):
        function = draw(st.sampled_from([Activation.TANH, Activation.SOFTMAX, Activation.LOGSUMEXP]))
        if ndim == 0:
            function = Activation.TANH
        axis = draw(st.integers(-ndim, ndim - 1)) if function is not Activation.TANH else -1
        steps.append(ActivationStep(function=function, axis=axis))
        ndim -= function is Activation.LOGSUMEXP
    if ndim and draw(st.booleans()):
        axis = draw(st.integers(-ndim, ndim - 1))
        steps.append(along(Activation.SOFTMAX, axis, Operation.DERIVATIVE))
    return tuple(shape), steps, draw(st.integers(1, 40))


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    computer = Computer(2)
    yield lambda max_bytes=2**20: ActivationStreams(computer, tmp_path_factory.mktemp("spool"), max_bytes)
    computer.close()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases())
def test_any_chain_on_any_shape_cut_anywhere_gives_the_bits_of_the_whole(streams, case):
    shape, steps, piece = case
    x = np.random.default_rng(1).normal(size=shape).astype("float64")

    async def requests():
        yield header(shape, *steps, dtype="float64")
        for message in cut(x.tobytes(), piece):
            yield message

    async def run() -> np.ndarray:
        return await collect(streams().transform(requests()))

    np.testing.assert_array_equal(asyncio.run(run()), whole(x, *steps))


async def test_results_arrive_while_the_request_is_still_being_sent(api):
    x = np.ones(2 * MESSAGE_BYTES // 4, "float32")
    call = api.trainer.ActivationTransformStream()
    await call.write(header((10 * len(x),), SIGMOID))
    assert (await call.read()).WhichOneof("part") == "header"
    for message in cut(x.tobytes(), MESSAGE_BYTES):
        await call.write(message)
    assert len((await asyncio.wait_for(call.read(), 20)).data) > 0
    call.cancel()


@pytest.mark.parametrize(
    ("shape", "steps", "at"),
    [
        ((1_000_000,), [LOGIT], (700_001,)),
        ((1_000, 1_000), [LOGIT], (700, 1)),
        ((20, 50, 1_000), [along(Activation.SOFTMAX, -1)], (7, 3)),
    ],
    ids=str,
)
async def test_a_strict_stream_names_the_index_in_the_whole_tensor(api, shape, steps, at):
    x = np.full(shape, 0.5, "float32")
    x[at] = 2.0 if steps == [LOGIT] else np.nan
    refusal = await api.refused(stream(api, x, *steps, strict=True))
    assert (refusal.code, refusal.reason) == ("OUT_OF_RANGE", "UNDEFINED_VALUE")
    assert refusal.metadata["index"].startswith(", ".join(map(str, at)))
    assert refusal.metadata["index"] in refusal.message
    assert refusal.message.startswith("chain[0]")


async def test_a_strict_stream_through_files_names_the_index_too(api):
    x = np.full((1_000, 3_000), 0.5, "float32")
    x[:, 2_500] = np.nan
    refusal = await api.refused(stream(api, x, along(Activation.SOFTMAX, 0), strict=True))
    assert refusal.metadata["index"] == "0, 2500"


async def test_everything_wrong_with_a_header_is_told_at_once(api):
    head = pb.ActivationStreamHeader(dtype=99, shape=[-1], chain=[pb.ActivationStep()])
    call = api.trainer.ActivationTransformStream([pb.ActivationTransformStreamRequest(header=head)])
    refusal = await api.refused(collect(aiter(call)))
    assert set(refusal.fields) == {"header.dtype", "header.shape[0]", "header.chain[0].function"}


async def test_a_chain_that_does_not_fit_the_shape_is_named_in_the_words_of_the_request(api):
    call = api.trainer.ActivationTransformStream(
        [header((2, 3), along(Activation.SOFTMAX, 7), dtype="int32")]
    )
    refusal = await api.refused(collect(aiter(call)))
    assert set(refusal.fields) == {"header.dtype", "header.chain[0].axis"}


DATA = pb.ActivationTransformStreamRequest(data=bytes(8))


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([], "header"),
        ([DATA], "header"),
        ([pb.ActivationTransformStreamRequest()], "header"),
        ([header((4,), SIGMOID), header((4,), SIGMOID)], "part"),
        ([header((4,), SIGMOID), pb.ActivationTransformStreamRequest()], "part"),
        ([header((4,), SIGMOID), DATA], "data"),
        ([header((4,), SIGMOID), DATA, DATA, DATA], "data"),
        ([header((0,), SIGMOID), DATA], "data"),
        ([header((4, 4), along(Activation.SOFTMAX, 0)), DATA], "data"),
        ([header((2**20,), SIGMOID), pb.ActivationTransformStreamRequest(data=bytes(2**21 + 1))], "data"),
    ],
)
async def test_a_stream_that_is_not_one_header_and_its_bytes_is_refused(api, requests, field):
    refusal = await api.refused(collect(aiter(api.trainer.ActivationTransformStream(requests))))
    assert (refusal.code, set(refusal.fields)) == ("INVALID_ARGUMENT", {field})


@pytest.mark.parametrize(
    ("shape", "steps"),
    [
        ((2**40,), [SIGMOID]),
        ((2**20,), [along(Activation.SOFTMAX, -1, Operation.DERIVATIVE)]),
        ((WHOLE_BYTES // 4,), [along(Activation.SOFTMAX, -1)]),
    ],
    ids=str,
)
async def test_what_is_too_large_is_refused_before_any_byte(api, shape, steps):
    call = api.trainer.ActivationTransformStream([header(shape, *steps)])
    refusal = await api.refused(collect(aiter(call)))
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "DATA_TOO_LARGE")


async def test_a_call_that_is_cancelled_leaves_no_temporary_file(streams, monkeypatch):
    opened, open_file = [], tempfile.TemporaryFile

    def recorded(**arguments):
        opened.append(open_file(**arguments))
        return opened[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", recorded)

    async def requests():
        yield header((1_000, 3_000), along(Activation.SOFTMAX, 0))
        yield pb.ActivationTransformStreamRequest(data=bytes(MESSAGE_BYTES))
        waits.set()
        await asyncio.Event().wait()

    waits = asyncio.Event()
    call = asyncio.create_task(collect(streams(2**30).transform(requests())))
    await waits.wait()
    assert [file.closed for file in opened] == [False, False]
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert [file.closed for file in opened] == [True, True]


@pytest.mark.parametrize("steps", [[SIGMOID], [along(Activation.SOFTMAX, -1)]], ids=["elementwise", "rows"])
async def test_64_mebibytes_go_through_in_bounded_memory(api, server, steps):
    """Less than a quarter of the tensor is held at any time."""
    process = psutil.Process(server.process.pid)
    await stream(
        api, np.ones((1024, 1024), "float32"), *steps
    )  # what stays from a first call is no matter here
    before, most, ended = process.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.005):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    call = api.trainer.ActivationTransformStream(_megabytes(64, steps))
    received = 0
    async for message in call:
        received += len(message.data)
    ended.set()
    watcher.join()
    assert received == 64 * 2**20
    assert most - before < 16 * 2**20 + BLOCK_BYTES


async def _megabytes(count: int, steps: list[ActivationStep]):
    yield header((count * 256, 1024), *steps)
    piece = np.linspace(-5, 5, MESSAGE_BYTES // 4, dtype="float32").tobytes()
    for _ in range(math.ceil(count * 2**20 / MESSAGE_BYTES)):
        yield pb.ActivationTransformStreamRequest(data=piece)
