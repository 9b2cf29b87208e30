"""Fleets and sweeps on real workers: every member as it is alone, whatever its neighbours and parts are."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import ipc

from epochd_server.domain.data import ColumnRoles, TrainingArrays
from epochd_server.domain.fleets import Groups, Keys, MemberState, Sweep
from epochd_server.domain.runs import FleetProgress, MemberLog
from epochd_server.domain.specs import LinearModel, Logging, Loss, LossKind
from epochd_server.domain.work import (
    DatasetFile,
    FleetAdvanced,
    RunBegan,
    RunFailed,
    RunLogged,
    RunStopped,
    RunTrained,
    RunWork,
    WorkerDied,
)

SIZES = (1, 3, 40, 17, 2, 9)
LONG = 10.0
"""Estimated seconds that have a fleet cut into several parts a worker."""


def grouped(sizes=SIZES, *, seed=0, unfit=None, weights=False):
    """Three features, one target; member k has ``sizes[k]`` rows and the key (``s<k>``, k)."""
    generator = np.random.default_rng(seed)
    rows = sum(sizes)
    features = generator.normal(size=(rows, 3)).astype(np.float32)
    noise = generator.normal(size=(rows, 1)).astype(np.float32)
    names = np.array([f"s{index:05}" for index in range(len(sizes))], dtype=object)
    return TrainingArrays(
        features=features,
        targets=features @ np.array([[1], [-2], [3]], np.float32) + noise / 8,
        feature_columns=("a", "b", "c"),
        target_columns=("y",),
        groups=Groups(
            keys=Keys(("store", "number"), (names, np.arange(len(sizes)))),
            offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            unfit=unfit or {},
        ),
        weights=generator.uniform(0, 2, rows).astype(np.float32) if weights else None,
    )


def rows_of(data, member):
    """One member's rows, as those of a single model."""
    rows = slice(*data.groups.offsets[member : member + 2].tolist())
    weights = None if data.weights is None else data.weights[rows]
    return replace(
        data, features=data.features[rows], targets=data.targets[rows], weights=weights, groups=None
    )


@pytest.fixture
def fleet(run_work):
    """A fleet's work; ``log`` names positions of members whose epochs are told."""

    def make(data, *, log=(), seconds=0.0, model=None, loss=LossKind.MSE, **changes):
        work = run_work("fleet", data, model=model or LinearModel(in_features=3, out_features=1), **changes)
        logged = tuple(data.groups.keys.key(member) for member in log)
        spec = replace(
            work.spec,
            loss=Loss(kind=loss),
            key_columns=data.groups.keys.names,
            logging=replace(work.spec.logging, members=logged),
        )
        return RunWork(run_id="fleet", spec=spec, data=data, members=len(data.groups.keys), seconds=seconds)

    return make


@pytest.fixture
def alone(executor, train, cohort):
    """Trains the members of a fleet as single runs, one after the other: their last messages and logs."""

    async def run(work, members):
        ends, logs = [], []
        for member in members:
            spec = replace(work.spec, key_columns=(), logging=Logging(every=work.spec.logging.every))
            single = RunWork(run_id=f"m{member}", spec=spec, data=rows_of(work.data, member))
            messages = await train(executor, cohort(single))
            ends.append(messages[-1])
            logs.append([log for m in messages if isinstance(m, RunLogged) for log in m.logs])
        return ends, logs

    return run


def news_of(messages, kind):
    return [n for m in messages if isinstance(m, FleetAdvanced) for n in m.news if isinstance(n, kind)]


def bits(parameters, member=...):
    return {name: np.asarray(array[member]).tobytes() for name, array in parameters.items()}


@pytest.mark.parametrize("weights", [False, True])
async def test_each_member_of_a_fleet_gets_the_bits_it_gets_alone(
    executor, train, cohort, fleet, alone, weights
):
    work = fleet(grouped(weights=weights), log=(1, 2), epochs=30, every=7)
    messages = await train(executor, cohort(work))
    assert messages[0] == RunBegan(run_id="fleet", device="cpu")
    trained = messages[-1]
    assert isinstance(trained, RunTrained)
    ends, logs = await alone(work, range(len(SIZES)))
    for member, end in enumerate(ends):
        assert bits(trained.parameters, member) == bits(end.parameters)
        assert trained.members.final_losses[member] == end.final_loss
    for member in (1, 2):
        told = [n.log for n in news_of(messages, MemberLog) if n.key == (f"s{member:05}", member)]
        assert [(log.epoch, log.loss) for log in told] == [(log.epoch, log.loss) for log in logs[member]]
    assert {n.key[1] for n in news_of(messages, MemberLog)} == {1, 2}


async def test_the_members_of_a_fleet_are_told_with_rows_epochs_and_the_median_of_their_losses(
    executor, train, cohort, fleet
):
    work = fleet(grouped(), epochs=30)
    trained = (await train(executor, cohort(work)))[-1]
    members = trained.members
    assert [members.keys.key(index) for index in range(6)] == [(f"s{index:05}", index) for index in range(6)]
    assert members.rows.tolist() == list(SIZES)
    assert members.epochs.tolist() == [30] * 6
    assert (members.states == MemberState.SUCCEEDED).all()
    assert members.reasons == {}
    assert trained.epochs == 30
    assert trained.final_loss == np.median(members.final_losses)
    assert {name: array.shape for name, array in trained.parameters.items()} == {
        "linear.weight": (6, 1, 3),
        "linear.bias": (6, 1),
    }


async def test_a_member_that_fails_or_is_unfit_does_so_alone(executor, train, cohort, fleet, alone):
    data = grouped(unfit={2: "FEATURE_NOT_FINITE", 5: "TARGET_NOT_FINITE"})
    first, last = data.groups.offsets[2:4].tolist()
    data.features[first:last] = np.nan
    data.features[data.groups.offsets[3]] = 1e18
    work = fleet(data, epochs=300, lr=0.05)
    messages = await train(executor, cohort(work))
    trained = messages[-1]
    assert trained.members.states.tolist() == [1, 1, 2, 2, 1, 2]
    assert trained.members.reasons == {
        2: "FEATURE_NOT_FINITE",
        3: "LOSS_NOT_FINITE",
        5: "TARGET_NOT_FINITE",
    }
    assert np.isnan(trained.members.final_losses).tolist() == [False, False, True, True, False, True]
    for member in (2, 3, 5):
        assert all(np.isnan(array[member]).all() for array in trained.parameters.values())
    fit = [0, 1, 4]
    ends, _ = await alone(work, fit)
    for member, end in zip(fit, ends, strict=True):
        assert bits(trained.parameters, member) == bits(end.parameters)
    assert trained.final_loss == np.median(trained.members.final_losses[fit])
    (progress,) = news_of(messages, FleetProgress)
    assert (progress.members_done, progress.members_failed, progress.members_total) == (6, 3, 6)


async def test_the_last_progress_tells_quantiles_and_the_worst_of_a_fleet(executor, train, cohort, fleet):
    work = fleet(grouped(sizes=[5] * 300), epochs=30)
    messages = await train(executor, cohort(work))
    losses = messages[-1].members.final_losses
    progress = news_of(messages, FleetProgress)[-1]
    assert progress.loss_quantiles == tuple(np.percentile(losses, [0, 25, 50, 75, 100]))
    worst = np.argsort(-losses)[:5].tolist()
    assert progress.worst == tuple(((f"s{index:05}", index), losses[index]) for index in worst)
    assert progress.eta_seconds == 0
    assert progress.elapsed_seconds > 0


async def test_a_fleet_of_which_no_member_can_be_trained_fails_with_the_commonest_reason(
    executor, train, cohort, fleet
):
    data = grouped(unfit={0: "ONE_CLASS_ONLY", 1: "ONE_CLASS_ONLY"})
    messages = await train(executor, cohort(fleet(data, epochs=3_000, lr=1e6)))
    failure = messages[-1].failure
    assert isinstance(messages[-1], RunFailed)
    assert failure.reason == "ALL_MEMBERS_FAILED"
    assert "6 members" in failure.message
    assert "reason of 4 is LOSS_NOT_FINITE" in failure.message
    assert "learning rate" in failure.hint


async def test_a_fleet_without_any_fit_member_fails_without_being_trained(executor, train, cohort, fleet):
    data = grouped(unfit=dict.fromkeys(range(6), "NO_WEIGHT"))
    messages = await train(executor, cohort(fleet(data)))
    assert messages[-1].failure.reason == "ALL_MEMBERS_FAILED"
    assert "NO_WEIGHT" in messages[-1].failure.message


async def test_parts_on_two_workers_give_the_bits_of_one_worker(make_executor, train, cohort, fleet):
    generator = np.random.default_rng(5)
    data = grouped(sizes=generator.integers(1, 60, 200).tolist(), unfit={7: "NO_WEIGHT", 150: "NO_WEIGHT"})
    work = fleet(data, log=(0, 99, 199), epochs=40, parameters=True)
    executor = await make_executor(2)
    whole = await train(executor, cohort(work))
    split = await train(executor, cohort(replace(work, seconds=LONG)))
    assert bits(whole[-1].parameters) == bits(split[-1].parameters)
    for name in ("states", "rows", "epochs", "final_losses"):
        one, two = (getattr(messages[-1].members, name) for messages in (whole, split))
        assert one.tobytes() == two.tobytes()
    assert whole[-1].members.reasons == split[-1].members.reasons
    for key in (("s00000", 0), ("s00099", 99), ("s00199", 199)):
        one, two = (
            [n.log for n in news_of(messages, MemberLog) if n.key == key] for messages in (whole, split)
        )
        assert [(log.epoch, log.loss, bits(log.parameters)) for log in one] == [
            (log.epoch, log.loss, bits(log.parameters)) for log in two
        ]
        assert len(one) == 4


async def test_parts_of_a_fleet_of_a_dataset_read_their_own_rows_of_it(
    make_executor, train, cohort, fleet, tmp_path
):
    data = grouped(sizes=[4, 1, 7, 30, 2, 2, 11])
    members = np.repeat(np.arange(7), np.diff(data.groups.offsets))
    stored = {name: data.features[:, index] for index, name in enumerate(data.feature_columns)}
    stored |= {"y": data.targets[:, 0], "store": data.groups.keys.columns[0][members], "number": members}
    order = np.argsort(members % 3, kind="stable")  # members are mixed, the rows of each stay in their order
    table = pa.table({name: column[order] for name, column in stored.items()})
    path = tmp_path / "rows.arrow"
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    roles = ColumnRoles(features=data.feature_columns, targets=("y",), groups=data.groups.keys.names)
    inline = fleet(data, epochs=20, seconds=LONG)
    executor = await make_executor(2)
    expected = (await train(executor, cohort(inline)))[-1]
    rows = np.argsort(order)
    file = replace(inline, data=DatasetFile(path=str(path), roles=roles, groups=data.groups, rows=rows))
    trained = (await train(executor, cohort(file)))[-1]
    assert bits(trained.parameters) == bits(expected.parameters)
    assert trained.members.keys.columns[0].tolist() == data.groups.keys.columns[0].tolist()


async def test_a_dataset_that_is_gone_fails_the_fleet(executor, train, cohort, fleet, tmp_path):
    roles, data = ColumnRoles(features=("a",), targets=("y",), groups=("store",)), grouped()
    gone = DatasetFile(path=str(tmp_path / "gone.arrow"), roles=roles, groups=data.groups)
    messages = await train(executor, cohort(replace(fleet(data, seconds=LONG), data=gone)))
    assert [message.failure.reason for message in messages] == ["DATASET_NOT_FOUND"]


SWEEP = Sweep(lr=(0.1, 0.01), momentum=(0.9, 0.0, 0.5), seed=(3, 1))


@pytest.mark.parametrize("seconds", [0.0, LONG])
async def test_each_member_of_a_sweep_gets_the_bits_of_a_single_run(
    make_executor, train, cohort, run_work, seconds
):
    executor = await make_executor(2)
    data = rows_of(grouped(sizes=(25,)), 0)
    single = run_work("sweep", data, model=LinearModel(in_features=3, out_features=1), epochs=20, every=5)
    keys = SWEEP.keys()
    logging = replace(single.spec.logging, members=(keys.key(4),))
    spec = replace(single.spec, sweep=SWEEP, key_columns=keys.names, logging=logging)
    work = RunWork(run_id="sweep", spec=spec, data=data, members=12, seconds=seconds)
    messages = await train(executor, cohort(work))
    trained = messages[-1]
    assert len(trained.members.keys) == 12
    assert trained.members.rows.tolist() == [25] * 12
    for member in range(12):
        lr, momentum, seed = trained.members.keys.key(member)
        optimizer = replace(single.spec.fit.optimizer, lr=lr, momentum=momentum)
        own = replace(single.spec, fit=replace(single.spec.fit, optimizer=optimizer), seed=seed)
        end = (await train(executor, cohort(replace(single, spec=own))))[-1]
        assert bits(trained.parameters, member) == bits(end.parameters)
        assert trained.members.final_losses[member] == end.final_loss
    assert [n.log.epoch for n in news_of(messages, MemberLog)] == [0, 5, 10, 15]


async def test_a_stopped_fleet_ends_soon_and_its_workers_are_free_again(
    make_executor, train, cohort, fleet, run_work
):
    executor = await make_executor(2)
    pids = executor.worker_pids

    def stop(message):
        if isinstance(message, RunBegan):
            executor.stop_runs(["fleet"])

    data = grouped(sizes=[30] * 500)
    work = fleet(data, epochs=2_000_000, every=2_000_000, seconds=LONG)
    async with asyncio.timeout(30):
        messages = await train(executor, cohort(work), stop)
        assert messages[-1] == RunStopped(run_id="fleet", epochs=messages[-1].epochs)
        assert messages[-1].epochs < 2_000_000
        assert isinstance((await train(executor, cohort(run_work())))[-1], RunTrained)
    assert executor.worker_pids == pids


async def test_progress_is_told_while_a_fleet_is_trained(executor, train, cohort, fleet):
    work = fleet(grouped(sizes=[30] * 100), epochs=2_000_000, every=2_000_000, seconds=1.0)

    def stop(message):
        if isinstance(message, FleetAdvanced):
            executor.stop_runs(["fleet"])

    async with asyncio.timeout(30):
        messages = await train(executor, cohort(work), stop)
    first = news_of(messages, FleetProgress)[0]
    assert first.members_total == 100
    assert first.members_done < 100
    assert first.elapsed_seconds > 0


async def test_a_killed_worker_costs_a_fleet_nothing_but_time(make_executor, train, cohort, fleet):
    executor = await make_executor(2)
    work = fleet(grouped(sizes=[30] * 400), log=(0, 399), epochs=20_000, every=5_000, seconds=LONG)
    expected = (await train(executor, cohort(work)))[-1]
    killed = []

    def kill(message):
        if isinstance(message, RunBegan):
            killed.append(executor._assignments["fleet"].workers[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    trained = (await train(executor, cohort(work), kill))[-1]
    assert killed
    assert bits(trained.parameters) == bits(expected.parameters)
    assert trained.members.final_losses.tobytes() == expected.members.final_losses.tobytes()


async def test_a_fleet_that_kills_every_worker_ends_with_the_evidence(make_executor, train, cohort, fleet):
    executor = await make_executor(1)
    work = fleet(grouped(sizes=[30] * 400), epochs=2_000_000, every=2_000_000)

    async def murder():
        while True:
            await asyncio.sleep(0.02)
            for assignment in executor._assignments.values():
                for worker in assignment.workers:
                    with suppress(ProcessLookupError):  # dead already
                        os.kill(worker.pid, signal.SIGKILL)

    murderer = asyncio.create_task(murder())
    with pytest.raises(WorkerDied) as caught:
        await train(executor, cohort(work))
    murderer.cancel()
    assert caught.value.evidence.startswith("was killed by SIGKILL")
    assert caught.value.deaths == 3


async def test_other_runs_get_a_worker_between_the_parts_of_a_fleet(executor, train, cohort, fleet, run_work):
    began = asyncio.Event()
    work = fleet(grouped(sizes=[30] * 200), epochs=20_000, every=20_000, seconds=20.0)
    long = asyncio.create_task(train(executor, cohort(work), lambda message: began.set()))
    await began.wait()
    messages = await train(executor, cohort(run_work("short")))
    assert isinstance(messages[-1], RunTrained)
    assert not long.done()
    executor.stop_runs(["fleet"])
    await long
