"""Models as PyTorch's own: an ``nn.Module`` with its parameters, and the ``torch.export`` archive of it.

``torch.export`` traces for seconds and holds the interpreter meanwhile: it belongs in a process of its own.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from epochd_server.domain.layers import activation_arguments
from epochd_server.domain.specs import (
    ActivationLayer,
    DropoutLayer,
    Layer,
    LayerNormLayer,
    LinearLayer,
    LinearModel,
    Model,
    ModuleModel,
)
from epochd_server.engine.elementwise import ACTIVATIONS
from epochd_server.engine.inspection import construct, in_features_of, module_slots
from epochd_server.engine.modules import ModuleRegistry

_EXAMPLE_ROWS = 2


class _OneLinear(nn.Module):
    """A Linear whose parameters are called ``linear.weight`` and ``linear.bias``."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs [rows, outputs] of features [rows, features]."""
        y: torch.Tensor = self.linear(x)
        return y


class _Elementwise(nn.Module):
    """An activation with its arguments."""

    def __init__(self, function: str, arguments: tuple[float, ...]) -> None:
        super().__init__()
        self._forward = ACTIVATIONS[function].forward
        self._arguments = arguments

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """f(x)."""
        return self._forward(x, self._arguments)


def module_of(
    model: Model, parameters: Mapping[str, NDArray[np.floating]], *, modules: ModuleRegistry | None = None
) -> nn.Module:
    """A model as a module in evaluation mode that holds copies of the parameters.

    Args:
        model: With resolved sizes.
        parameters: By PyTorch's names, of one model.
        modules: Needed for registered modules.

    Raises:
        EpochdError: MODULE_NOT_FOUND.
    """
    if isinstance(model, ModuleModel):
        module = construct(model, modules)
        names = [slot.name for slot in module_slots(module)]
    else:
        module = _built(model)
        names = list(parameters)
    dtype = torch.from_numpy(np.empty(0, next(iter(parameters.values())).dtype)).dtype
    module = module.to(dtype).eval()
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    with torch.no_grad():
        for name in names:
            state[name].copy_(torch.from_numpy(np.array(parameters[name])))
    return module


def pt2_archive(module: nn.Module, features: int) -> bytes:
    """The bytes of a ``.pt2`` file: ``torch.export`` of the module for any number of rows.

    Args:
        module: In evaluation mode.
        features: Width of its rows.
    """
    dtype = next(module.parameters()).dtype
    example = torch.zeros(_EXAMPLE_ROWS, features, dtype=dtype)
    rows = torch.export.Dim("rows", min=1)
    with torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=({0: rows},))
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def _built(model: Model) -> nn.Module:
    if isinstance(model, LinearModel):
        return _OneLinear(_linear(model))
    if isinstance(model, ModuleModel):
        raise TypeError("a registered module is constructed, not built")
    layers: list[nn.Module] = []
    width = in_features_of(model)
    for layer in model.layers:
        layers.append(_layer(layer, width))
        if isinstance(layer, LinearLayer) and layer.out_features is not None:
            width = layer.out_features
    return nn.Sequential(*layers)


def _layer(layer: Layer, width: int) -> nn.Module:
    """A layer whose input has so many features."""
    match layer:
        case LinearLayer():
            return _linear(layer)
        case ActivationLayer():
            function = "gelu_tanh" if layer.approximate == "tanh" else layer.function
            arguments = activation_arguments(layer.function, layer.parameters)
            return _Elementwise(function, tuple(arguments.values()))
        case DropoutLayer():
            return nn.Dropout(layer.p)
        case LayerNormLayer():
            affine = layer.elementwise_affine
            return nn.LayerNorm(width, layer.eps, elementwise_affine=affine, bias=layer.bias)


def _linear(layer: LinearLayer | LinearModel) -> nn.Linear:
    if layer.in_features is None or layer.out_features is None:
        raise ValueError("the model's sizes are not resolved")
    return nn.Linear(layer.in_features, layer.out_features, bias=layer.bias)
