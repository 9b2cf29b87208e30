"""A server whose artifacts are in a bucket."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

import epochd

NO_RETRY = epochd.Retry(attempts=1)

WIDE = 70_000
"""Features whose weights are too large for the database."""


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    return {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": x.sum(axis=1)}


def train_wide(client, name: str, seed: int = 1):
    x = np.random.default_rng(seed).normal(size=(4, WIDE)).astype("float32")
    return client.train(
        x, x[:, :1], model=epochd.Linear(), optimizer=epochd.SGD(lr=1e-6), epochs=2, name=name
    ).result()


def objects(bucket: str, bucket_server) -> str:
    """The listing of a bucket."""
    name = bucket.split("/")[2]
    url = f"{bucket_server.environment['AWS_ENDPOINT_URL']}/{name}?list-type=2"
    return urllib.request.urlopen(url, timeout=10).read().decode()


def test_weights_and_datasets_live_in_the_bucket_and_outlast_the_machine(
    start_server, bucket, bucket_server, rows, tmp_path
):
    first = start_server("--artifacts", bucket)
    with epochd.connect(first.address) as client:
        dataset = client.upload(rows)
        run = client.train(
            dataset, target="y", model=epochd.Linear(init="zeros"), optimizer=epochd.SGD(lr=0.1), epochs=5
        )
        trained = run.result().parameters()
        wide = train_wide(client, "wide").parameters()["linear.weight"]
    assert first.stop() == 0
    listing = objects(bucket, bucket_server)
    assert f"some/prefix/datasets/{dataset.name.removeprefix('datasets/')}" in listing
    assert "some/prefix/weights/" in listing
    shutil.rmtree(first.data_dir / "cache")
    again = start_server("--artifacts", bucket)
    with epochd.connect(again.address) as client:
        assert np.array_equal(client.model("wide").parameters()["linear.weight"], wide)
        repeated = client.train(
            client.dataset(dataset.name),
            target="y",
            model=epochd.Linear(init="zeros"),
            optimizer=epochd.SGD(lr=0.1),
            epochs=5,
        )
        parameters = repeated.result().parameters()
        assert all(np.array_equal(parameters[name], trained[name]) for name in trained)
        assert client.dataset(dataset.name).describe().rows == 200
        client.delete_dataset(dataset.name)
        client.delete_model("wide")
    assert again.stop() == 0
    left = objects(bucket, bucket_server)
    assert (left.count("<Key>"), left.count("/marks/")) == (1, 1)


def test_a_copy_that_was_damaged_on_this_machine_is_fetched_again(start_server, bucket, rows):
    server = start_server("--artifacts", bucket)
    with epochd.connect(server.address) as client:
        dataset = client.upload(rows)
        train_wide(client, "wide").parameters()
        client.train(
            dataset, target="y", model=epochd.Linear(), optimizer=epochd.SGD(lr=1e-6), epochs=1
        ).result()
        copies = [path for path in (server.data_dir / "cache").rglob("*") if path.is_file()]
        assert {path.suffix for path in copies} == {".arrow", ".safetensors"}
        for path in copies:
            path.write_bytes(b"garbage")
        client.train(
            dataset, target="y", model=epochd.Linear(), optimizer=epochd.SGD(lr=1e-6), epochs=1
        ).result()


def test_a_small_cache_keeps_the_last_copies_only(start_server, bucket):
    server = start_server("--artifacts", bucket, "--artifact-cache-bytes", "1")
    with epochd.connect(server.address) as client:
        for n in range(2):
            assert train_wide(client, f"wide-{n}", n).parameters()["linear.weight"].shape == (1, WIDE)


def test_a_bucket_that_is_not_there_is_told_in_one_line(bucket, tmp_path):
    flags = ("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"), "--artifacts", "s3://nowhere/")
    command = [sys.executable, "-m", "epochd_server", *flags]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 1
    [line] = finished.stderr.splitlines()
    assert line.startswith("epochd: the artifact store s3://nowhere/ cannot be used: ")


def test_a_bucket_that_goes_away_is_unavailable_until_it_is_back(start_server, own_bucket_server):
    url = f"s3://{own_bucket_server.make_bucket()}/"
    server = start_server("--artifacts", url)
    with epochd.connect(server.address, retry=NO_RETRY) as client:
        own_bucket_server.stop()
        with pytest.raises(epochd.Unavailable) as caught:
            client.upload({"x": np.arange(5.0)})
        assert caught.value.reason == "STORAGE_UNAVAILABLE"
        assert (
            client.train(
                [[1.0]], [1.0], model=epochd.Linear(), optimizer=epochd.SGD(lr=0.1), epochs=1, name="small"
            )
            .result()
            .version
            == 1
        )
        run = client.train(
            np.ones((2, WIDE), "float32"),
            [1.0, 2.0],
            model=epochd.Linear(),
            optimizer=epochd.SGD(lr=1e-6),
            epochs=2,
            name="wide",
        )
        own_bucket_server.start()
        own_bucket_server.make_bucket(url.split("/")[2])
        assert run.result().parameters()["linear.weight"].shape == (1, WIDE)
        assert client.upload({"x": np.arange(5.0)}).rows == 5
