"""Trainer: trains, predicts and computes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Protocol

from epochd.v1 import activation_pb2, differentiate_pb2, trainer_pb2_grpc
from epochd.v1 import trainer_pb2 as pb
from epochd_server.codec.events import encode_started
from epochd_server.codec.predictions import decode_predict, encode_prediction
from epochd_server.domain.commands import PredictCommand
from epochd_server.domain.errors import EpochdError, Violations
from epochd_server.domain.predictions import Prediction
from epochd_server.domain.resources import is_request_id
from epochd_server.planning.planner import RequestPlanner
from epochd_server.planning.requests import read_sent
from epochd_server.rpc.activation import Activations
from epochd_server.rpc.activation_stream import ActivationStreams
from epochd_server.rpc.calls import Context, Encoded, client_of, request_done
from epochd_server.rpc.differentiate import Differentiator
from epochd_server.rpc.requests import required
from epochd_server.runs.ports import Accepted, Plan
from epochd_server.runs.service import RunService


class Predictor(Protocol):
    """Whoever predicts; implemented by ``serving``."""

    async def predict(self, command: PredictCommand) -> Prediction:
        """Predictions for the rows of a command, in their order."""


class TrainerServicer(trainer_pb2_grpc.TrainerServicer):
    """The service ``epochd.v1.Trainer``."""

    def __init__(
        self,
        *,
        planner: RequestPlanner,
        runs: RunService,
        predictor: Predictor,
        activations: Activations,
        streams: ActivationStreams,
        differentiator: Differentiator,
    ) -> None:
        self._planner = planner
        self._runs = runs
        self._predictor = predictor
        self._activations = activations
        self._streams = streams
        self._differentiator = differentiator

    async def Train(
        self, request: pb.TrainRequest, context: Context
    ) -> AsyncIterator[pb.TrainResponse | Encoded]:
        """Creates a run, or finds the one that has the request_id, and follows it. A client may leave."""
        plan = await self._plan_or_attach(request)
        if isinstance(plan, Plan) and plan.validate_only:
            yield pb.TrainResponse(estimate=_estimate(plan))
            return
        accepted = plan if isinstance(plan, Accepted) else await self._submit(plan, client_of(context))
        del request, plan  # the rows: the stream may outlive their use by hours
        request_done()
        async with aclosing(self._runs.watch(accepted.run_id)) as pages:
            async for page in pages:
                yield page.data  # a TrainResponse has the fields of a page

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        """Predicts with a model version."""
        violations = Violations()
        command = required(decode_predict(request, violations), violations)
        return encode_prediction(await self._predictor.predict(command))

    async def ActivationTransform(
        self, request: activation_pb2.ActivationTransformRequest, context: Context
    ) -> activation_pb2.ActivationTransformResponse:
        """Applies activation functions to a tensor."""
        return await self._activations.transform(request)

    async def ActivationTransformStream(
        self,
        request_iterator: AsyncIterator[activation_pb2.ActivationTransformStreamRequest],
        context: Context,
    ) -> AsyncIterator[activation_pb2.ActivationTransformStreamResponse]:
        """Applies activation functions to a tensor that is larger than a message."""
        async with aclosing(self._streams.transform(request_iterator)) as responses:
            async for response in responses:
                yield response

    async def Differentiate(
        self, request: differentiate_pb2.DifferentiateRequest, context: Context
    ) -> differentiate_pb2.DifferentiateResponse:
        """Evaluates a small expression and differentiates it."""
        return await self._differentiator.differentiate(request)

    async def _plan_or_attach(self, request: pb.TrainRequest) -> Plan | Accepted:
        """The plan; of a request that was good once and is so no longer, as its dataset is gone, the run it made."""
        try:
            plan = await self._planner.plan(request)
            plan.limits.require_future(datetime.now(UTC))
            return plan
        except EpochdError:
            if request.validate_only or not is_request_id(request.request_id):
                raise
            asked = read_sent(request).asked
            run = None if asked is None else await self._runs.attach(asked)
            if run is None:
                raise
            return run

    async def _submit(self, plan: Plan, client: str) -> Accepted:
        """Submits a plan; the acceptance, once begun, is completed even when the client leaves meanwhile."""
        return await asyncio.shield(asyncio.create_task(self._runs.submit(plan, client)))


def _estimate(plan: Plan) -> pb.TrainEstimate:
    return pb.TrainEstimate(
        started=encode_started(plan.started), steps=plan.steps, memory_bytes=plan.memory_bytes
    )
