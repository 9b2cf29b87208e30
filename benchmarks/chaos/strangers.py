"""The clients: each a thread with a connection of its own, which knows nothing of the server but its address."""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import grpc
import numpy as np
import pandas as pd

import epochd
from benchmarks.chaos.bits import digest
from benchmarks.chaos.journal import Journal, RunEntry, Watch
from benchmarks.chaos.recipes import Recipe, draw
from epochd import events
from epochd.v1 import runs_pb2, runs_pb2_grpc

PATIENCE_SECONDS: Final = 120.0
"""So long a client goes on asking a server that does not answer."""

LABELS: Final = {"made-by": "chaos"}
"""Every run has them, so that none can be overlooked."""

_RETRY = epochd.Retry(attempts=1_000, initial=0.05, maximum=0.5, patience=PATIENCE_SECONDS)
_TIMEOUT = epochd.Timeout(connect=PATIENCE_SECONDS, call=PATIENCE_SECONDS)
_ANSWERS_LATER = (epochd.Unavailable, epochd.DeadlineExceeded, epochd.ResourceExhausted)
_GONE = grpc.StatusCode.NOT_FOUND

T = TypeVar("T")


def connect(address: str) -> epochd.Client:
    """A client that waits for a server that is away."""
    return epochd.connect(address, wait=PATIENCE_SECONDS, retry=_RETRY, timeout=_TIMEOUT)


def insist(call: Callable[[], T]) -> T:
    """Calls until there is an answer, as a program does that must have one.

    Raises:
        EpochdError: Nothing but refusals for :data:`PATIENCE_SECONDS`, or an answer that is one.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return call()
        except _ANSWERS_LATER:
            if time.monotonic() > until:
                raise
        time.sleep(0.05)


def start(client: epochd.Client, recipe: Recipe, **arguments: Any) -> epochd.Run:
    """Has a recipe trained; returns when that is acknowledged."""
    training = recipe.training()
    data = training.data
    if training.upload:
        data = (insist(lambda: client.upload(training.data[0])),)
    return insist(lambda: client.train(*data, **training.arguments, **arguments))


class Stranger:
    """A client that does one thing after another until it is told to stop, and then ends what it is at.

    Args:
        number: Tells it from the others.
        address: Of the server.
        journal: What it was told goes there.
        seed: Decides what it does.
        pause: Seconds between two things, on average.
    """

    def __init__(self, number: int, address: str, journal: Journal, seed: int, pause: float) -> None:
        self.name = f"stranger-{number}"
        self._number = number
        self._address = address
        self._journal = journal
        self._chance = random.Random(f"{seed} {number}")
        self._pause = pause
        self._stopped = threading.Event()
        self._requests = 0
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Begins nothing further."""
        self._stopped.set()

    def join(self, seconds: float) -> bool:
        """Waits until it has ended what it was at; whether it has within so many seconds."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        """Does one thing after another."""
        try:
            with connect(self._address) as client:
                while not self._stopped.wait(self._chance.expovariate(1 / self._pause)):
                    self._do_something(client)
        except Exception:
            self._complain(traceback.format_exc(limit=-3))

    def _do_something(self, client: epochd.Client) -> None:
        deeds: dict[Callable[[epochd.Client], None], float] = {
            self._train_and_follow: 5,
            self._train_and_leave: 1.5,
            self._train_and_cancel: 1.5,
            self._watch_another: 2,
            self._ask_the_champion: 2,
            self._upload_and_delete: 0.5,
        }
        (deed,) = self._chance.choices(list(deeds), list(deeds.values()))
        try:
            deed(client)
        except epochd.EpochdError as error:
            self._complain(f"{deed.__name__.strip('_')}: {type(error).__name__} [{error.reason}]: {error}")

    def _complain(self, text: str) -> None:
        self._journal.complaints.append(f"{self.name}: {text}")

    @property
    def _model(self) -> str:
        return f"of-stranger-{self._number}"

    def _train(self, client: epochd.Client, *, ends: bool = True) -> tuple[RunEntry, epochd.Run]:
        self._requests += 1
        recipe = draw(self._chance, ends=ends)
        request_id = f"{self.name}-{self._requests}"
        run = start(client, recipe, name=self._model, labels=LABELS, request_id=request_id)
        entry = RunEntry(recipe, request_id, run.name, self._model)
        self._journal.runs.append(entry)
        return entry, run

    def _train_and_follow(self, client: epochd.Client) -> None:
        entry, run = self._train(client)
        watch = Watch()
        entry.watches.append(watch)
        end = None
        for end in run.events():
            watch.seen.append((end.sequence, digest(end)))
        watch.complete = True
        if isinstance(end, events.Succeeded):
            self._use(client, entry, end.model_version.removeprefix("models/"))
        if self._chance.random() < 0.15:
            self._delete(entry, run)

    def _train_and_leave(self, client: epochd.Client) -> None:
        self._train(client)

    def _train_and_cancel(self, client: epochd.Client) -> None:
        entry, run = self._train(client, ends=False)
        time.sleep(self._chance.choice([0.0, self._chance.uniform(0.0, 0.5), self._chance.uniform(0.5, 2.0)]))
        insist(run.cancel)
        entry.cancelled = datetime.now(UTC)

    def _use(self, client: epochd.Client, entry: RunEntry, version: str) -> None:
        """Predicts with a version; perhaps makes it the champion, or deletes it."""
        entry.version = version
        probe = entry.recipe.training().probe
        if probe is not None:
            entry.predictions.append(digest(insist(lambda: client.predict(version, probe))))
        what = self._chance.random()
        if what < 0.3:
            model = insist(lambda: client.model(version))
            insist(lambda: model.set_alias("champion"))
            self._journal.aliases[f"{self._model}@champion"] = model.resource_name
        elif what < 0.4:
            self._delete_version(client, entry, version)

    def _delete_version(self, client: epochd.Client, entry: RunEntry, version: str) -> None:
        model = insist(lambda: client.model(version))
        entry.version_deleted = True
        _delete(model.delete)

    def _delete(self, entry: RunEntry, run: epochd.Run) -> None:
        entry.deleting = True
        _delete(run.delete)
        entry.deleted = True

    def _ask_the_champion(self, client: epochd.Client) -> None:
        """Predicts by an alias, which must give what the version gave that it was pointed at."""
        name = f"{self._model}@champion"
        version = self._journal.aliases.get(name)
        if version is None:
            return
        model = insist(lambda: client.model(name))
        if model.resource_name != version:
            self._complain(f"{name} is {model.resource_name}, was pointed at {version}")

    def _watch_another(self, client: epochd.Client) -> None:
        """Follows any run, whoever started it, from anywhere in its log, with nothing but the generated stubs."""
        entries = self._journal.runs[-20:]
        if not entries:
            return
        entry = self._chance.choice(entries)
        if entry.recipe.kind == "endless" and entry.cancelled is None:
            return
        watch = Watch(after=self._chance.choice([0, 0, 1, 5]), raw=True)
        with grpc.insecure_channel(self._address) as channel:
            watch.complete = _watch_raw(runs_pb2_grpc.RunsStub(channel), entry, watch)
        entry.watches.append(watch)

    def _upload_and_delete(self, client: epochd.Client) -> None:
        """Uploads a table that nobody else has, finds it again, and deletes it."""
        table = pd.DataFrame({"x": np.random.default_rng(self._chance.randrange(2**60)).normal(size=500)})
        dataset = insist(lambda: client.upload(table))
        found = insist(lambda: client.dataset(dataset.name))
        if (found.rows, found.name) != (500, dataset.name):
            self._complain(f"uploaded {dataset.name} of 500 rows, found {found.name} of {found.rows}")
        _delete(lambda: client.delete_dataset(dataset))
        self._journal.datasets += 1


def _delete(call: Callable[[], object]) -> None:
    """Deletes what is there; what is gone already may have been deleted by a call whose answer was lost."""
    try:
        insist(call)
    except epochd.NotFound:
        return


def _watch_raw(stub: Any, entry: RunEntry, watch: Watch) -> bool:
    """Reads a log to its end over however many broken streams; False where the run was deleted meanwhile.

    Raises:
        Unavailable: There was no answer for :data:`PATIENCE_SECONDS`.
    """
    newest, until = watch.after, time.monotonic() + PATIENCE_SECONDS
    while True:
        request = runs_pb2.WatchRunRequest(run=entry.name, after_sequence=newest)
        try:
            for response in stub.WatchRun(request):
                until = time.monotonic() + PATIENCE_SECONDS
                for event in response.events:
                    watch.seen.append((event.sequence, event.SerializeToString(deterministic=True).hex()))
                    newest = event.sequence
            return True
        except grpc.RpcError as error:
            if error.code() is _GONE and entry.deleting:
                return False
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > until:
                raise epochd.Internal(f"WatchRun of {entry.name} ended with {error.code()}") from error
        time.sleep(0.05)
