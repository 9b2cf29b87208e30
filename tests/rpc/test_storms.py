"""A real server under more requests than it has memory for."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import numpy as np
import psutil
import pytest
from google.rpc import error_details_pb2, status_pb2

from epochd.v1 import activation_pb2, tensor_pb2, trainer_pb2_grpc
from epochd_server.rpc.calls import CLIENT_KEY

MEBIBYTE = 2**20
RELU = activation_pb2.ActivationStep(
    function=activation_pb2.ACTIVATION_FUNCTION_RELU, operation=activation_pb2.ACTIVATION_OPERATION_FORWARD
)
SMALLEST = ("--request-memory-bytes", str(64 * MEBIBYTE))
"""The least that a server can be given for requests."""


async def outcome(call) -> str:
    """OK, or the reason of the refusal, which says when to come back."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        for detail in status.details:
            detail.Unpack(info)
            detail.Unpack(retry)
        assert retry.retry_delay.seconds >= 1
        return info.reason
    return "OK"


async def test_a_storm_of_large_requests_stays_within_the_memory_for_them(start_server, linear, tensor):
    """More than 600 MB at once against a server that has 64 MiB for them; other calls are answered meanwhile."""
    server = start_server(*SMALLEST)
    process, peak = psutil.Process(server.process.pid), 0
    x = np.random.default_rng(0).normal(size=(60_000, 16))
    data = linear(x, x.sum(axis=1), epochs=1).SerializeToString()
    assert len(data) > 3.8 * MEBIBYTE
    small = activation_pb2.ActivationTransformRequest(input=tensor([1.0]), chain=[RELU])
    async with grpc.aio.insecure_channel(server.address) as channel:
        train = channel.unary_stream("/epochd.v1.Trainer/Train")
        trainer = trainer_pb2_grpc.TrainerStub(channel)

        async def first_answer(number: int) -> None:
            await train(data, metadata=((CLIENT_KEY, f"client-{number}"),)).read()

        await first_answer(0)
        before = process.memory_info().rss
        storm = [asyncio.ensure_future(outcome(first_answer(number))) for number in range(160)]
        while not all(call.done() for call in storm):
            await trainer.ActivationTransform(small, timeout=5)
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.01)
    outcomes = [call.result() for call in storm]
    assert outcomes.count("OK") >= 3
    assert set(outcomes) <= {"OK", "SERVER_BUSY"}
    assert (
        peak - before < 200 * MEBIBYTE
    )  # the 64, the rows of those accepted, the first bytes of all that wait


async def test_one_client_cannot_take_all_streams(start_server, connect):
    """Half of the room for streams is one of them, at the smallest setting."""
    server = start_server(*SMALLEST)
    header = activation_pb2.ActivationStreamHeader(
        dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[4], chain=[RELU]
    )
    async with connect(server.address) as api:

        async def begun(client: str):
            stream = api.trainer.ActivationTransformStream(metadata=((CLIENT_KEY, client),))
            await stream.write(activation_pb2.ActivationTransformStreamRequest(header=header))
            return stream

        first = await begun("greedy")
        assert (await first.read()).HasField("header")
        refusal = await api.refused((await begun("greedy")).read())
        assert (refusal.reason, refusal.code) == ("CLIENT_BUSY", "RESOURCE_EXHAUSTED")
        assert refusal.retry_after >= 1
        other = await begun("other")
        assert (await other.read()).HasField("header")
        for stream in (first, other):
            stream.cancel()


async def test_a_request_that_stops_on_its_way_is_ended(start_server, connect):
    server = start_server("--stall-timeout", "0.5")
    async with connect(server.address) as api:
        stream = api.trainer.ActivationTransformStream()
        refusal = await api.refused(stream.read())
    assert (refusal.reason, refusal.code) == ("CALL_STALLED", "UNAVAILABLE")


@pytest.mark.parametrize("shape", ["unary_unary", "unary_stream"])
async def test_a_call_without_its_request_is_invalid(channel, api, shape):
    """No stub does that; on the wire it is a stream that ends before its first message."""
    method = {"unary_unary": "/epochd.v1.Trainer/Predict", "unary_stream": "/epochd.v1.Trainer/Train"}[shape]
    refusal = await api.refused(channel.stream_unary(method)(iter(())))
    assert refusal.code == "INVALID_ARGUMENT"


def test_a_client_that_takes_no_results_of_its_stream_is_ended(start_server):
    """The server stops to read, and waits for a while; the pieces that were taken are right.

    Over a blocking channel: grpc.aio loses the status where a write is under way (grpc/grpc#36066).
    """
    server = start_server("--stall-timeout", "1")
    values = np.arange(16 * MEBIBYTE, dtype=np.float32) - 1_000
    data, sent = values.tobytes(), []

    def requests():
        yield activation_pb2.ActivationTransformStreamRequest(
            header=activation_pb2.ActivationStreamHeader(
                dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=values.shape, chain=[RELU]
            )
        )
        for start in range(0, len(data), MEBIBYTE):
            sent.append(start)
            yield activation_pb2.ActivationTransformStreamRequest(data=data[start : start + MEBIBYTE])

    taken = bytearray()
    with grpc.insecure_channel(server.address) as channel:
        responses = trainer_pb2_grpc.TrainerStub(channel).ActivationTransformStream(requests())
        server.wait_for_log('"CALL_STALLED"')
        assert len(sent) < len(data) // MEBIBYTE
        with pytest.raises(grpc.RpcError) as caught:
            taken.extend(byte for response in responses for byte in response.data)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(taken) < len(data)  # nothing at all, where the end overtook what the client had not looked at
    expected = np.maximum(values[: len(taken) // 4], 0)
    np.testing.assert_array_equal(np.frombuffer(bytes(taken), np.float32), expected)
