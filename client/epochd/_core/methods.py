"""The RPCs that the client calls: the one table of their paths and messages. A test holds it against the protos."""

from __future__ import annotations

from typing import Protocol, TypeVar

from epochd._core.effects import Kind, Method
from epochd.v1 import activation_pb2 as activation
from epochd.v1 import datasets_pb2 as datasets
from epochd.v1 import differentiate_pb2 as differentiation
from epochd.v1 import fits_pb2 as fits
from epochd.v1 import models_pb2 as models
from epochd.v1 import runs_pb2 as runs
from epochd.v1 import trainer_pb2 as trainer


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name
    @classmethod
    def FromString(cls, data: bytes, /) -> _Message: ...  # noqa: N802 - protobuf's name


Q = TypeVar("Q", bound=_Message)
R = TypeVar("R", bound=_Message)


def _method(
    service: str, name: str, request: type[Q], response: type[R], kind: Kind = "unary_unary"
) -> Method[Q, R]:
    path = f"/epochd.v1.{service}/{name}"
    return Method(path, kind, request.SerializeToString, response.FromString)  # type: ignore[arg-type]


def _raw(message: bytes) -> bytes:
    return message


TRAIN = _method("Trainer", "Train", trainer.TrainRequest, trainer.TrainResponse, "unary_stream")
PREDICT = _method("Trainer", "Predict", trainer.PredictRequest, trainer.PredictResponse)
ACTIVATION = _method(
    "Trainer",
    "ActivationTransform",
    activation.ActivationTransformRequest,
    activation.ActivationTransformResponse,
)
ACTIVATION_STREAM = _method(
    "Trainer",
    "ActivationTransformStream",
    activation.ActivationTransformStreamRequest,
    activation.ActivationTransformStreamResponse,
    "stream_stream",
)
DIFFERENTIATE = _method(
    "Trainer", "Differentiate", differentiation.DifferentiateRequest, differentiation.DifferentiateResponse
)

GET_RUN = _method("Runs", "GetRun", runs.GetRunRequest, runs.GetRunResponse)
LIST_RUNS = _method("Runs", "ListRuns", runs.ListRunsRequest, runs.ListRunsResponse)
WATCH_RUN = _method("Runs", "WatchRun", runs.WatchRunRequest, runs.WatchRunResponse, "unary_stream")
CANCEL_RUN = _method("Runs", "CancelRun", runs.CancelRunRequest, runs.CancelRunResponse)
PAUSE_RUN = _method("Runs", "PauseRun", runs.PauseRunRequest, runs.PauseRunResponse)
RESUME_RUN = _method("Runs", "ResumeRun", runs.ResumeRunRequest, runs.ResumeRunResponse)
UPDATE_RUN_LABELS = _method(
    "Runs", "UpdateRunLabels", runs.UpdateRunLabelsRequest, runs.UpdateRunLabelsResponse
)
DELETE_RUN = _method("Runs", "DeleteRun", runs.DeleteRunRequest, runs.DeleteRunResponse)

GET_MODEL = _method("Models", "GetModel", models.GetModelRequest, models.GetModelResponse)
LIST_MODELS = _method("Models", "ListModels", models.ListModelsRequest, models.ListModelsResponse)
GET_STATISTICS = _method("Models", "GetStatistics", fits.GetStatisticsRequest, fits.GetStatisticsResponse)
GET_VERSION = _method("Models", "GetVersion", models.GetVersionRequest, models.GetVersionResponse)
LIST_VERSIONS = _method("Models", "ListVersions", models.ListVersionsRequest, models.ListVersionsResponse)
GET_PARAMETERS = _method("Models", "GetParameters", models.GetParametersRequest, models.GetParametersResponse)
LIST_MEMBERS = _method("Models", "ListMembers", models.ListMembersRequest, models.ListMembersResponse)
GET_MEMBER = _method("Models", "GetMember", models.GetMemberRequest, models.GetMemberResponse)
PROMOTE_MEMBER = _method("Models", "PromoteMember", models.PromoteMemberRequest, models.PromoteMemberResponse)
EXPORT_VERSION = _method(
    "Models", "ExportVersion", models.ExportVersionRequest, models.ExportVersionResponse, "unary_stream"
)
SET_ALIAS = _method("Models", "SetAlias", models.SetAliasRequest, models.SetAliasResponse)
DELETE_ALIAS = _method("Models", "DeleteAlias", models.DeleteAliasRequest, models.DeleteAliasResponse)
IMPORT_VERSION = _method(
    "Models", "ImportVersion", models.ImportVersionRequest, models.ImportVersionResponse, "stream_unary"
)
DIFF_VERSIONS = _method("Models", "DiffVersions", models.DiffVersionsRequest, models.DiffVersionsResponse)
UPDATE_LABELS = _method("Models", "UpdateLabels", models.UpdateLabelsRequest, models.UpdateLabelsResponse)
LIST_ALIAS_MOVES = _method(
    "Models", "ListAliasMoves", models.ListAliasMovesRequest, models.ListAliasMovesResponse
)
DELETE_VERSION = _method("Models", "DeleteVersion", models.DeleteVersionRequest, models.DeleteVersionResponse)
DELETE_MODEL = _method("Models", "DeleteModel", models.DeleteModelRequest, models.DeleteModelResponse)

BEGIN_UPLOAD = _method("Datasets", "BeginUpload", datasets.BeginUploadRequest, datasets.BeginUploadResponse)
UPLOAD = _method(
    "Datasets", "UploadDataset", datasets.UploadDatasetRequest, datasets.UploadDatasetResponse, "stream_unary"
)
GET_DATASET = _method("Datasets", "GetDataset", datasets.GetDatasetRequest, datasets.GetDatasetResponse)
DESCRIBE_DATASET = _method(
    "Datasets", "DescribeDataset", datasets.DescribeDatasetRequest, datasets.DescribeDatasetResponse
)
PREVIEW_DATASET = _method(
    "Datasets", "PreviewDataset", datasets.PreviewDatasetRequest, datasets.PreviewDatasetResponse
)
IMPORT_DATASET = _method(
    "Datasets", "ImportDataset", datasets.ImportDatasetRequest, datasets.ImportDatasetResponse
)
LIST_DATASETS = _method(
    "Datasets", "ListDatasets", datasets.ListDatasetsRequest, datasets.ListDatasetsResponse
)
DELETE_DATASET = _method(
    "Datasets", "DeleteDataset", datasets.DeleteDatasetRequest, datasets.DeleteDatasetResponse
)

HEALTH: Method[bytes, bytes] = Method("/grpc.health.v1.Health/Check", "unary_unary", _raw, _raw)
"""The standard health check, as raw bytes: its two messages need no stubs."""
