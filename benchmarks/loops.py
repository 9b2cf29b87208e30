"""The alternatives: training loops as a PyTorch user writes them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


def tutorial(epochs: int = 2000) -> None:
    """The tutorial's loop: three points, one weight, full-batch SGD, the parameters read every 100 epochs."""
    x = torch.tensor([[1.0], [2.0], [3.0]])
    y = torch.tensor([[2.0], [4.0], [6.0]])
    weight = torch.zeros(1, requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=0.01)
    for epoch in range(epochs):
        cost = torch.mean((x * weight + bias - y) ** 2)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        if epoch % 100 == 0:
            f"{epoch:4d} W: {weight.item():.3f}, b: {bias.item():.3f} Cost: {cost.item():.6f}"


def full_batch(
    x: torch.Tensor, y: torch.Tensor, model: nn.Module, loss: nn.Module, lr: float, epochs: int
) -> nn.Module:
    """A plain full-batch loop with torch.optim.SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    return model


def mlp(features: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, ReLU, Linear."""
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def sliced_epochs(x: torch.Tensor, y: torch.Tensor, model: nn.Module, batch: int, epochs: int) -> None:
    """The best loop by hand: one permutation an epoch, sliced tensors, fused Adam."""
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        shuffled_x, shuffled_y = x[order], y[order]
        for start in range(0, len(x), batch):
            optimizer.zero_grad(set_to_none=True)
            output = model(shuffled_x[start : start + batch])
            F.mse_loss(output, shuffled_y[start : start + batch]).backward()
            optimizer.step()


def loader_epochs(x: torch.Tensor, y: torch.Tensor, model: nn.Module, batch: int, epochs: int) -> None:
    """The usual loop: a shuffling DataLoader over a TensorDataset, Adam."""
    optimizer = torch.optim.Adam(model.parameters())
    loader = DataLoader(TensorDataset(x, y), batch_size=batch, shuffle=True)
    for _ in range(epochs):
        for features, targets in loader:
            optimizer.zero_grad()
            F.mse_loss(model(features), targets).backward()
            optimizer.step()


def batches(
    x: torch.Tensor, y: torch.Tensor, model: nn.Module, *, lr: float, batch: int, epochs: int
) -> None:
    """A plain mini-batch loop with torch.optim.Adam over a fresh permutation an epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x), batch):
            rows = order[start : start + batch]
            optimizer.zero_grad()
            F.mse_loss(model(x[rows]), y[rows]).backward()
            optimizer.step()


def vmapped(x_KND: torch.Tensor, y_KN: torch.Tensor, lr: float, epochs: int) -> torch.Tensor:  # noqa: N803
    """K linear models by torch.func in the usual way: vmap of grad over stacked parameters."""
    members, _, features = x_KND.shape
    parameters = {"weight": torch.zeros(members, features), "bias": torch.zeros(members)}

    def loss(member: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(x @ member["weight"] + member["bias"], y)

    gradient = torch.func.vmap(torch.func.grad(loss))
    for _ in range(epochs):
        step = gradient(parameters, x_KND, y_KN)
        parameters = {name: value - lr * step[name] for name, value in parameters.items()}
    return parameters["weight"]
