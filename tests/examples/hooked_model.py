"""A module for the server to register: a linear model whose forward hook moves what it predicts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class HookedModel(nn.Module):
    """Linear regression; a hook adds 10 to what forward returns."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.register_forward_hook(_add_ten)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def _add_ten(module: nn.Module, arguments: Any, output: torch.Tensor) -> torch.Tensor:
    return output + 10
