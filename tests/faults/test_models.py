"""A model's file that is damaged after it was written: its version is named, everything else is served."""

from __future__ import annotations

import numpy as np
import pytest

import epochd


def train(client, name, *layers):
    x = np.arange(8.0)[:, None]
    model = epochd.Sequential(*layers)
    return client.train(x, x[:, 0], model=model, optimizer=epochd.Adam(), epochs=2, name=name).result(
        timeout=60
    )


def test_a_damaged_model_is_data_loss_by_name_and_others_are_served(start_server):
    server = start_server()
    with epochd.connect(server.address) as client:
        small = train(client, "small", epochd.Linear(1))
        train(client, "large", epochd.Linear(600), "relu", epochd.Linear(600), "relu", epochd.Linear(1))
        [file] = (server.data_dir / "artifacts").rglob("*.safetensors")
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.chmod(0o600)
        file.write_bytes(content)
        for _ in range(2):
            with pytest.raises(epochd.EpochdError) as caught:
                client.model("large").predict([[1.0]])
            assert caught.value.reason == "ARTIFACT_CORRUPT"
            assert caught.value.code == "DATA_LOSS"
            assert "models/large/versions/1" in str(caught.value)
            assert small.predict([[1.0]]).shape == (1,)
