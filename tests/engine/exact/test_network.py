"""Values and gradients of networks against PyTorch's autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from epochd_server.domain.fit_choice import SMOOTH_ACTIVATIONS
from epochd_server.domain.specs import ActivationLayer, LinearLayer, LossKind, SequentialModel
from epochd_server.engine.chain import chain_of
from epochd_server.engine.exact.network import Data, blocks_of, evaluate, network_of

ROWS = 150  # more than a block


def evaluated(function: str, loss: LossKind, outputs: int, bias: bool = True):
    """Loss and gradient, ours and PyTorch's."""
    random = np.random.default_rng(2)
    layers = (
        LinearLayer(in_features=3, out_features=5, bias=bias),
        ActivationLayer(function=function),
        LinearLayer(in_features=5, out_features=outputs, bias=bias),
    )
    chain = chain_of(SequentialModel(layers=layers), 3)
    features, weights = random.standard_normal((ROWS, 3)), random.uniform(0.0, 2.0, ROWS)
    numbers = random.standard_normal((ROWS, outputs)) * 2
    if loss is LossKind.BCE_WITH_LOGITS:
        numbers = (numbers > 0).astype(np.float64)
    labels = random.integers(0, outputs, ROWS)
    parameters, gradient = random.standard_normal(chain.size), np.zeros(chain.size)
    network = network_of(chain, loss, 0.7, penalize_bias=False)
    data = Data(features, numbers, labels, weights, 0, ROWS)
    value, _ = evaluate(network, data, blocks_of(network), parameters, gradient)
    flat = torch.tensor(parameters, requires_grad=True)
    named = {slot.name: flat[slot.offset : slot.end].reshape(slot.shape) for slot in chain.slots}
    name = {"log_sigmoid": "logsigmoid"}.get(function, function)
    inner = F.linear(torch.tensor(features), named["0.weight"], named.get("0.bias"))
    inner = inner if name == "identity" else getattr(F, name)(inner)
    found = F.linear(inner, named["2.weight"], named.get("2.bias"))
    if loss is LossKind.CROSS_ENTROPY:
        rows = F.cross_entropy(found, torch.tensor(labels), reduction="none")
    else:
        extra = {"delta": 0.7} if loss is LossKind.HUBER else {}
        called = {
            LossKind.MSE: F.mse_loss,
            LossKind.HUBER: F.huber_loss,
            LossKind.BCE_WITH_LOGITS: F.binary_cross_entropy_with_logits,
        }[loss]
        rows = called(found, torch.tensor(numbers), reduction="none", **extra).mean(1)
    total = (rows * torch.tensor(weights)).sum()
    total.backward()
    return value, gradient, total.item(), flat.grad.numpy()


@pytest.mark.parametrize("function", sorted(SMOOTH_ACTIVATIONS))
def test_every_smooth_activation_has_the_gradient_of_autograd(function):
    value, gradient, right, right_gradient = evaluated(function, LossKind.MSE, 2)
    assert value == pytest.approx(right, rel=1e-13)
    np.testing.assert_allclose(gradient, right_gradient, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [
        (LossKind.MSE, 1),
        (LossKind.HUBER, 3),
        (LossKind.BCE_WITH_LOGITS, 1),
        (LossKind.CROSS_ENTROPY, 4),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_every_loss_has_the_gradient_of_autograd(loss, outputs, bias):
    value, gradient, right, right_gradient = evaluated("tanh", loss, outputs, bias)
    assert value == pytest.approx(right, rel=1e-13)
    np.testing.assert_allclose(gradient, right_gradient, rtol=1e-11, atol=1e-11)
