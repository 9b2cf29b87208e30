"""Room for requests: who gets it, who waits, and for how long."""

from __future__ import annotations

import asyncio
import time

import pytest

from epochd_server.domain.errors import Code, EpochdError, Reason
from epochd_server.rpc.admission import EXPANSION, MAX_MESSAGE_BYTES, Admission, Room

MEBIBYTE = 2**20


async def refused(taking) -> EpochdError:
    with pytest.raises(EpochdError) as caught:
        await taking
    return caught.value


class TestRoom:
    async def test_what_fits_is_had_at_once_and_given_back_once(self):
        room = Room(100)
        hold = await room.take(50, "a")
        assert room.used == 50
        hold.release()
        hold.release()
        assert room.used == 0

    async def test_who_finds_no_room_gets_it_when_there_is_some(self):
        room = Room(100)
        first, second = await room.take(50, "a"), await room.take(50, "b")
        third = asyncio.ensure_future(room.take(50, "c"))
        await asyncio.sleep(0)
        assert (third.done(), room.waiting) == (False, 1)
        first.release()
        (await third).release()
        second.release()
        assert (room.used, room.waiting) == (0, 0)

    async def test_who_waits_in_vain_is_told_that_the_server_is_busy_and_when_to_come_back(self):
        room = Room(100, patience=0.05)
        await room.take(50, "a"), await room.take(50, "b")
        began = time.monotonic()
        error = await refused(room.take(10, "c"))
        assert (error.reason, error.code) == (Reason.SERVER_BUSY, Code.UNAVAILABLE)
        assert error.retry_after_seconds >= 1
        assert time.monotonic() - began < 1
        assert room.waiting == 0

    async def test_one_client_has_at_most_half_and_hears_that_it_is_its_own_doing(self):
        room = Room(100, patience=0.05)
        await room.take(50, "a")
        error = await refused(room.take(1, "a"))
        assert (error.reason, error.code) == (Reason.CLIENT_BUSY, Code.RESOURCE_EXHAUSTED)
        assert error.retry_after_seconds >= 1
        await room.take(50, "b")

    async def test_a_client_over_its_share_keeps_nobody_else_waiting(self):
        room = Room(100)
        await room.take(50, "a")
        over = asyncio.ensure_future(room.take(10, "a"))
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await room.take(30, "b")
        assert not over.done()
        over.cancel()

    async def test_clients_take_turns_however_many_calls_one_of_them_has_waiting(self):
        room, order = Room(100), []
        holds = [await room.take(50, "x"), await room.take(50, "y")]

        async def one(client):
            hold = await room.take(50, client)
            order.append(client)
            await asyncio.sleep(0)
            hold.release()

        waiting = [asyncio.ensure_future(one(client)) for client in ("a", "a", "a", "b", "c")]
        await asyncio.sleep(0)
        holds[0].release()
        await asyncio.gather(*waiting)
        assert order[:3] == ["a", "b", "c"]
        assert room.used == 50

    async def test_what_becomes_free_at_once_is_given_to_all_that_it_is_enough_for(self):
        room = Room(100)
        large = await room.take(90, "large")
        waiting = [asyncio.ensure_future(room.take(10, "small")) for _ in range(5)]
        await asyncio.sleep(0)
        large.release()
        async with asyncio.timeout(1):
            await asyncio.gather(*waiting)
        assert (room.used, room.waiting) == (50, 0)

    async def test_a_large_request_is_not_passed_for_ever_by_small_ones(self):
        room = Room(100)
        small = [await room.take(20, client) for client in "abcd"]
        large = asyncio.ensure_future(room.take(40, "large"))
        await asyncio.sleep(0)
        late = asyncio.ensure_future(room.take(20, "late"))
        small[0].release()
        await asyncio.sleep(0)
        assert (await large) is not None
        assert not late.done()
        small[1].release()
        await late

    async def test_what_is_larger_than_the_room_goes_alone(self):
        room = Room(100, patience=0.05)
        hold = await room.take(500, "a")
        assert (await refused(room.take(1, "b"))).reason is Reason.SERVER_BUSY
        hold.release()
        await room.take(1, "b")

    async def test_who_leaves_while_it_waits_leaves_nothing_behind(self):
        room = Room(100)
        holds = [await room.take(50, client) for client in "ab"]
        leaving = [asyncio.ensure_future(room.take(50, "c")) for _ in range(3)]
        await asyncio.sleep(0)
        holds[0].release()  # the first of them has it, but does not know yet
        for one in leaving:
            one.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        assert (room.used, room.waiting) == (50, 0)

    async def test_when_to_come_back_follows_how_long_others_take_and_how_many_wait(self):
        room = Room(100, patience=0.01)
        for _ in range(50):
            room._grant("a", 10)
            room.give_back("a", 10, seconds=20.0)
        holds = [await room.take(50, client) for client in "ab"]
        alone = await refused(room.take(50, "c"))
        crowd = await asyncio.gather(*(room.take(50, f"c{n}") for n in range(40)), return_exceptions=True)
        assert 5 < alone.retry_after_seconds < 15
        assert max(error.retry_after_seconds for error in crowd) == 30
        assert len(holds) == 2

    async def test_of_too_many_that_wait_the_next_is_refused_at_once(self, monkeypatch):
        monkeypatch.setattr("epochd_server.rpc.admission.MOST_WAITING", 4)
        room = Room(100)
        holds = [await room.take(50, client) for client in "ab"]
        waiting = [asyncio.ensure_future(room.take(50, client)) for client in "ccde"]
        await asyncio.sleep(0)
        began = time.monotonic()
        assert (await refused(room.take(50, "f"))).reason is Reason.SERVER_BUSY
        assert time.monotonic() - began < 1
        for one in waiting:
            one.cancel()
        assert len(holds) == 2


class TestLease:
    async def test_a_large_request_is_reckoned_with_what_becomes_of_it_until_it_is_done(self):
        admission = Admission(64 * MEBIBYTE)
        with admission.lease("Train", "a") as lease:
            await lease.message(lambda: asyncio.sleep(0, bytes(MEBIBYTE)))
            assert lease._pool.working.used == EXPANSION * MEBIBYTE
            assert lease._pool.arriving.used == 0
        assert lease._pool.working.used == 0

    async def test_a_small_request_is_not_reckoned(self):
        with Admission(64 * MEBIBYTE).lease("Predict", "a") as lease:
            await lease.message(lambda: asyncio.sleep(0, bytes(1_000)))
            assert lease._pool.working.used == 0

    async def test_a_request_that_does_not_come_is_stalled_and_frees_its_room(self):
        lease = Admission(64 * MEBIBYTE, stall_seconds=0.05).lease("Train", "a")
        error = await refused(lease.message(lambda: asyncio.sleep(60)))
        assert (error.reason, error.code) == (Reason.CALL_STALLED, Code.UNAVAILABLE)
        assert lease._pool.arriving.used == 0

    async def test_trainings_never_take_the_room_of_predictions(self):
        admission = Admission(64 * MEBIBYTE)
        trainings = [admission.lease("Train", f"c{n}") for n in range(200)]
        endless = [
            asyncio.ensure_future(lease.message(lambda: asyncio.sleep(60, bytes(1)))) for lease in trainings
        ]
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await admission.lease("Predict", "p").message(lambda: asyncio.sleep(0, bytes(MAX_MESSAGE_BYTES)))
        for one in endless:
            one.cancel()
