"""The programs of a dataset's calls, one a method of both kinds of Dataset."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from numpy.typing import NDArray

from epochd._core.calling import call, new_request_id, retrying
from epochd._core.effects import Program, invoke
from epochd._core.methods import DESCRIBE_DATASET, GET_DATASET, IMPORT_DATASET, PREVIEW_DATASET
from epochd._core.resources import dataset_name
from epochd._core.uploading import format_of
from epochd._wire.datasets import decode_description, decode_table
from epochd._wire.values import decode_dataset
from epochd.descriptions import Description
from epochd.policy import Policy
from epochd.v1 import datasets_pb2
from epochd.values import Dataset


def find(name: str, policy: Policy) -> Program[Dataset]:
    """Finds a dataset."""
    request = datasets_pb2.GetDatasetRequest(name=dataset_name(name))
    return decode_dataset((yield from call(GET_DATASET, request, policy)).dataset)


def describe(name: str, policy: Policy) -> Program[Description]:
    """Describes the columns of a dataset; of a large one that takes a while, once."""
    request = datasets_pb2.DescribeDatasetRequest(name=name)
    return decode_description(
        (
            yield from retrying(
                lambda left: invoke(DESCRIBE_DATASET, request, left), policy, policy.timeout.transfer
            )
        )
    )


def preview(name: str, rows: int, policy: Policy) -> Program[dict[str, NDArray[Any]]]:
    """The first rows of a dataset."""
    request = datasets_pb2.PreviewDatasetRequest(name=name, rows=rows)
    return decode_table((yield from call(PREVIEW_DATASET, request, policy)).table)


def import_file(path: str, policy: Policy) -> Program[Dataset]:
    """Has the server make a dataset of a file of its own."""
    request = datasets_pb2.ImportDatasetRequest(
        path=path, format=format_of(PurePosixPath(path)), request_id=new_request_id()
    )
    response = yield from retrying(
        lambda left: invoke(IMPORT_DATASET, request, left), policy, policy.timeout.transfer
    )
    return decode_dataset(response.dataset)
