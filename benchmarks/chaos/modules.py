"""Modules that the chaos run's servers register: one with buffers and dropout, one that is called for many at once."""

from __future__ import annotations

import torch
from torch import nn


class Dropping(nn.Module):
    """Normalises by running averages, and draws at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs [rows, 1] of features [rows, 4]."""
        outputs: torch.Tensor = self.layers(x)
        return outputs


class Bent(nn.Module):
    """A line with a bend that no list of layers could say."""

    def __init__(self, most: float = 3.0) -> None:
        super().__init__()
        self.linear, self.most = nn.Linear(4, 1), most

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs [rows, 1] of features [rows, 4]."""
        outputs: torch.Tensor = self.linear(x)
        return self.most * torch.tanh(outputs / self.most) + 0.1 * outputs
