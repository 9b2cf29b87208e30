"""Training through both clients: starting, following, ending."""

from __future__ import annotations

import threading

import grpc
import numpy as np
import pytest

import epochd
from epochd import events


def test_train_returns_a_run_as_soon_as_it_is_queued(call, fake, train_arguments):
    fake.does.hold.clear()
    fake.does.held_from = 1
    run = call(lambda c: c.train([[1.0], [2.0]], [2.0, 4.0], **train_arguments))
    assert run.name == "runs/r1"
    assert run.model == "models/house-price"


def test_logs_come_with_epoch_loss_rate_and_parameters(call, steps, train_arguments):
    @steps
    def use(client):
        run = yield client.train([[1.0], [2.0]], [2.0, 4.0], **train_arguments)
        return (yield run.logs())

    logs = call(use)
    assert [log.epoch for log in logs] == [0, 1, 2, 3, 4]
    assert logs[1].loss == 0.5
    assert logs[1].lr == 0.01
    assert logs[1].rows_per_second == 1500
    assert logs[1].metrics == {"loss": 0.5, "lr": 0.01, "rows_per_second": 1500}
    np.testing.assert_array_equal(logs[2].parameters["linear.weight"], np.float32([[1.0]]))
    assert str(logs[1]) == "Epoch 1/4  loss 0.500000  lr 0.01  linear.weight 0.500  1.5k rows/s"


def test_events_are_those_of_the_run_from_queued_to_succeeded(call, steps, train_arguments):
    @steps
    def use(client):
        run = yield client.train([[1.0], [2.0]], [2.0, 4.0], **train_arguments)
        return (yield run.events())

    seen = call(use)
    assert [event.sequence for event in seen] == list(range(1, 9))
    assert isinstance(seen[0], events.Queued)
    assert isinstance(seen[1], events.Started)
    assert isinstance(seen[-1], events.Succeeded)
    assert seen[0].time.tzinfo is not None
    assert all(str(event) for event in seen)


def test_a_stream_that_stays_open_after_the_last_event_does_not_hold_up(call, fake, steps, train_arguments):
    original = fake.does.Train

    def train(request, context):
        yield from original(request, context)
        while context.is_active():
            threading.Event().wait(0.05)

    fake.does.Train = train
    fake.restart()

    @steps
    def use(client):
        run = yield client.train([[1.0], [2.0]], [2.0, 4.0], **train_arguments)
        return (yield run.events())

    assert len(call(use)) == 8


def test_iterating_twice_replays_without_asking_the_server(call, fake, steps, train_arguments):
    @steps
    def use(client):
        run = yield client.train([[1.0], [2.0]], [2.0, 4.0], **train_arguments)
        return (yield run.events()), (yield run.events())

    first, second = call(use)
    assert first == second
    assert fake.does.count("WatchRun") == 0, "the Train stream gave it all"


def test_result_is_the_model_that_was_trained(call, steps, train_arguments):
    @steps
    def use(client):
        run = yield client.train([[1.0], [2.0]], [2.0, 4.0], **train_arguments)
        return (yield run.result()), (yield run.state)

    model, state = call(use)
    assert (model.name, model.version, model.run) == ("house-price", 3, "runs/r1")
    assert state is epochd.State.SUCCEEDED


def test_result_after_logs_needs_no_second_watch(call, fake, steps, train_arguments):
    @steps
    def use(client):
        run = yield client.train([[1.0], [2.0]], [2.0, 4.0], **train_arguments)
        yield run.logs()
        return (yield run.result())

    call(use)
    assert fake.does.count("WatchRun") == 0


def test_a_failed_run_raises_with_reason_hint_and_epoch(call, fake, steps, events_of, train_arguments):
    fake.does.events = events_of(end="failed")

    @steps
    def use(client):
        run = yield client.train([[1.0], [2.0]], [2.0, 4.0], **train_arguments)
        yield run.result()

    with pytest.raises(epochd.TrainingFailed) as caught:
        call(use)
    error = caught.value
    assert (error.reason, error.hint, error.epoch, error.run) == (
        "LOSS_NOT_FINITE", "Try a smaller lr.", 4, "runs/r1",
    )  # fmt: skip
    assert str(error) == "runs/r1 failed in epoch 4: The loss is NaN. [LOSS_NOT_FINITE]\n  Try a smaller lr."


def test_a_cancelled_run_raises_training_cancelled(call, fake, steps, train_arguments):
    fake.does.hold.clear()

    @steps
    def use(client):
        run = yield client.train([[1.0], [2.0]], [2.0, 4.0], **train_arguments)
        yield run.cancel()
        yield run.result()

    with pytest.raises(epochd.TrainingCancelled, match="after 3 epochs"):
        call(use)


def test_a_broken_watch_goes_on_without_gap_or_repeat(call, fake, steps, train_arguments):
    fake.does.break_after = [3, 2, 0, 1]  # the Train stream, then three watches, of which one brings nothing

    @steps
    def use(client):
        run = yield client.train([[1.0], [2.0]], [2.0, 4.0], **train_arguments)
        return (yield run.events())

    assert [event.sequence for event in call(use)] == list(range(1, 9))
    watches = [r.after_sequence for r in fake.does.requests if hasattr(r, "after_sequence")]
    assert watches == [3, 5, 5, 6]


def test_a_watch_outlives_a_restart_of_the_server(call, fake, steps, train_arguments):
    fake.does.hold.clear()

    def restart():
        fake.restart()
        fake.does.hold.set()

    @steps
    def use(client):
        run = yield client.train([[1.0], [2.0]], [2.0, 4.0], **train_arguments)
        restarting = threading.Thread(target=restart)
        restarting.start()
        seen = yield run.events()
        restarting.join()
        return seen

    assert [event.sequence for event in call(use)] == list(range(1, 9))
    assert fake.does.count("WatchRun") >= 1


def test_a_gap_in_a_stream_is_mended_by_another_watch(call, fake, steps, events_of, train_arguments):
    whole = events_of()
    fake.does.events = [*whole[:3], *whole[4:]]  # the server forgets one …

    original = fake.does.WatchRun

    def watch(request, context):
        fake.does.events = whole  # … and remembers when asked again
        yield from original(request, context)

    fake.does.WatchRun = watch
    fake.restart()

    @steps
    def use(client):
        run = yield client.train([[1.0], [2.0]], [2.0, 4.0], **train_arguments)
        return (yield run.events())

    assert [event.sequence for event in call(use)] == list(range(1, 9))


def test_a_watch_gives_up_when_patience_is_over(call, fake, steps, train_arguments):
    fake.does.fail("WatchRun", grpc.StatusCode.UNAVAILABLE, times=100)
    fake.does.break_after = [2]

    @steps
    def use(client):
        run = yield client.train([[1.0], [2.0]], [2.0, 4.0], **train_arguments)
        yield run.events()

    with pytest.raises(epochd.Unavailable):
        call(use, retry=epochd.Retry(initial=0.01, maximum=0.02, patience=0.1))


def test_waiting_with_a_timeout_leaves_the_run_to_itself(call, fake, steps, train_arguments):
    fake.does.hold.clear()

    @steps
    def use(client):
        run = yield client.train([[1.0], [2.0]], [2.0, 4.0], **train_arguments)
        yield run.result(timeout=0.1)

    with pytest.raises(epochd.DeadlineExceeded, match=r"runs/r1 has not ended within 0\.1 s") as caught:
        call(use)
    assert isinstance(caught.value, TimeoutError)
    assert fake.does.count("CancelRun") == 0


def test_a_repeated_request_carries_the_same_request_id(call, fake, train_arguments):
    fake.does.fail("Train", grpc.StatusCode.UNAVAILABLE, times=2)
    call(lambda c: c.train([[1.0]], [2.0], **train_arguments))
    ids = [request.request_id for request in fake.does.requests]
    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert len(ids[0]) == 32


def test_two_trainings_have_different_request_ids_unless_given(call, fake, steps, train_arguments):
    @steps
    def use(client):
        for request_id in (None, None, "mine"):
            yield client.train([[1.0]], [2.0], request_id=request_id, **train_arguments)

    call(use)
    first, second, third = (request.request_id for request in fake.does.requests)
    assert first != second
    assert third == "mine"


def test_an_acknowledgement_that_does_not_come_is_a_missed_deadline(call, fake, train_arguments):
    fake.does.hold.clear()
    fake.does.held_from = 0
    with pytest.raises(epochd.DeadlineExceeded):
        call(lambda c: c.train([[1.0]], [2.0], **train_arguments), timeout=0.2)


def test_check_gives_an_estimate_and_trains_nothing(call, request_of, train_arguments):
    estimate = call(lambda c: c.check([[1.0]], [2.0], **train_arguments))
    assert request_of("Train").validate_only
    assert (estimate.steps, estimate.memory_bytes, estimate.started.rows) == (10, 2_000_000, 3)
    assert str(estimate) == "2 parameters, 3 rows × 1 features, 10 steps on cpu, about 2.0 MB"


def test_a_run_is_found_again_by_either_form_of_its_name(call, steps):
    @steps
    def use(client):
        short, full = (yield client.run("r1")), (yield client.run("runs/r1"))
        return short.name, (yield full.logs()), (yield full.state)

    name, logs, state = call(use)
    assert name == "runs/r1"
    assert [str(log)[:9] for log in logs] == [f"Epoch {i}/4" for i in range(5)]
    assert state == "SUCCEEDED"


def test_the_state_of_a_run_under_way_is_asked_for(call, fake, steps):
    fake.does.hold.clear()

    @steps
    def use(client):
        run = yield client.run("r1")
        return (yield run.state)

    assert call(use) is epochd.State.RUNNING


def test_runs_are_listed_over_all_pages(call, fake):
    runs = call(lambda c: c.runs(model="house-price", states=["RUNNING", epochd.State.QUEUED]))
    assert [run.name for run in runs] == [f"runs/r{i}" for i in range(6)]
    assert fake.does.requests[0].model == "models/house-price"
    assert list(fake.does.requests[0].states) == [2, 1]


def test_further_pages_are_fetched_only_when_wanted(fake):
    with epochd.connect(fake.address) as client:
        runs = client.runs()
        assert next(runs).name == "runs/r0"
        assert fake.does.count("ListRuns") == 1


def test_a_run_can_be_deleted(call, fake, steps):
    @steps
    def use(client):
        run = yield client.run("r1")
        yield run.delete()

    call(use)
    assert fake.does.count("DeleteRun") == 1


def test_several_threads_may_follow_one_run(fake, train_arguments):
    with epochd.connect(fake.address) as client:
        run = client.train([[1.0]], [2.0], **train_arguments)
        seen: list[list[int]] = []

        def follow():
            seen.append([event.sequence for event in run.events()])

        threads = [threading.Thread(target=follow) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == [list(range(1, 9))] * 4


def test_events_of_a_kind_from_the_future_are_passed_over(call, fake, steps, events_of, train_arguments):
    whole = events_of()
    whole[3].ClearField("epoch_log")
    fake.does.events = whole

    @steps
    def use(client):
        run = yield client.train([[1.0]], [2.0], **train_arguments)
        return (yield run.events())

    assert [event.sequence for event in call(use)] == [1, 2, 3, 5, 6, 7, 8]
