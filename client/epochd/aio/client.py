"""The asyncio client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, overload

import grpc
from numpy.typing import NDArray

from epochd._core import datasets
from epochd._core.connecting import greet
from epochd._core.plans import plan_training
from epochd._core.routing import Route
from epochd._core.runs import RunRecord
from epochd._core.service import Service, differentiate, plan_activation, plan_differentiation
from epochd._core.signatures import takes
from epochd._transport.asynchronous import AsyncTransport
from epochd._transport.options import Connection, Options
from epochd.aio.dataset import Dataset
from epochd.aio.fleet import Fleet, version_of
from epochd.aio.model import Model
from epochd.aio.run import Run
from epochd.errors import Internal
from epochd.events import State
from epochd.keys import KeyLike
from epochd.policy import Retry, Timeout
from epochd.registry import AliasMove, Comparison
from epochd.sweeps import Sweep, with_folds
from epochd.validation import CrossValidation
from epochd.values import Dataset as DatasetFacts
from epochd.values import Derivatives, Estimate, Prediction, RegisteredModel


def connect(
    address: str = "127.0.0.1:50051",
    *,
    wait: float = 0.0,
    timeout: Timeout | float | None = None,
    retry: Retry | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    client_name: str | None = None,
    options: Options = (),
) -> Client:
    """A client to enter with ``async with``, which makes sure that the server answers.

    The arguments are those of :func:`epochd.connect`.
    """
    return Client(Connection.of(address, timeout, retry, credentials, client_name, options), wait)


class Client:
    """A connection to a server; see :class:`epochd.Client`. Belongs to the event loop in which it is entered."""

    def __init__(self, connection: Connection, wait: float = 0.0) -> None:
        self.address = connection.address
        self._connection = connection
        self._policy = connection.policy
        self._wait = wait
        self._service = Service(connection.policy)
        self._entered: AsyncTransport | None = None

    async def __aenter__(self) -> Self:
        self._entered = AsyncTransport(self._connection)
        try:
            await self._entered.run(greet(self._policy, self._wait))
        except BaseException:
            await self._entered.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection. Runs go on."""
        await self._transport.close()

    @takes(plan_training)
    async def train(self, *args: Any, **kwargs: Any) -> Run:
        """Trains a model; see :meth:`epochd.Client.train`.

        {arguments}
        """
        plan = plan_training(*args, **kwargs)
        run = self._run(await self._transport.run(self._service.train(plan)))
        if plan.progress:
            await run.wait(progress=True)
        return run

    async def cross_validate(
        self,
        X: Any | Dataset | Path,  # noqa: N803 - as everywhere in this field
        y: Any = None,
        *,
        folds: int = 5,
        sweep: Sweep | Mapping[str, Any] | None = None,
        **training: Any,
    ) -> CrossValidation:
        """Measures a model on each fold of the rows; see :meth:`epochd.Client.cross_validate`."""
        run = await self.train(X, y, sweep=with_folds(sweep, folds), **training)
        model = await run.result()
        if not isinstance(model, Fleet):
            raise Internal("The server did not train any folds.", reason="BAD_RESPONSE")
        return await model.cross_validation()

    @takes(plan_training)
    async def check(self, *args: Any, **kwargs: Any) -> Estimate:
        """Has the server check a training and say what it would be, without training.

        {arguments}
        """
        return await self._transport.run(self._service.check(plan_training(*args, **kwargs)))

    @overload
    async def predict(
        self,
        model: str,
        X: Any,  # noqa: N803
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
        routing_key: str | None = None,
    ) -> NDArray[Any]: ...
    @overload
    async def predict(
        self,
        model: str,
        X: Any,  # noqa: N803
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
        routing_key: str | None = None,
        probabilities: Literal[True],
        logits: bool = False,
    ) -> Prediction: ...
    @overload
    async def predict(
        self,
        model: str,
        X: Any,  # noqa: N803
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
        routing_key: str | None = None,
        probabilities: bool = False,
        logits: Literal[True],
    ) -> Prediction: ...
    async def predict(
        self,
        model: str,
        X: Any,  # noqa: N803 - as everywhere in this field
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
        routing_key: str | None = None,
        probabilities: bool = False,
        logits: bool = False,
    ) -> NDArray[Any] | Prediction:
        """Predicts with a model by name, in one call; see :meth:`epochd.Client.predict`."""
        route = Route.of((), keys, member, unknown)
        program = self._service.predict(model, X, route, probabilities, logits, routing_key)
        prediction = await self._transport.run(program)
        return prediction if probabilities or logits else prediction.values

    @takes(plan_activation)
    async def activation(self, *args: Any, **kwargs: Any) -> Any:
        """Applies activation functions, their inverses, derivatives or antiderivatives.

        {arguments}
        """
        return await self._transport.run(plan_activation(*args, **kwargs).run(self._policy))

    @takes(plan_differentiation)
    async def differentiate(self, *args: Any, **kwargs: Any) -> Derivatives:
        """Evaluates a small expression and differentiates it by PyTorch's autograd.

        {arguments}
        """
        return await self._transport.run(differentiate(plan_differentiation(*args, **kwargs), self._policy))

    async def run(self, name: str) -> Run:
        """Finds a run by name, wherever it was started."""
        return self._run(await self._transport.run(self._service.run(name)))

    async def runs(
        self,
        *,
        model: str | None = None,
        states: Sequence[State | str] = (),
        labels: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Run]:
        """The runs, newest first, fetched page by page as they are iterated over."""
        async for message in self._transport.iterate(self._service.runs(model, states, labels)):
            yield self._run(RunRecord.of_message(message, self._policy))

    async def model(self, name: str) -> Model:
        """Finds a model: ``house-price`` (the newest version), ``house-price@champion``, ``house-price/versions/3``."""
        message = await self._transport.run(self._service.model(name))
        return version_of(message, self._transport, self._policy)

    def models(self, *, labels: Mapping[str, str] | None = None) -> AsyncIterator[RegisteredModel]:
        """The models, or those that have all of these labels, by name, fetched page by page."""
        return self._transport.iterate(self._service.models(labels))

    async def versions(self, model: str, *, labels: Mapping[str, str] | None = None) -> AsyncIterator[Model]:
        """The versions of a model, or those that have all of these labels, newest first, fetched page by page."""
        async for message in self._transport.iterate(self._service.versions(model, labels)):
            yield version_of(message, self._transport, self._policy)

    async def import_model(
        self, path: str | Path, name: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> Model:
        """Makes a version of a file that ``Model.export`` wrote; see :meth:`epochd.Client.import_model`."""
        message = await self._transport.run(self._service.import_model(path, name, labels))
        return version_of(message, self._transport, self._policy)

    async def diff(self, base: str, other: str) -> Comparison:
        """Compares two versions side by side: results first, then every field that differs; prints as a table."""
        return await self._transport.run(self._service.diff(base, other))

    async def label(
        self, name: str, labels: Mapping[str, str] | None = None, *, remove: Sequence[str] = ()
    ) -> dict[str, str]:
        """Sets and removes labels of a model, a version or a run (``runs/…``), and returns all that it has then."""
        return await self._transport.run(self._service.label(name, labels, remove))

    async def alias_moves(self, name: str) -> list[AliasMove]:
        """Where an alias such as ``house-price@champion`` has pointed, newest first."""
        return await self._transport.run(self._service.alias_moves(name))

    async def rollback(self, name: str) -> RegisteredModel:
        """Points an alias such as ``house-price@champion`` where it pointed before, with the canary of then.

        Raises:
            Aborted: When somebody moved it meanwhile; nothing is changed then.
            FailedPrecondition: When it never pointed anywhere else, or that version was deleted.
        """
        return await self._transport.run(self._service.roll_back(name))

    async def upload(self, data: Any | str | Path) -> Dataset:
        """Uploads a table, or a CSV, Parquet or Arrow file; see :meth:`epochd.Client.upload`."""
        return self._dataset(await self._transport.run(self._service.upload(data)))

    async def import_dataset(self, path: str) -> Dataset:
        """Has the server make a dataset of a file of its own; nothing is sent.

        Args:
            path: An absolute path below a ``--data-root`` of the server, without symbolic links.

        Raises:
            PermissionDenied: When the path is not below one.
            NotFound: When there is no such file.
        """
        return self._dataset(await self._transport.run(datasets.import_file(path, self._policy)))

    async def dataset(self, name: str) -> Dataset:
        """Finds a dataset by its name or digest.

        Raises:
            NotFound: When there is no such dataset.
        """
        return self._dataset(await self._transport.run(datasets.find(name, self._policy)))

    async def datasets(self) -> AsyncIterator[Dataset]:
        """The uploaded tables, newest first, fetched page by page."""
        async for facts in self._transport.iterate(self._service.datasets()):
            yield self._dataset(facts)

    def _dataset(self, facts: DatasetFacts) -> Dataset:
        return Dataset(facts, self._transport, self._policy)

    async def delete_model(self, name: str) -> None:
        """Deletes a model with all its versions and aliases."""
        await self._transport.run(self._service.delete_model(name))

    async def delete_dataset(self, dataset: str | Dataset) -> None:
        """Deletes a dataset that no unfinished run uses."""
        await self._transport.run(self._service.delete_dataset(dataset))

    @property
    def _transport(self) -> AsyncTransport:
        if self._entered is None:
            raise RuntimeError("enter the client first: async with epochd.aio.connect(…) as client")
        return self._entered

    def _run(self, record: RunRecord) -> Run:
        return Run(record, self._transport, self._policy)

    def __repr__(self) -> str:
        return f"<Client of {self.address}>"
