"""Epochs encoded from columns are the messages that they would be one by one."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from epochd.v1 import run_pb2
from epochd.v1.trainer_pb2 import TrainResponse
from epochd_server.codec import events
from epochd_server.codec.pages import EventPage
from epochd_server.codec.wire import varint
from epochd_server.domain.epoch_columns import EpochColumns
from epochd_server.domain.runs import Cancelled, Event, Warned

NOW = datetime(2026, 7, 1, 12, 30, 0, 250_000, UTC)
NUMBERS = st.floats(width=64)


@st.composite
def columns(draw: st.DrawFn) -> EpochColumns:
    count = draw(st.integers(1, 5))

    def numbers() -> list[float]:
        return draw(st.lists(NUMBERS, min_size=count, max_size=count))

    shapes = draw(
        st.dictionaries(st.text(min_size=1, max_size=3), st.lists(st.integers(1, 3), max_size=3), max_size=2)
    )
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return EpochColumns(
        epochs=sorted(draw(st.lists(st.integers(0, 2**40), min_size=count, max_size=count, unique=True))),
        losses=numbers(),
        lrs=numbers(),
        rows_per_second=numbers(),
        parameters={name: draw(arrays.arrays(dtype, (count, *shape))) for name, shape in shapes.items()},
    )


def message_bytes(data: bytes) -> bytes:
    """A message in the one form that its content has."""
    return run_pb2.Event.FromString(data).SerializeToString(deterministic=True)


@given(columns(), st.integers(1, 2**40))
def test_columns_are_the_messages_of_their_epochs(logs: EpochColumns, first: int) -> None:
    page = EventPage.write(first, [(NOW, logs)])
    assert len(page) == len(logs)
    for index, message in enumerate(page.messages):
        expected = events.to_message(Event(first + index, NOW, logs[index]))
        assert message_bytes(message) == expected.SerializeToString(deterministic=True)
        assert page[index].body.epoch == logs.epochs[index]


@given(columns(), st.integers(0, 7), st.integers(0, 7))
def test_parts_of_a_page_are_pages_that_join_again(logs: EpochColumns, start: int, stop: int) -> None:
    page = EventPage.write(
        4, [(NOW, Warned(reason="A", message="b")), (NOW, logs), (NOW, Cancelled(epochs=1))]
    )
    assert [event.sequence for event in page] == list(range(4, page.last + 1))
    part = page[start:stop]
    assert [event.sequence for event in part] == [event.sequence for event in page][start:stop]
    joined = page[:start] + page[start:]
    assert list(joined.messages) == list(page.messages)
    assert len(TrainResponse.FromString(joined.data).events) == len(page) == len(logs) + 2


@given(columns(), st.data())
def test_a_slice_of_columns_has_the_epochs_of_the_slice(logs: EpochColumns, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(logs)))
    assert [log.epoch for log in logs[cut:]] == list(logs.epochs)[cut:]
    assert [repr(log) for log in logs[cut:]] == [repr(log) for log in list(logs)[cut:]]


@given(st.integers(0, 2**63))
def test_a_varint_is_protobufs(number: int) -> None:
    event = run_pb2.Event(sequence=number % 2**63)
    assert event.SerializeToString() == (b"\x08" + varint(number % 2**63) if number % 2**63 else b"")
