"""Which objects of buckets a client may name; against a real S3 server."""

from __future__ import annotations

from pathlib import Path

import obstore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import from_url

from epochd_server.data.bucket_roots import BucketRoot, parts_of
from epochd_server.data.roots import DataRoots
from epochd_server.domain.errors import EpochdError, Reason

OBJECTS = {"some/prefix/a.csv": b"x\n1\n", "some/prefix/deep/b.csv": b"x\n2\n", "some/secret.csv": b"secret"}


@pytest.fixture
def roots(bucket: str, tmp_path: Path) -> DataRoots:
    """One root, ``some/prefix`` of a bucket; objects below it and beside it."""
    store = from_url(bucket.removesuffix("/some/prefix"))
    for key, data in {**OBJECTS, "some/prefix2/c.csv": b"secret"}.items():
        obstore.put(store, key, data)
    return DataRoots([str(tmp_path / "folder"), bucket], copies=tmp_path, most_bytes=100)


def reason(roots: DataRoots, path: str) -> Reason:
    with pytest.raises(EpochdError) as caught:
        roots.open(path)
    return caught.value.reason


def test_an_object_below_a_root_is_read(roots: DataRoots, bucket: str, tmp_path: Path) -> None:
    for key in ("a.csv", "deep/b.csv"):
        with roots.open(f"{bucket}/{key}") as file:
            assert file.read() == OBJECTS[f"some/prefix/{key}"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "trick",
    [
        "{bucket}/../secret.csv",
        "{bucket}/deep/../../secret.csv",
        "{bucket}/./a.csv",
        "{bucket}/%2e%2e/secret.csv",
        "{bucket}/..%2fsecret.csv",
        "{bucket}/%2E%2E%2Fsecret.csv",
        "{bucket}/..\\secret.csv",
        "{bucket}//a.csv",
        "{bucket}2/c.csv",
        "{bucket}",
        "{bucket}/",
        "{bucket}/a.csv/",
        "{bucket}/a.csv?versionId=1",
        "{bucket}/a.csv#x",
        "{bucket}/a*.csv",
        "{bucket}/a.csv\0",
        "{bucket}/a.csv\n",
        "s3://other-bucket/some/prefix/a.csv",
        "s3://user@{name}/some/prefix/a.csv",
        "s3://{name}:80/some/prefix/a.csv",
        "S3://{name}/some/prefix/a.csv",
        "gs://{name}/some/prefix/a.csv",
        "az://{name}/some/prefix/a.csv",
        "s3a://{name}/some/prefix/a.csv",
        "http://{name}/some/prefix/a.csv",
        "file://{name}/some/prefix/a.csv",
        "s3:/{name}/some/prefix/a.csv",
        "s3:///some/prefix/a.csv",
        "s3://{name}/some/secret.csv",
        "/{name}/some/prefix/a.csv",
    ],
)
def test_everything_else_is_denied(roots: DataRoots, bucket: str, trick: str) -> None:
    name = bucket.removeprefix("s3://").split("/")[0]
    assert reason(roots, trick.format(bucket=bucket, name=name)) is Reason.PATH_NOT_ALLOWED


@given(st.text(alphabet="abs3:/.%25\\~ ", max_size=40))
def test_no_url_leads_out_of_a_root(text: str) -> None:
    root = BucketRoot("s3://lake/tables")
    parts = parts_of(f"s3://lake/tables/{text}")
    if parts is not None and root.holds(parts):
        assert "/".join(parts) == f"s3/lake/tables/{text}".rstrip("/")
        assert not {"..", "."} & set(parts)


def test_what_is_missing_or_too_large_is_told_as_such(roots: DataRoots, bucket: str) -> None:
    assert reason(roots, f"{bucket}/none.csv") is Reason.FILE_NOT_FOUND
    obstore.put(from_url(bucket), "large.csv", bytes(101))
    assert reason(roots, f"{bucket}/large.csv") is Reason.DATA_TOO_LARGE


def test_a_bucket_that_cannot_be_read_is_no_fault_of_the_request(
    roots: DataRoots, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epochd_server.data.bucket_roots._RETRIES", {"max_retries": 0})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert reason(roots, f"{bucket}/a.csv") is Reason.STORAGE_UNAVAILABLE


@pytest.mark.parametrize(
    "url", ["ftp://host/folder", "s3://", "s3://lake/../x", "http://lake/x", "s3://Lake%20/x"]
)
def test_a_root_that_is_no_bucket_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="s3://BUCKET/PREFIX"):
        BucketRoot(url)
