"""A module of one's own. The server's operator registers it: `epochd serve --modules linear_regression_model.py`."""

from __future__ import annotations

import torch
from torch import nn


class LinearRegressionModel(nn.Module):
    """Linear regression as a class: one field and a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predicts. Shape [rows, 1] to [rows, 1]."""
        return self.linear(x)
