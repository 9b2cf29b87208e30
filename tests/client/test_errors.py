"""From the server's status to the exception; and what is tried again."""

from __future__ import annotations

import time

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

import epochd
from epochd._transport.failures import build
from epochd.errors import BY_CODE
from epochd.v1 import errors_pb2


def test_every_code_has_a_class_and_every_class_is_in_the_tree():
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            error = build(code.name, "", errors_pb2.ErrorStatus())
            assert isinstance(error, epochd.EpochdError)
            assert type(error) is BY_CODE.get(code.name, epochd.Internal)
    for name in (
        kind.__name__ for kind in (*BY_CODE.values(), epochd.TrainingFailed, epochd.TrainingCancelled)
    ):
        assert f"── {name} " in epochd.errors.__doc__


def test_details_of_googles_own_messages_are_understood():
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="bad")
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason="INVALID_FIELDS", domain="epochd", metadata={"request_id": "abc"})
    )
    violation = error_details_pb2.BadRequest.FieldViolation(
        field="optimizer.sgd.lr", description="must be > 0, is -1"
    )
    status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation, violation]))
    status.details.add().Pack(error_details_pb2.Help())  # unknown to the client: passed over
    mirrored = errors_pb2.ErrorStatus.FromString(status.SerializeToString())
    error = build("INVALID_ARGUMENT", "bad", mirrored)
    assert isinstance(error, epochd.InvalidArgument)
    assert isinstance(error, ValueError)
    assert (error.reason, error.request_id, error.code) == ("INVALID_FIELDS", "abc", "INVALID_ARGUMENT")
    assert error.violations == (epochd.Violation("optimizer.sgd.lr", "must be > 0, is -1"),) * 2
    assert str(error) == (
        "The request has 2 invalid fields:\n"
        "  optimizer.sgd.lr: must be > 0, is -1\n"
        "  optimizer.sgd.lr: must be > 0, is -1"
    )


def test_a_not_found_resource_raises_with_reason_and_metadata(call):
    with pytest.raises(epochd.NotFound) as caught:
        call(lambda c: c.run("nowhere"))
    assert caught.value.reason == "RUN_NOT_FOUND"
    assert caught.value.metadata == {"run": "runs/nowhere"}


def test_an_error_without_details_still_has_its_class(call, fake):
    fake.does.fail("GetVersion", grpc.StatusCode.FAILED_PRECONDITION)
    with pytest.raises(epochd.FailedPrecondition, match="as the test wants") as caught:
        call(lambda c: c.model("x"))
    assert caught.value.reason == ""


def test_a_read_is_tried_again_while_the_server_is_unavailable(call, fake):
    fake.does.fail("GetVersion", grpc.StatusCode.UNAVAILABLE, times=3)
    assert call(lambda c: c.model("x")).version == 3
    assert fake.does.count("GetVersion") == 4


def test_tries_are_limited(call, fake):
    fake.does.fail("GetVersion", grpc.StatusCode.UNAVAILABLE, times=10)
    with pytest.raises(epochd.Unavailable):
        call(lambda c: c.model("x"))
    assert fake.does.count("GetVersion") == 4


def test_what_is_wrong_stays_wrong_and_is_not_tried_again(call, fake):
    fake.does.fail("GetVersion", grpc.StatusCode.INVALID_ARGUMENT)
    with pytest.raises(epochd.InvalidArgument):
        call(lambda c: c.model("x"))
    assert fake.does.count("GetVersion") == 1


def test_a_full_queue_is_tried_again_as_late_as_the_server_asks(
    call, fake, detail, retry_info, train_arguments
):
    fake.does.fail(
        "Train",
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        details=[
            detail("ErrorInfo", errors_pb2.ErrorInfo(reason="QUEUE_FULL")),
            detail("RetryInfo", retry_info),
        ],
    )
    began = time.monotonic()
    call(lambda c: c.train([[1.0]], [2.0], **train_arguments))
    assert time.monotonic() - began >= 0.02
    assert fake.does.count("Train") == 2


def test_what_is_too_large_is_not_tried_again(call, fake, detail, train_arguments):
    info = errors_pb2.ErrorInfo(reason="MODEL_TOO_LARGE")
    fake.does.fail("Train", grpc.StatusCode.RESOURCE_EXHAUSTED, details=[detail("ErrorInfo", info)])
    with pytest.raises(epochd.ResourceExhausted) as caught:
        call(lambda c: c.train([[1.0]], [2.0], **train_arguments))
    assert caught.value.reason == "MODEL_TOO_LARGE"
    assert caught.value.retry_after is None
    assert fake.does.count("Train") == 1


def test_nobody_listening_names_the_address_and_the_command():
    with pytest.raises(epochd.ConnectionFailed) as caught:
        epochd.connect("127.0.0.1:1")
    assert isinstance(caught.value, epochd.Unavailable)
    assert "No epochd server answers at 127.0.0.1:1." in str(caught.value)
    assert "epochd serve --listen 127.0.0.1:1" in str(caught.value)


async def test_nobody_listening_names_the_address_under_asyncio_too():
    with pytest.raises(epochd.ConnectionFailed, match=r"at 127\.0\.0\.1:1\."):
        async with epochd.aio.connect("127.0.0.1:1"):
            pass


def test_a_connection_that_is_lost_later_is_a_failed_connection(call, fake, steps):
    @steps
    def use(client):
        yield client.model("x")
        fake.stop()
        yield client.model("x")

    with pytest.raises(epochd.ConnectionFailed):
        call(use)


def test_a_deadline_is_a_timeout_error(call, fake):
    def slow(request, context):
        time.sleep(0.5)

    fake.does.GetVersion = slow
    fake.restart()
    with pytest.raises(epochd.DeadlineExceeded) as caught:
        call(lambda c: c.model("x"), timeout=0.1)
    assert isinstance(caught.value, TimeoutError)


def test_every_call_has_a_deadline(call, fake):
    left = []
    original = fake.does.GetVersion

    def watched(request, context):
        left.append(context.time_remaining())
        return original(request, context)

    fake.does.GetVersion = watched
    fake.restart()
    call(lambda c: c.model("x"), timeout=epochd.Timeout(call=7.0))
    assert 5 < left[0] < 8  # gRPC rounds up a little


def test_calls_carry_who_asks_and_an_id(call, fake, steps):
    @steps
    def use(client):
        yield client.model("x")
        yield client.model("x")

    call(use)
    call(lambda c: c.model("x"), client_name="billing")
    first, second, third = fake.does.metadata
    assert first["epochd-client"] == second["epochd-client"]
    assert first["epochd-client"].startswith("python-")
    assert third["epochd-client"] == "billing"
    assert len({m["x-request-id"] for m in fake.does.metadata}) == 3
    assert first["user-agent"].startswith("epochd-python/")


def test_a_closed_client_says_so(fake):
    client = epochd.connect(fake.address)
    client.close()
    with pytest.raises(RuntimeError, match="this client is closed"):
        client.model("x")


async def test_an_asyncio_client_must_be_entered():
    with pytest.raises(RuntimeError, match="async with"):
        await epochd.aio.connect("127.0.0.1:1").model("x")


def test_connecting_waits_for_a_server_that_starts(fake):
    import threading

    fake.stop()
    starting = threading.Timer(0.3, fake.restart)
    starting.start()
    with epochd.connect(fake.address, wait=10.0) as client:
        assert client.model("x").version == 3
    starting.join()


def test_reprs_name_what_they_stand_for(fake):
    with epochd.connect(fake.address) as client:
        assert repr(client) == f"<Client of {fake.address}>"
        assert repr(client.model("x")) == "<Model models/house-price/versions/3>"
        assert repr(client.run("r1")) == "<Run runs/r1 → models/house-price>"


def test_delays_double_up_to_a_maximum_with_jitter_and_respect_the_server():
    retry = epochd.Retry(initial=1.0, maximum=4.0)
    for failures, ceiling in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 4.0), (10_000, 4.0)):
        delays = [retry.delay(failures) for _ in range(50)]
        assert all(ceiling / 2 <= delay <= ceiling for delay in delays)
        assert len(set(delays)) > 1
    asked = [retry.delay(1, retry_after=30.0) for _ in range(50)]
    assert all(30.0 <= delay <= 37.5 for delay in asked)
    assert len(set(asked)) > 40
