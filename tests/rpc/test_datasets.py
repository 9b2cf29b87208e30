"""The Datasets service over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import io
import uuid

import pandas as pd
import pytest

from epochd.v1 import datasets_pb2 as pb
from epochd.v1 import preprocessing_pb2, runs_pb2, spec_pb2, tensor_pb2, validation_pb2


def csv(rows: int = 50) -> bytes:
    """A table y = 2 x that nobody uploaded before."""
    lines = [f"{x},{2 * x}" for x in range(rows)]
    return "\n".join(["x,y", *lines, f"0.{uuid.uuid4().int},0"]).encode()


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def header(data: bytes, offset: int = 0, **fields) -> pb.UploadDatasetRequest:
    announced = {"sha256": digest_of(data), "size_bytes": len(data), "format": pb.DATASET_FORMAT_CSV}
    return pb.UploadDatasetRequest(header=pb.UploadHeader(**{**announced, **fields}, offset=offset))


def messages(data: bytes, offset: int = 0, piece: int = 100, **fields) -> list[pb.UploadDatasetRequest]:
    pieces = [data[start : start + piece] for start in range(offset, len(data), piece)]
    return [header(data, offset, **fields), *(pb.UploadDatasetRequest(data=part) for part in pieces)]


async def upload(api, data: bytes, **fields) -> pb.Dataset:
    return (await api.datasets.UploadDataset(messages(data, **fields))).dataset


async def begin(api, data: bytes) -> pb.BeginUploadResponse:
    request = pb.BeginUploadRequest(
        sha256=digest_of(data), size_bytes=len(data), format=pb.DATASET_FORMAT_CSV
    )
    return await api.datasets.BeginUpload(request)


async def test_an_upload_becomes_a_dataset_named_by_its_digest(api):
    data = csv()
    dataset = await upload(api, data)
    assert dataset.name == f"datasets/{digest_of(data)}"
    assert (dataset.rows, dataset.size_bytes) == (51, len(data))
    assert [(c.name, c.dtype) for c in dataset.columns] == [
        ("x", tensor_pb2.DATA_TYPE_FLOAT64),
        ("y", tensor_pb2.DATA_TYPE_INT64),
    ]
    assert (await api.datasets.GetDataset(pb.GetDatasetRequest(name=dataset.name))).dataset == dataset


async def test_a_repeated_request_finds_its_run_after_its_dataset_was_deleted(api, linear):
    dataset = await upload(api, csv())
    data = spec_pb2.TrainingData(dataset=dataset.name, target_columns=["y"])
    request = linear(data=data, request_id=str(uuid.uuid4()))
    first = await api.train(request)
    await api.datasets.DeleteDataset(pb.DeleteDatasetRequest(name=dataset.name))
    assert await api.train(request) == first
    request.gradient.epochs += 1
    assert (await api.refused(api.train(request))).reason == "REQUEST_ID_REUSED"
    request.request_id = str(uuid.uuid4())
    assert (await api.refused(api.train(request))).reason == "DATASET_NOT_FOUND"


async def test_what_is_here_already_need_not_be_uploaded(api):
    data = csv()
    assert not (await begin(api, data)).HasField("dataset")
    dataset = await upload(api, data)
    assert (await begin(api, data)).dataset == dataset
    assert await upload(api, data) == dataset


async def test_a_broken_upload_goes_on_where_it_broke(api, until):
    data = csv(200)

    async def breaking():
        for message in messages(data)[:5]:
            yield message
        await asyncio.sleep(30)

    call = api.datasets.UploadDataset(breaking())

    async def arrived() -> bool:
        return (await begin(api, data)).committed_bytes == 400

    await until(arrived)
    call.cancel()
    answer = await api.datasets.UploadDataset(messages(data, 400))
    assert answer.dataset.rows == 201


async def test_a_parquet_file_is_a_dataset_too(api):
    buffer = io.BytesIO()
    frame = pd.DataFrame({"x": [1.0, 2.0, float(uuid.uuid4().int % 10**9)], "kind": ["a", "b", "c"]})
    frame.to_parquet(buffer)
    dataset = await upload(api, buffer.getvalue(), piece=1000, format=pb.DATASET_FORMAT_PARQUET)
    assert [(c.name, c.dtype) for c in dataset.columns] == [
        ("x", tensor_pb2.DATA_TYPE_FLOAT64),
        ("kind", tensor_pb2.DATA_TYPE_UNSPECIFIED),
    ]


async def test_a_run_trains_from_a_dataset(api, linear):
    dataset = await upload(api, csv(3))
    data = spec_pb2.TrainingData(dataset=dataset.name, feature_columns=["x"], target_columns=["y"])
    events = await api.train(linear(data=data))
    assert list(events[1].started.feature_columns) == ["x"]
    assert events[-1].WhichOneof("kind") == "succeeded"


async def test_a_dataset_in_use_cannot_be_deleted(api, endless):
    dataset, held_out = await upload(api, csv(4_000)), await upload(api, csv(50))
    data = spec_pb2.TrainingData(dataset=dataset.name, target_columns=["y"])
    validation = validation_pb2.Validation(dataset=held_out.name)
    call = api.trainer.Train(endless(data=data, validation=validation))
    run = (await call.read()).events[0].queued.run
    for used in (dataset, held_out):
        refusal = await api.refused(api.datasets.DeleteDataset(pb.DeleteDatasetRequest(name=used.name)))
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "DATASET_IN_USE")
        assert refusal.metadata["run"] == run
    await api.runs.CancelRun(runs_pb2.CancelRunRequest(name=run))
    await api.events(api.runs.WatchRun(runs_pb2.WatchRunRequest(run=run)))
    await api.datasets.DeleteDataset(pb.DeleteDatasetRequest(name=dataset.name))
    refusal = await api.refused(api.datasets.GetDataset(pb.GetDatasetRequest(name=dataset.name)))
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "DATASET_NOT_FOUND")


async def test_datasets_are_listed_newest_first_page_by_page(api):
    made = [(await upload(api, csv())).name for _ in range(3)]
    listed, token = [], ""
    for _ in range(2):
        page = await api.datasets.ListDatasets(pb.ListDatasetsRequest(page_size=2, page_token=token))
        listed += [dataset.name for dataset in page.datasets]
        token = page.next_page_token
    assert listed[:3] == made[::-1]


async def test_bytes_of_another_digest_are_thrown_away(api):
    data, other = csv(), csv()
    request = [header(data, size_bytes=len(other)), pb.UploadDatasetRequest(data=other)]
    refusal = await api.refused(api.datasets.UploadDataset(request))
    assert (refusal.code, refusal.reason) == ("DATA_LOSS", "DIGEST_MISMATCH")


async def test_too_few_bytes_are_named(api):
    data = csv()
    refusal = await api.refused(api.datasets.UploadDataset(messages(data)[:-1]))
    assert refusal.code == "INVALID_ARGUMENT"
    assert str(len(data)) in refusal.message


async def test_too_many_bytes_are_refused(api):
    data = csv()
    refusal = await api.refused(
        api.datasets.UploadDataset([*messages(data), pb.UploadDatasetRequest(data=b"x")])
    )
    assert refusal.code == "INVALID_ARGUMENT"


async def test_a_dataset_over_the_limit_is_refused_before_any_byte(api):
    refusal = await api.refused(api.datasets.UploadDataset([header(csv(), size_bytes=2**60)]))
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "DATA_TOO_LARGE")


async def test_everything_wrong_with_an_announcement_is_told_at_once(api):
    bad = pb.UploadHeader(sha256="x", size_bytes=-1, format=99, offset=-1)
    refusal = await api.refused(api.datasets.UploadDataset([pb.UploadDatasetRequest(header=bad)]))
    assert set(refusal.fields) == {
        "header.sha256",
        "header.size_bytes",
        "header.format",
        "header.offset",
    }
    refusal = await api.refused(api.datasets.BeginUpload(pb.BeginUploadRequest()))
    assert set(refusal.fields) == {"sha256", "size_bytes", "format"}


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda data: [], "header"),
        (lambda data: [pb.UploadDatasetRequest(data=data)], "header"),
        (lambda data: [pb.UploadDatasetRequest()], "header"),
        (lambda data: [header(data), header(data)], "part"),
        (lambda data: [header(data), pb.UploadDatasetRequest()], "part"),
        (lambda data: [header(data), pb.UploadDatasetRequest(data=b"")], "data"),
        (lambda data: [header(data), pb.UploadDatasetRequest(data=bytes(2**21 + 1))], "data"),
    ],
)
async def test_a_stream_is_one_header_and_then_bytes(api, build, field):
    refusal = await api.refused(api.datasets.UploadDataset(build(csv())))
    assert set(refusal.fields) == {field}


@pytest.mark.parametrize("token", ["x", "LTEvYQ==", "cnVucy94"])
async def test_a_token_of_something_else_is_refused(api, token):
    request = pb.ListDatasetsRequest(page_token=token)
    assert set((await api.refused(api.datasets.ListDatasets(request))).fields) == {"page_token"}


async def test_a_dataset_is_described_and_the_answer_is_kept(api):
    dataset = await upload(api, b"x,c,t\n1,a,1\n,b,2\n3,b,2\n")
    first = await api.datasets.DescribeDataset(pb.DescribeDatasetRequest(name=dataset.name))
    assert first.dataset == dataset
    x, c, t = first.columns
    assert (x.missing, x.distinct, x.min, x.max, x.mean, x.std) == (1, 2, 1, 3, 2, 1)
    assert (c.kind, c.distinct, c.HasField("min")) == (preprocessing_pb2.COLUMN_KIND_TEXT, 2, False)
    assert t.kind == preprocessing_pb2.COLUMN_KIND_INTEGER
    assert await api.datasets.DescribeDataset(pb.DescribeDatasetRequest(name=dataset.name)) == first


async def test_the_first_rows_of_a_dataset_are_shown(api):
    dataset = await upload(api, csv(30))
    table = (await api.datasets.PreviewDataset(pb.PreviewDatasetRequest(name=dataset.name, rows=3))).table
    assert [column.name for column in table.columns] == ["x", "y"]
    assert all(list(column.tensor.shape) == [3] for column in table.columns)
    default = (await api.datasets.PreviewDataset(pb.PreviewDatasetRequest(name=dataset.name))).table
    assert list(default.columns[0].tensor.shape) == [10]


async def test_without_data_roots_no_path_is_readable(api):
    request = pb.ImportDatasetRequest(path="/etc/passwd", format=pb.DATASET_FORMAT_CSV)
    failure = await api.refused(api.datasets.ImportDataset(request))
    assert (failure.code, failure.reason) == ("PERMISSION_DENIED", "PATH_NOT_ALLOWED")
