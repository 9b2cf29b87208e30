"""Servers that are killed as soon as they have stored a change and what it is answered: the change is made once."""

from __future__ import annotations

import grpc
import pytest

from epochd.v1 import datasets_pb2, run_pb2, runs_pb2

DEADLY = '''
"""Kills the server between a transaction that remembers a request, and all that comes of it."""

import os, signal, sys
from torch import nn

class Unused(nn.Module):
    pass

if answers := sys.modules.get("epochd_server.storage.answers"):  # and not in workers
    write = answers.Answers.write

    async def write_and_die(self, operation, once):
        result = await write(self, operation, once)
        if once is not None and once.asked.request_id.startswith("deadly"):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    answers.Answers.write = write_and_die
'''


@pytest.fixture
def start(start_server, tmp_path):
    """Starts a server that is killed by ids which begin with "deadly"; on the same data each time."""
    source, files = tmp_path / "deadly.py", tmp_path / "files"
    source.write_text(DEADLY)
    files.mkdir()
    return lambda: start_server("--modules", str(source), "--data-root", str(files))


async def dies(call) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def kinds(api, run: str) -> list[str]:
    """What a run's log tells of pauses, up to now."""
    newest = (await api.runs.GetRun(runs_pb2.GetRunRequest(name=run))).run
    told, after = [], 0
    async for message in api.runs.WatchRun(runs_pb2.WatchRunRequest(run=run)):
        told += [event.WhichOneof("kind") for event in message.events]
        after = message.events[-1].sequence
        if after >= newest.latest_sequence:
            break
    return [kind for kind in told if kind in ("paused", "resumed", "cancelled")]


def reaches(api, run: str, state: str):
    async def reached() -> bool:
        found = (await api.runs.GetRun(runs_pb2.GetRunRequest(name=run))).run
        return run_pb2.RunState.Name(found.state) == f"RUN_STATE_{state}"

    return reached


async def test_a_pause_and_its_end_are_made_once(start, connect, endless, until):
    pause, resume = runs_pb2.PauseRunRequest, runs_pb2.ResumeRunRequest
    async with connect(start().address) as api:
        run = (await anext(aiter(api.trainer.Train(endless())))).events[0].queued.run
        await until(reaches(api, run, "RUNNING"))
        await dies(api.runs.PauseRun(pause(name=run, request_id="deadly-pause")))
    async with connect(start().address) as api:
        await until(reaches(api, run, "PAUSED"))
        first = await api.runs.PauseRun(pause(name=run, request_id="deadly-pause"))
        assert first.run.name == run
        await api.runs.ResumeRun(resume(name=run))
        assert await api.runs.PauseRun(pause(name=run, request_id="deadly-pause")) == first
        assert await kinds(api, run) == ["paused", "resumed"]
        await api.runs.PauseRun(pause(name=run))
        await until(reaches(api, run, "PAUSED"))
        await dies(api.runs.ResumeRun(resume(name=run, request_id="deadly-resume")))
    async with connect(start().address) as api:
        await until(reaches(api, run, "RUNNING"))
        await api.runs.PauseRun(pause(name=run))
        await until(reaches(api, run, "PAUSED"))
        assert (await api.runs.ResumeRun(resume(name=run, request_id="deadly-resume"))).run.name == run
        assert await kinds(api, run) == ["paused", "resumed", "paused", "resumed", "paused"]


async def test_a_cancellation_is_made_once_and_answered_even_after_its_run_was_deleted(
    start, connect, endless, until
):
    cancel = runs_pb2.CancelRunRequest
    async with connect(start().address) as api:
        run = (await anext(aiter(api.trainer.Train(endless())))).events[0].queued.run
        await dies(api.runs.CancelRun(cancel(name=run, request_id="deadly-cancel")))
    async with connect(start().address) as api:
        await until(reaches(api, run, "CANCELLED"))
        assert await kinds(api, run) == ["cancelled"]
        await api.runs.DeleteRun(runs_pb2.DeleteRunRequest(name=run))
        assert (await api.runs.CancelRun(cancel(name=run, request_id="deadly-cancel"))).run.name == run


async def test_an_import_is_made_once_whatever_the_file_has_become(start, connect, tmp_path):
    file = tmp_path / "files" / "rows.csv"
    load = datasets_pb2.ImportDatasetRequest(
        path=str(file), format=datasets_pb2.DATASET_FORMAT_CSV, request_id="deadly-import"
    )
    async with connect(start().address) as api:
        file.write_text("x,y\n1,2\n2,4\n")
        await dies(api.datasets.ImportDataset(load))
    async with connect(start().address) as api:
        file.write_text("x,y\n1,3\n")
        dataset = (await api.datasets.ImportDataset(load)).dataset
        assert dataset.rows == 2
        listed = await api.datasets.ListDatasets(datasets_pb2.ListDatasetsRequest())
        assert [one.name for one in listed.datasets] == [dataset.name]
