"""Events come back from storage as they were, and say to clients what they say in the domain."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochd.v1 import run_pb2 as pb
from epochd.v1.trainer_pb2 import TrainResponse
from epochd_server.codec import events
from epochd_server.codec.pages import EventPage
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.fleets import Key
from epochd_server.domain.runs import EpochLog, Event, Failure, FleetProgress, MemberLog, Started


def same_log(left: EpochLog, right: EpochLog) -> bool:
    numbers = [[log.epoch, log.loss, log.lr, log.rows_per_second] for log in (left, right)]
    if (left.validation_loss, left.metrics) != (right.validation_loss, right.metrics):
        return False
    return same_parameters(left, right) and np.array_equal(*numbers, equal_nan=True)


def same_parameters(left: EpochLog, right: EpochLog) -> bool:
    if left.parameters is None or right.parameters is None:
        return left.parameters is right.parameters
    return list(left.parameters) == list(right.parameters) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(left.parameters.values(), right.parameters.values(), strict=True)
    )


def same_key(left: Key, right: Key) -> bool:
    """Equal, and of the same types: 1 == 1.0, but not to a fleet."""
    return left == right and list(map(type, left)) == list(map(type, right))


@given(st.from_type(Event))
def test_an_event_survives_storage(event: Event) -> None:
    decoded = events.decode(events.encode(event))
    assert (decoded.sequence, decoded.time) == (event.sequence, event.time)
    if isinstance(event.body, EpochLog):
        assert isinstance(decoded.body, EpochLog)
        assert same_log(decoded.body, event.body)
    elif isinstance(event.body, MemberLog):
        assert isinstance(decoded.body, MemberLog)
        assert same_key(decoded.body.key, event.body.key)
        assert same_log(decoded.body.log, event.body.log)
    else:
        assert decoded.body == event.body


@given(st.binary(max_size=60))
def test_other_bytes_are_corrupt(data: bytes) -> None:
    try:
        events.decode(data)
    except EpochdError as error:
        assert error.reason is Reason.ARTIFACT_CORRUPT  # noqa: PT017


def test_what_is_stored_is_the_message_that_clients_get() -> None:
    event = Event(3, datetime(2026, 7, 1, 12, 30, 0, 250_000, UTC), EpochLog(epoch=2, loss=0.5, lr=0.1))
    message = pb.Event.FromString(events.encode(event))
    assert message == events.to_message(event)
    assert message.time.ToDatetime(UTC) == event.time
    assert message.epoch_log.loss == 0.5


def test_an_epoch_of_a_failure_may_be_0_or_nothing() -> None:
    failure = Failure(reason="LOSS_NOT_FINITE", message="m", epoch=0)
    assert events.encode_failure(failure).HasField("epoch")
    assert not events.encode_failure(replace(failure, epoch=None)).HasField("epoch")


@settings(suppress_health_check=[HealthCheck.filter_too_much])  # one event in ten is a start
@given(st.from_type(Event).filter(lambda event: isinstance(event.body, Started)))
def test_a_full_batch_is_reported_as_all_rows(event: Event) -> None:
    body = event.body
    assert isinstance(body, Started)
    expected = body.rows if body.spec.fit.batch_size is None else body.spec.fit.batch_size
    assert events.to_message(event).started.batch_size == expected


def test_quantiles_are_unset_before_the_first_member_ended_well() -> None:
    progress = FleetProgress(
        members_done=0,
        members_failed=0,
        members_total=3,
        loss_quantiles=None,
        worst=(),
        eta_seconds=1.0,
        elapsed_seconds=0.0,
    )
    time = datetime(2026, 7, 1, tzinfo=UTC)
    assert not events.to_message(Event(1, time, progress)).fleet_progress.HasField("loss")
    known = replace(progress, loss_quantiles=(0.0, 0.0, 0.0, 0.0, 0.0), worst=((("a", 3), 0.0),))
    message = events.to_message(Event(1, time, known)).fleet_progress
    assert message.HasField("loss")
    assert [value.WhichOneof("value") for value in message.worst[0].key.values] == ["text", "integer"]


def test_a_key_without_values_is_corrupt() -> None:
    with pytest.raises(EpochdError) as caught:
        events.from_message(pb.Event(member_log=pb.MemberLog()))
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT


@given(st.lists(st.from_type(Event), max_size=3), st.sampled_from([0, 100, 130, 20_000, 3_000_000]))
def test_a_page_is_the_message_that_holds_these_events(page: list[Event], size: int) -> None:
    long = Event(1, datetime(2026, 7, 1, tzinfo=UTC), Failure(reason="A", message="m" * size))
    response = TrainResponse(events=map(events.to_message, [*page, long]))
    assert TrainResponse.FromString(EventPage.of([*page, long]).data) == response


def test_an_event_that_was_stored_is_sent_as_it_was_stored() -> None:
    event = Event(3, datetime(2026, 7, 1, tzinfo=UTC), EpochLog(epoch=2, loss=0.5, lr=0.1))
    stored = events.encode(event)
    assert events.encode(events.decode(stored)) is stored
    assert events.decode(stored).encoded == event.encoded
