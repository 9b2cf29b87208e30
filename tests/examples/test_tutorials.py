"""The classic tutorials over the wire print what the plain PyTorch loops print."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

Example = Callable[[str], str]

X = torch.tensor([[1.0], [2.0], [3.0]])
Y = torch.tensor([[2.0], [4.0], [6.0]])


def three_points() -> list[str]:
    """The tutorial's loop with W and b of its own."""
    lines = []
    weight = torch.zeros(1, requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=0.01)
    for epoch in range(2000):
        cost = torch.mean((X * weight + bias - Y) ** 2)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        if epoch % 100 == 0:
            lines.append(
                f"Epoch {epoch:4d}/1999 W: {weight.item():.3f}, b: {bias.item():.3f} Cost: {cost.item():.6f}"
            )
    return lines


def module(model: nn.Module) -> list[str]:
    """The tutorial's loop with a module: 2,001 epochs, then the parameters and the prediction for 4."""
    lines = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(2001):
        cost = functional.mse_loss(model(X), Y)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        if epoch % 100 == 0:
            lines.append(f"Epoch {epoch:4d}/2000 Cost: {cost.item():.6f}")
    weight, bias = (parameter.item() for parameter in model.parameters())
    prediction = model(torch.tensor([[4.0]])).item()
    return [*lines, f"linear.weight: {weight:.5f}", f"linear.bias: {bias:.5f}", f"4 → {prediction:.4f}"]


def test_three_points_prints_all_twenty_lines_of_the_plain_loop(example: Example):
    lines = example("tutorial_three_points.py").splitlines()
    assert lines == three_points()
    assert len(lines) == 20
    assert lines[0] == "Epoch    0/1999 W: 0.187, b: 0.080 Cost: 18.666666"
    assert lines[-1] == "Epoch 1900/1999 W: 1.997, b: 0.008 Cost: 0.000008"


def test_nn_linear_starts_and_ends_as_under_manual_seed_1(example: Example):
    torch.manual_seed(1)
    lines = example("tutorial_nn_linear.py").splitlines()
    assert lines == module(nn.Linear(1, 1))
    assert lines[0] == "Epoch    0/2000 Cost: 13.103541"
    assert lines[-3:-1] == ["linear.weight: 1.99937", "linear.bias: 0.00144"]


def test_a_module_of_ones_own_trains_as_in_process(example: Example, examples: Path):
    spec = importlib.util.spec_from_file_location(
        "linear_regression_model", examples / "linear_regression_model.py"
    )
    assert spec is not None
    assert spec.loader is not None
    source = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    torch.manual_seed(1)
    assert example("tutorial_module.py").splitlines() == module(source.LinearRegressionModel())


def test_autograd_accumulates_and_zeroes_as_pytorch_does(example: Example):
    w = torch.tensor(2.0, requires_grad=True)
    accumulated = []
    for _ in range(21):
        (2 * w).backward()
        assert w.grad is not None
        accumulated.append(f"수식을 w로 미분한 값 : {w.grad}".replace("tensor(", "").rstrip(")"))
    lines = example("tutorial_autograd.py").splitlines()
    assert lines[1] == "수식을 w로 미분한 값 : 8.0"
    assert [float(line.rpartition(" ")[2]) for line in lines[3:24]] == [2.0 * count for count in range(1, 22)]
    assert [line.rstrip("0").rstrip(".") for line in lines[3:24]] == [
        line.rstrip("0").rstrip(".") for line in accumulated
    ]
    assert lines[25:] == ["수식을 w로 미분한 값 : 2.0"] * 21


def test_activations_shows_what_autograd_loses(example: Example):
    text = example("activations.py")
    assert "sigmoid'(37)   = 8.533047625744065e-17" in text
    assert "tanh'(20)      = 1.6993417021166355e-17" in text
