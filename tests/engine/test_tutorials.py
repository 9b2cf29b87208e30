"""The classic tutorial runs, line for line as plain PyTorch prints them."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from epochd_server.domain.specs import Init

X, Y = [[1.0], [2.0], [3.0]], [[2.0], [4.0], [6.0]]


def line(epoch: int, weight: float, bias: float, cost: float) -> str:
    return f"Epoch {epoch:4d}/1999 W: {weight:.3f}, b: {bias:.3f} Cost: {cost:.6f}"


def engine_points(lab: Any, **options: Any) -> list[tuple[int, float, float, float]]:
    task = lab.make_task(X, Y, log_every=100, log_parameters=True, **options)
    _, recorder = lab.run(task)
    return [
        (epoch, float(p["linear.weight"].item()), float(p["linear.bias"].item()), loss)
        for epoch, loss, p in recorder.points(0)
    ]


def plain_points(weight: Any, bias: Any, epochs: int) -> list[tuple[int, float, float, float]]:
    x, y = torch.tensor(X), torch.tensor(Y)
    optimizer, points = torch.optim.SGD([weight, bias], lr=0.01), []
    for epoch in range(epochs):
        cost = F.mse_loss(F.linear(x, weight, bias), y)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        if epoch % 100 == 0:
            points.append((epoch, weight.item(), bias.item(), cost.item()))
    return points


def test_twenty_lines_from_zeros_equal_plain_pytorchs(lab: Any) -> None:
    got = [line(*p) for p in engine_points(lab, epochs=2000, init=Init.ZEROS) if p[0] % 100 == 0]
    weight, bias = torch.zeros(1, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
    assert got == [line(*p) for p in plain_points(weight, bias, 2000)]
    assert got[0] == "Epoch    0/1999 W: 0.187, b: 0.080 Cost: 18.666666"
    assert got[-1] == "Epoch 1900/1999 W: 1.997, b: 0.008 Cost: 0.000008"
    assert len(got) == 20


def test_seed_1_starts_and_ends_where_manual_seed_1_does(lab: Any) -> None:
    torch.manual_seed(1)
    module = torch.nn.Linear(1, 1)
    assert (round(module.weight.item(), 4), round(module.bias.item(), 4)) == (0.5153, -0.4414)
    got = engine_points(lab, epochs=2001, seeds=1)
    want = plain_points(module.weight, module.bias, 2001)
    assert [line(*p) for p in got] == [line(*p) for p in want]
    assert f"{got[0][3]:.6f}" == "13.103541"
    assert (f"{got[-1][1]:.5f}", f"{got[-1][2]:.5f}") == ("1.99937", "0.00144")
