"""The blocking client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, overload

import grpc
from numpy.typing import NDArray

from epochd._core.connecting import greet
from epochd._core.plans import plan_training
from epochd._core.routing import Route
from epochd._core.runs import RunRecord
from epochd._core.service import Service, differentiate, plan_activation, plan_differentiation
from epochd._core.signatures import takes
from epochd._transport.blocking import BlockingTransport
from epochd._transport.options import Connection, Options
from epochd.events import State
from epochd.fleet import version_of
from epochd.keys import KeyLike
from epochd.model import Model
from epochd.policy import Retry, Timeout
from epochd.run import Run
from epochd.values import Dataset, Derivatives, Estimate, Prediction, RegisteredModel


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
    """Connects to a server and makes sure that it answers.

    Args:
        address: ``HOST:PORT``, or any gRPC target.
        wait: Seconds to go on trying while nothing listens there yet.
        timeout: Limits on waiting; a number is the limit of one call in seconds.
        retry: When calls are tried again.
        credentials: TLS and call credentials (``grpc.ssl_channel_credentials()``); None: plain text.
        client_name: Names this client in the server's log; None: an id of this process.
        options: Further gRPC channel options.

    Raises:
        ConnectionFailed: When nothing answers there.

    Example:
        >>> def main() -> None:
        ...     with connect("127.0.0.1:50051", wait=10.0) as client:
        ...         run = client.train([[1], [2], [3]], [2, 4, 6], model=Linear(), optimizer=SGD(lr=0.01), epochs=100)
        ...         print(run.result())
    """
    return Client(Connection.of(address, timeout, retry, credentials, client_name, options), wait)


class Client:
    """A connection to a server; made by :func:`epochd.connect`, safe to use from several threads."""

    def __init__(self, connection: Connection, wait: float = 0.0) -> None:
        self.address = connection.address
        self._policy = connection.policy
        self._service = Service(connection.policy)
        self._transport = BlockingTransport(connection)
        try:
            self._transport.run(greet(connection.policy, wait))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. Runs go on."""
        self._transport.close()

    @takes(plan_training)
    def train(self, *args: Any, **kwargs: Any) -> Run:
        """Trains a model; returns as soon as the server has stored the run (with ``progress``: when it has ended).

        {arguments}

        Raises:
            InvalidArgument: Naming everything that is wrong at once; then there is no run.
            ResourceExhausted: When data or model are larger than the server allows.
            NotFound: When no module is registered under the name.
        """
        plan = plan_training(*args, **kwargs)
        run = self._run(self._transport.run(self._service.train(plan)))
        if plan.progress:
            run.wait(progress=True)
        return run

    @takes(plan_training)
    def check(self, *args: Any, **kwargs: Any) -> Estimate:
        """Has the server check a training and say what it would be, without training.

        {arguments}

        Raises:
            InvalidArgument: Naming everything that is wrong at once.
        """
        return self._transport.run(self._service.check(plan_training(*args, **kwargs)))

    @overload
    def predict(
        self,
        model: str,
        X: Any,  # noqa: N803
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
    ) -> NDArray[Any]: ...
    @overload
    def predict(
        self,
        model: str,
        X: Any,  # noqa: N803
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
        probabilities: Literal[True],
        logits: bool = False,
    ) -> Prediction: ...
    @overload
    def predict(
        self,
        model: str,
        X: Any,  # noqa: N803
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
        probabilities: bool = False,
        logits: Literal[True],
    ) -> Prediction: ...
    def predict(
        self,
        model: str,
        X: Any,  # noqa: N803 - as everywhere in this field
        *,
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
        probabilities: bool = False,
        logits: bool = False,
    ) -> NDArray[Any] | Prediction:
        """Predicts with a model by name, in one call; otherwise as :meth:`Model.predict`.

        Args:
            model: ``house-price`` (the newest version), ``house-price@champion``, ``house-price/versions/3``.
            X: Rows as an array or a table.
            keys: Fleets: the keys, one a row, by the names of the key columns, where X is an array.
            member: Fleets: the key of the member that predicts every row.
            unknown: Fleets: what to do with rows of unknown keys; see :meth:`Fleet.predict`.
            probabilities: Whether to return probabilities, too.
            logits: Whether to return logits, too.
        """
        route = Route.of((), keys, member, unknown)
        prediction = self._transport.run(self._service.predict(model, X, route, probabilities, logits))
        return prediction if probabilities or logits else prediction.values

    @takes(plan_activation)
    def activation(self, *args: Any, **kwargs: Any) -> Any:
        """Applies activation functions, their inverses, derivatives or antiderivatives.

        {arguments}

        Returns:
            An array of the input's type; a number for a number. Tensors of any size; large ones are streamed.

        Raises:
            InvalidArgument: When a function or a parameter is not known.
            OutOfRange: With ``strict``, naming the first index for which the result is not defined.
        """
        return self._transport.run(plan_activation(*args, **kwargs).run(self._policy))

    @takes(plan_differentiation)
    def differentiate(self, *args: Any, **kwargs: Any) -> Derivatives:
        """Evaluates a small expression and differentiates it by PyTorch's autograd.

        ``client.differentiate("2*w**2 + 5", w=2.0)`` has the value 13.0 and the gradients ``{"w": 8.0}``.

        {arguments}

        Raises:
            InvalidArgument: When the expression cannot be parsed or evaluated.
        """
        return self._transport.run(differentiate(plan_differentiation(*args, **kwargs), self._policy))

    def run(self, name: str) -> Run:
        """Finds a run by name, wherever it was started.

        Raises:
            NotFound: When there is no such run.
        """
        return self._run(self._transport.run(self._service.run(name)))

    def runs(self, *, model: str | None = None, states: Sequence[State | str] = ()) -> Iterator[Run]:
        """The runs, newest first, fetched page by page as they are iterated over.

        Args:
            model: Only runs of this model.
            states: Only runs in these states.
        """
        for message in self._transport.iterate(self._service.runs(model, states)):
            yield self._run(RunRecord.of_message(message, self._policy))

    def model(self, name: str) -> Model:
        """Finds a model: ``house-price`` (the newest version), ``house-price@champion``, ``house-price/versions/3``.

        Raises:
            NotFound: When there is no such model, version or alias.
        """
        return version_of(self._transport.run(self._service.model(name)), self._transport, self._policy)

    def models(self) -> Iterator[RegisteredModel]:
        """The models by name, fetched page by page."""
        return self._transport.iterate(self._service.models())

    def versions(self, model: str) -> Iterator[Model]:
        """The versions of a model, newest first, fetched page by page."""
        for message in self._transport.iterate(self._service.versions(model)):
            yield version_of(message, self._transport, self._policy)

    def upload(self, data: Any | str | Path) -> Dataset:
        """Uploads a table, or a CSV, Parquet or Arrow file, to train on more than once.

        What the server has already is not sent again; a broken upload goes on where it ended.
        """
        return self._transport.run(self._service.upload(data))

    def datasets(self) -> Iterator[Dataset]:
        """The uploaded tables, newest first, fetched page by page."""
        return self._transport.iterate(self._service.datasets())

    def delete_model(self, name: str) -> None:
        """Deletes a model with all its versions and aliases."""
        self._transport.run(self._service.delete_model(name))

    def delete_dataset(self, dataset: str | Dataset) -> None:
        """Deletes a dataset that no unfinished run uses."""
        self._transport.run(self._service.delete_dataset(dataset))

    def _run(self, record: RunRecord) -> Run:
        return Run(record, self._transport, self._policy)

    def __repr__(self) -> str:
        return f"<Client of {self.address}>"
