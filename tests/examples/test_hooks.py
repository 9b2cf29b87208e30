"""Calling a registered module is what runs its forward: hooks registered on it fire."""

from __future__ import annotations

import numpy as np
import torch
from tests.examples.hooked_model import HookedModel
from torch.nn import functional

import epochd

X = [[1.0], [2.0], [3.0]]
Y = [[2.0], [4.0], [6.0]]


def test_a_forward_hook_fires_in_training_and_in_prediction(server_address: str):
    torch.manual_seed(1)
    model = HookedModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(300):
        loss = functional.mse_loss(model(torch.tensor(X)), torch.tensor(Y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    with epochd.connect(server_address) as client:
        run = client.train(
            X,
            Y,
            model=epochd.Module("HookedModel"),
            optimizer=epochd.SGD(lr=0.01),
            epochs=300,
            log_every=1,
            seed=1,
        )
        np.testing.assert_allclose([log.loss for log in run.logs()], losses, rtol=1e-5)
        trained = run.result()
        expected = model(torch.tensor([[4.0]])).detach().numpy().reshape(-1)
        np.testing.assert_allclose(trained.predict([[4.0]]), expected, rtol=1e-6)
        assert trained.parameters()["linear.bias"].item() < -5  # it has learnt to undo the hook
