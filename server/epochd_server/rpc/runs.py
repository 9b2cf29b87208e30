"""Runs: the runs of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TypeVar

from epochd.v1 import runs_pb2 as pb
from epochd.v1 import runs_pb2_grpc
from epochd_server.codec.asked import decode_asked
from epochd_server.codec.runs import decode_states, encode_run
from epochd_server.codec.user_labels import decode_label_change, decode_user_labels
from epochd_server.domain.errors import FieldViolation, InvalidInput, Violations
from epochd_server.domain.resources import parse_model, parse_run, run_name
from epochd_server.domain.runs import Run
from epochd_server.rpc.calls import Context, Encoded
from epochd_server.rpc.mutations import Changed, Mutations, Wished
from epochd_server.rpc.requests import PageRequest, page_token, run_id
from epochd_server.runs.service import RunService

_LABELLED: Changed[Run, pb.UpdateRunLabelsResponse] = Changed(
    pb.UpdateRunLabelsResponse.FromString, lambda run: pb.UpdateRunLabelsResponse(run=encode_run(run))
)
_DELETED: Changed[object, pb.DeleteRunResponse] = Changed(
    pb.DeleteRunResponse.FromString, lambda _: pb.DeleteRunResponse()
)


WishedResponse = TypeVar("WishedResponse", pb.CancelRunResponse, pb.PauseRunResponse, pb.ResumeRunResponse)


def _wished(response: type[WishedResponse], runs: RunService) -> Wished[Run, WishedResponse]:
    """How a wish for a run is answered, remembered, and carried out by those who find it remembered."""
    return Wished(
        parse=response.FromString,
        response=lambda run: response(run=encode_run(run)),
        heed=lambda answer: runs.heed(run_id(answer.run.name)),
    )


class RunsServicer(runs_pb2_grpc.RunsServicer):
    """The service ``epochd.v1.Runs``."""

    def __init__(self, runs: RunService, mutations: Mutations) -> None:
        self._runs = runs
        self._mutations = mutations
        self._cancelled = _wished(pb.CancelRunResponse, runs)
        self._paused = _wished(pb.PauseRunResponse, runs)
        self._resumed = _wished(pb.ResumeRunResponse, runs)

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        """Returns a run."""
        return pb.GetRunResponse(run=encode_run(await self._runs.get(run_id(request.name))))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        """Lists runs, newest first."""
        violations = Violations()
        page = PageRequest(request.page_size, request.page_token, violations)
        before = page.after_as(parse_run, violations)
        states = decode_states(request.states, violations)
        model = parse_model(request.model)
        if request.model and model is None:
            violations.add("model", f"must be models/{{model}}, is {request.model[:80]!r}")
        labels = decode_user_labels(request.labels, violations)
        violations.raise_if_any()
        found = await self._runs.page(
            limit=page.fetch, before=before, states=states, model=model, labels=labels
        )
        runs, more = page.split(found)
        token = page_token(run_name(runs[-1].run_id)) if more else ""
        return pb.ListRunsResponse(runs=map(encode_run, runs), next_page_token=token)

    async def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> AsyncIterator[Encoded]:
        """Replays a run's events after a sequence number, then follows it to its end."""
        run = run_id(request.run, "run")
        if request.after_sequence < 0:
            raise InvalidInput(
                [FieldViolation("after_sequence", f"must be >= 0, is {request.after_sequence}")]
            )
        async with aclosing(self._runs.watch(run, request.after_sequence)) as pages:
            async for page in pages:
                yield page.data  # a WatchRunResponse has the field of a page

    async def CancelRun(self, request: pb.CancelRunRequest, context: Context) -> pb.CancelRunResponse:
        """Cancels a run at its next epoch."""
        violations = Violations()
        asked = decode_asked(request, violations)
        run, keep = run_id(request.name, violations=violations), request.keep_weights
        return await self._mutations.wish(
            asked, lambda once: self._runs.cancel(run, keep_weights=keep, once=once), self._cancelled
        )

    async def PauseRun(self, request: pb.PauseRunRequest, context: Context) -> pb.PauseRunResponse:
        """Pauses a run at its next epoch."""
        violations = Violations()
        asked = decode_asked(request, violations)
        run = run_id(request.name, violations=violations)
        return await self._mutations.wish(asked, lambda once: self._runs.pause(run, once), self._paused)

    async def ResumeRun(self, request: pb.ResumeRunRequest, context: Context) -> pb.ResumeRunResponse:
        """Lets a paused run go on."""
        violations = Violations()
        asked = decode_asked(request, violations)
        run = run_id(request.name, violations=violations)
        return await self._mutations.wish(asked, lambda once: self._runs.resume(run, once), self._resumed)

    async def UpdateRunLabels(
        self, request: pb.UpdateRunLabelsRequest, context: Context
    ) -> pb.UpdateRunLabelsResponse:
        """Changes the labels of a run."""
        violations = Violations()
        asked = decode_asked(request, violations)
        change = decode_label_change(request.labels, request.removed, violations)
        run = run_id(request.name, violations=violations)
        return await self._mutations.once(
            asked, lambda once: self._runs.change_labels(run, change, once), _LABELLED
        )

    async def DeleteRun(self, request: pb.DeleteRunRequest, context: Context) -> pb.DeleteRunResponse:
        """Deletes a run that has ended."""
        violations = Violations()
        asked = decode_asked(request, violations)
        run = run_id(request.name, violations=violations)
        return await self._mutations.once(asked, lambda once: self._runs.delete(run, once), _DELETED)
