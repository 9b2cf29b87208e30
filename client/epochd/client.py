"""The blocking client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from epochd._transport.blocking import BlockingTransport
from epochd._transport.options import Connection, Options
from epochd.dataset import Dataset
from epochd.errors import Internal
from epochd.events import State
from epochd.fleet import Fleet, version_of
from epochd.keys import KeyLike
from epochd.model import Model
from epochd.policy import Retry, Timeout
from epochd.registry import AliasMove, Comparison
from epochd.run import Run
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

    def cross_validate(
        self,
        X: Any | Dataset | Path,  # noqa: N803 - as everywhere in this field
        y: Any = None,
        *,
        folds: int = 5,
        sweep: Sweep | Mapping[str, Any] | None = None,
        **training: Any,
    ) -> CrossValidation:
        """Trains a model on all rows but a fold and measures it there, for each fold; waits for the result.

        Args:
            X: As for :meth:`train`.
            y: As for :meth:`train`.
            folds: How many there are; they are members of one training.
            sweep: Hyperparameters of which every combination is measured: a grid search, the best one first.
            training: Further arguments of :meth:`train`; ``validation``, a :class:`HoldOut` without a fraction, says
                how rows are dealt to folds.

        Raises:
            InvalidArgument: Naming everything that is wrong at once; then there is no run.
            TrainingFailed: When no fold could be trained.
        """
        model = self.train(X, y, sweep=with_folds(sweep, folds), **training).result()
        if not isinstance(model, Fleet):
            raise Internal("The server did not train any folds.", reason="BAD_RESPONSE")
        return model.cross_validation()

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
        routing_key: str | None = None,
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
        routing_key: str | None = None,
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
        routing_key: str | None = None,
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
        routing_key: str | None = None,
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
            routing_key: For an alias with a canary: what decides which of the two versions predicts, such as a
                customer's id; None: each row's key, or its features.
            probabilities: Whether to return probabilities, too.
            logits: Whether to return logits, too.
        """
        route = Route.of((), keys, member, unknown)
        program = self._service.predict(model, X, route, probabilities, logits, routing_key)
        prediction = self._transport.run(program)
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

    def runs(
        self,
        *,
        model: str | None = None,
        states: Sequence[State | str] = (),
        labels: Mapping[str, str] | None = None,
    ) -> Iterator[Run]:
        """The runs, newest first, fetched page by page as they are iterated over.

        Args:
            model: Only runs of this model.
            states: Only runs in these states.
            labels: Only runs that have all of these labels.
        """
        for message in self._transport.iterate(self._service.runs(model, states, labels)):
            yield self._run(RunRecord.of_message(message, self._policy))

    def model(self, name: str) -> Model:
        """Finds a model: ``house-price`` (the newest version), ``house-price@champion``, ``house-price/versions/3``.

        Raises:
            NotFound: When there is no such model, version or alias.
        """
        return version_of(self._transport.run(self._service.model(name)), self._transport, self._policy)

    def models(self, *, labels: Mapping[str, str] | None = None) -> Iterator[RegisteredModel]:
        """The models, or those that have all of these labels, by name, fetched page by page."""
        return self._transport.iterate(self._service.models(labels))

    def versions(self, model: str, *, labels: Mapping[str, str] | None = None) -> Iterator[Model]:
        """The versions of a model, or those that have all of these labels, newest first, fetched page by page."""
        for message in self._transport.iterate(self._service.versions(model, labels)):
            yield version_of(message, self._transport, self._policy)

    def import_model(
        self, path: str | Path, name: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> Model:
        """Makes a version of a safetensors file that ``Model.export`` wrote, of this server or another.

        Args:
            path: The file.
            name: Of the model that gets a version; None: as it was called where it was exported.
            labels: Of the version, besides those that the file has.

        Raises:
            InvalidArgument: When it is no such file, or its parts do not fit each other.
            DataLoss: When it was changed.
        """
        message = self._transport.run(self._service.import_model(path, name, labels))
        return version_of(message, self._transport, self._policy)

    def diff(self, base: str, other: str) -> Comparison:
        """Compares two versions side by side: results first, then every field that differs; prints as a table."""
        return self._transport.run(self._service.diff(base, other))

    def label(
        self, name: str, labels: Mapping[str, str] | None = None, *, remove: Sequence[str] = ()
    ) -> dict[str, str]:
        """Sets and removes labels of a model, a version or a run (``runs/…``), and returns all that it has then."""
        return self._transport.run(self._service.label(name, labels, remove))

    def alias_moves(self, name: str) -> list[AliasMove]:
        """Where an alias such as ``house-price@champion`` has pointed, newest first."""
        return self._transport.run(self._service.alias_moves(name))

    def rollback(self, name: str) -> RegisteredModel:
        """Points an alias such as ``house-price@champion`` where it pointed before, with the canary of then.

        Raises:
            Aborted: When somebody moved it meanwhile; nothing is changed then.
            FailedPrecondition: When it never pointed anywhere else, or that version was deleted.
        """
        return self._transport.run(self._service.roll_back(name))

    def upload(self, data: Any | str | Path) -> Dataset:
        """Uploads a table, or a CSV, Parquet or Arrow file, to train on more than once.

        What the server has already is not sent again; a broken upload goes on where it ended.
        """
        return self._dataset(self._transport.run(self._service.upload(data)))

    def import_dataset(self, path: str) -> Dataset:
        """Has the server make a dataset of a file of its own; nothing is sent.

        Args:
            path: An absolute path below a ``--data-root`` of the server, without symbolic links.

        Raises:
            PermissionDenied: When the path is not below one.
            NotFound: When there is no such file.
        """
        return self._dataset(self._transport.run(datasets.import_file(path, self._policy)))

    def dataset(self, name: str) -> Dataset:
        """Finds a dataset by its name or digest.

        Raises:
            NotFound: When there is no such dataset.
        """
        return self._dataset(self._transport.run(datasets.find(name, self._policy)))

    def datasets(self) -> Iterator[Dataset]:
        """The uploaded tables, newest first, fetched page by page."""
        for facts in self._transport.iterate(self._service.datasets()):
            yield self._dataset(facts)

    def _dataset(self, facts: DatasetFacts) -> Dataset:
        return Dataset(facts, self._transport, self._policy)

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
