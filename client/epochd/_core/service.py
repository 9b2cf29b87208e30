"""The programs of a client's own calls, one a method of both kinds of Client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epochd._core import registry
from epochd._core.calling import call, change, paginate
from epochd._core.data import source_of
from epochd._core.effects import Program
from epochd._core.methods import (
    DELETE_DATASET,
    DELETE_MODEL,
    DIFFERENTIATE,
    GET_RUN,
    GET_VERSION,
    LIST_DATASETS,
    LIST_MODELS,
    LIST_RUNS,
    LIST_VERSIONS,
)
from epochd._core.plans import TrainingPlan
from epochd._core.predicting import Query, predict
from epochd._core.resources import dataset_name, model_name, run_name, version_name
from epochd._core.routing import Route
from epochd._core.runs import RunRecord
from epochd._core.training import check, start
from epochd._core.transforming import Transform, steps_of
from epochd._core.uploading import upload
from epochd._wire.tensors import as_array, encode_tensor
from epochd._wire.values import decode_dataset, decode_derivatives, decode_estimate, decode_registered
from epochd.activations import Activation, Operation
from epochd.events import State
from epochd.policy import Policy
from epochd.registry import AliasMove, Comparison
from epochd.v1 import datasets_pb2, differentiate_pb2, models_pb2, run_pb2, runs_pb2, tensor_pb2
from epochd.values import Dataset, Derivatives, Estimate, Prediction, RegisteredModel


class Service:
    """Makes the programs of one client."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def train(self, plan: TrainingPlan) -> Program[RunRecord]:
        """Starts a run."""
        started = yield from start(plan, self.policy)
        return RunRecord.of_start(started, plan.request.gradient.epochs, self.policy)

    def check(self, plan: TrainingPlan) -> Program[Estimate]:
        """Has a training checked."""
        return decode_estimate((yield from check(plan, self.policy)))

    def upload(self, data: Any) -> Program[Dataset]:
        """Makes sure that the server has a table or a file."""
        return decode_dataset((yield from upload(source_of(data), self.policy)))

    def run(self, name: str) -> Program[RunRecord]:
        """Finds a run."""
        response = yield from call(GET_RUN, runs_pb2.GetRunRequest(name=run_name(name)), self.policy)
        return RunRecord.of_message(response.run, self.policy)

    def runs(
        self, model: str | None, states: Sequence[State | str], labels: Mapping[str, str] | None = None
    ) -> Program[None]:
        """Emits run messages."""
        request = runs_pb2.ListRunsRequest(
            model=model_name(model) if model else "",
            states=[run_pb2.RunState.Value(f"RUN_STATE_{state}") for state in states],
            labels=labels,
        )
        return paginate(LIST_RUNS, request, lambda page: page.runs, self.policy)

    def model(self, name: str) -> Program[models_pb2.ModelVersion]:
        """Finds a version."""
        request = models_pb2.GetVersionRequest(name=version_name(name))
        return (yield from call(GET_VERSION, request, self.policy)).version

    def models(self, labels: Mapping[str, str] | None = None) -> Program[None]:
        """Emits RegisteredModels."""
        request = models_pb2.ListModelsRequest(labels=labels)
        return paginate(LIST_MODELS, request, lambda page: map(decode_registered, page.models), self.policy)

    def versions(self, model: str, labels: Mapping[str, str] | None = None) -> Program[None]:
        """Emits version messages."""
        request = models_pb2.ListVersionsRequest(model=model_name(model), labels=labels)
        return paginate(LIST_VERSIONS, request, lambda page: page.versions, self.policy)

    def datasets(self) -> Program[None]:
        """Emits Datasets."""
        request = datasets_pb2.ListDatasetsRequest()
        return paginate(LIST_DATASETS, request, lambda page: map(decode_dataset, page.datasets), self.policy)

    def delete_model(self, name: str) -> Program[None]:
        """Deletes a model with all versions."""
        yield from change(DELETE_MODEL, models_pb2.DeleteModelRequest(name=version_name(name)), self.policy)

    def delete_dataset(self, dataset: str | Dataset) -> Program[None]:
        """Deletes a dataset."""
        name = dataset.name if isinstance(dataset, Dataset) else dataset_name(dataset)
        yield from change(DELETE_DATASET, datasets_pb2.DeleteDatasetRequest(name=name), self.policy)

    def predict(
        self,
        model: str,
        data: Any,
        route: Route,
        probabilities: bool,
        logits: bool,
        routing_key: str | None = None,
    ) -> Program[Prediction]:
        """Predicts with a model by name."""
        query = Query(
            model=version_name(model),
            route=route,
            probabilities=probabilities,
            logits=logits,
            routing_key=routing_key or "",
        )
        return predict(query, data, self.policy)

    def import_model(
        self, path: str | Path, name: str | None, labels: Mapping[str, str] | None
    ) -> Program[models_pb2.ModelVersion]:
        """Makes a version of an exported file."""
        return registry.import_file(Path(path), name, labels or {}, self.policy)

    def diff(self, base: str, other: str) -> Program[Comparison]:
        """Compares two versions."""
        return registry.diff(base, other, self.policy)

    def label(
        self, name: str, labels: Mapping[str, str] | None, remove: Sequence[str]
    ) -> Program[dict[str, str]]:
        """Changes the labels of a model, a version or a run."""
        return registry.label(name, labels or {}, remove, self.policy)

    def alias_moves(self, name: str) -> Program[list[AliasMove]]:
        """Where an alias has pointed."""
        return registry.alias_moves(name, self.policy)

    def roll_back(self, name: str) -> Program[RegisteredModel]:
        """Points an alias where it pointed before."""
        return registry.roll_back(name, self.policy)


def plan_activation(
    function: str | Activation | Sequence[str | Activation],
    x: Any,
    *,
    op: Operation = "forward",
    axis: int | None = None,
    strict: bool = False,
    approximate: str | None = None,
    **parameters: float,
) -> Transform:
    """Args:
    function: A name such as ``"sigmoid"``, an :class:`Activation`, or several of them, applied in order.
    x: Numbers of any shape. float16, bfloat16, float32 and float64 keep their type; lists become float64.
    op: What to take: ``"forward"``, ``"inverse"``, ``"derivative"`` or ``"antiderivative"``.
    axis: For softmax, log_softmax and logsumexp: the axis; None: the last.
    strict: Whether an input for which the result is not defined raises OutOfRange instead of giving NaN.
    approximate: For gelu: ``"none"`` or ``"tanh"``.
    **parameters: Arguments by PyTorch's names, such as ``negative_slope=0.1``.
    """  # noqa: D205 - the methods that take these arguments put their summary before it
    return Transform(steps_of(function, op, axis, approximate, parameters), x, strict)


def plan_differentiation(
    expression: str,
    variables: Mapping[str, Any] | None = None,
    /,
    *,
    gradients_of: Sequence[str] | None = None,
    repeat: int | None = None,
    accumulate: bool = False,
    **values: Any,
) -> differentiate_pb2.DifferentiateRequest:
    """Args:
    expression: Statements separated by ``;`` or newlines; the last is the output, a scalar.
    variables: Values by name; for names that are no Python keywords, ``w=2.0`` is shorter.
    gradients_of: Names of variables or of intermediate results; None: all variables.
    repeat: How often to go backward; None: once.
    accumulate: Whether gradients add up, as PyTorch's do without ``zero_grad()``.
    **values: Values by name: numbers, lists, arrays. Numbers and lists are float64.
    """  # noqa: D205 - the methods that take these arguments put their summary before it
    named = {**(variables or {}), **values}
    return differentiate_pb2.DifferentiateRequest(
        expression=expression,
        variables=[
            tensor_pb2.NamedTensor(name=name, tensor=_variable(value)) for name, value in named.items()
        ],
        gradients_of=gradients_of or (),
        repeat=repeat,
        accumulate=accumulate,
    )


def differentiate(request: differentiate_pb2.DifferentiateRequest, policy: Policy) -> Program[Derivatives]:
    """Evaluates and differentiates an expression."""
    return decode_derivatives((yield from call(DIFFERENTIATE, request, policy)))


def _variable(value: Any) -> tensor_pb2.Tensor:
    array = as_array(value)
    return encode_tensor(array.astype(np.float64) if array.dtype.kind in "biu" else array)
