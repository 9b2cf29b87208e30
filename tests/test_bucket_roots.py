"""Objects of a bucket, from the client's call to the dataset."""

from __future__ import annotations

import obstore
import pytest
from obstore.store import from_url

import epochd

from .conftest import StartServer


def test_an_object_below_a_root_becomes_a_dataset_and_no_other_one_does(
    start_server: StartServer, bucket: str
) -> None:
    obstore.put(from_url(bucket), "may.csv", b"x,y\n1,2\n2,4\n3,6\n")
    server = start_server("--data-root", bucket)
    with epochd.connect(server.address) as client:
        dataset = client.import_dataset(f"{bucket}/may.csv")
        assert (dataset.rows, list(dataset.columns)) == (3, ["x", "y"])
        assert client.import_dataset(f"{bucket}/may.csv") == dataset
        for trick in (f"{bucket}/../may.csv", "s3://other/may.csv", f"{bucket}/%2e%2e/may.csv", "/etc/a.csv"):
            with pytest.raises(epochd.PermissionDenied):
                client.import_dataset(trick)
        with pytest.raises(epochd.NotFound):
            client.import_dataset(f"{bucket}/june.csv")
    assert list((server.data_dir / "uploads").iterdir()) == []
