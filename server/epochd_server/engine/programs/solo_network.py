"""A network of one member as products of PyTorch's: forward, and backward written by hand.

Dropout draws its masks as ``nn.Dropout`` does, from a generator that is seeded for each epoch: in the order of batches,
then of layers. ``torch.manual_seed`` with that epoch's seed before a plain loop gives the same masks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from epochd_server.domain.specs import Loss
from epochd_server.engine.chain import Affine, Chain, Dropout, Elementwise, LayerNorm, Slot, Step
from epochd_server.engine.checkpointing import Columns
from epochd_server.engine.elementwise import ACTIVATIONS
from epochd_server.engine.losses import mean_loss, output_gradient
from epochd_server.engine.task import Floats, Integers

_FORWARD_ROWS = 8192
"""Held-out rows that go through a network at once."""
_aten: Any = torch.ops.aten

_Context = tuple[Tensor, ...]
"""What a step's backward needs beside its input and output."""


class SoloNetwork:
    """Forward and backward of a chain over one flat parameter vector.

    Args:
        chain: The network.
        flat: [P] its parameters; may change between calls.
    """

    def __init__(self, chain: Chain, flat: Floats) -> None:
        self.gradient = np.zeros_like(flat)
        self._steps = chain.steps
        self._parameters = _tensors(chain, torch.from_numpy(flat))
        self._gradients = _tensors(chain, torch.from_numpy(self.gradient))
        self._generator = torch.Generator()
        self._drops = any(isinstance(step, Dropout) for step in chain.steps)
        self._draws = self._generator.get_state()

    def draw_from(self, seed: int) -> None:
        """Sets the seed, taken modulo 2⁶³, of the masks to come."""
        if self._drops:
            self._generator.manual_seed(seed >> 1)

    @property
    def columns(self) -> Columns:
        """Where its draws are, [1, …]; without dropout there are none."""
        if not self._drops:
            return {}
        self._draws.copy_(self._generator.get_state())
        return {"draws": self._draws.numpy()[None]}

    def restored(self) -> None:
        """Goes on with the draws that were written to ``columns``."""
        self._generator.set_state(self._draws)

    def loss_and_gradient(
        self, loss: Loss, features: Tensor, targets: Tensor, weights: Tensor | None
    ) -> tuple[float, float]:
        """Fills ``gradient`` with that of the batch's loss.

        Returns:
            The batch's loss and the sum of its rows' weights.
        """
        values, contexts = self._forward(features, training=True)
        outputs = values[-1]
        value = float(mean_loss(loss, outputs, targets, weights))
        per_row = 1 if targets.dim() == 1 else targets.shape[1]
        if weights is None:
            weight = float(len(features))
            slope = output_gradient(loss, outputs, targets, 1 / (len(features) * per_row))
        else:
            weight = float(weights.sum())
            scale = (weights / (weights.sum() * per_row))[:, None]
            slope = output_gradient(loss, outputs, targets, scale)
        self._backward(values, contexts, slope)
        return (value, weight) if weight > 0 else (0.0, 0.0)

    def forward(self, _: Floats, rows: Floats, __: Integers) -> Floats:
        """Outputs of rows under the parameters as they are; a :data:`epochd_server.engine.validation.Forward`."""
        pieces = torch.split(torch.from_numpy(rows), _FORWARD_ROWS)
        return np.concatenate([self._forward(piece, training=False)[0][-1].numpy() for piece in pieces])

    def _forward(self, features: Tensor, *, training: bool) -> tuple[list[Tensor], list[_Context]]:
        values, contexts = [features], []
        for step, parameters in zip(self._steps, self._parameters, strict=True):
            value, context = self._apply(step, parameters, values[-1], training)
            values.append(value)
            contexts.append(context)
        return values, contexts

    def _apply(
        self, step: Step, parameters: tuple[Tensor | None, Tensor | None], value: Tensor, training: bool
    ) -> tuple[Tensor, _Context]:
        weight, bias = parameters
        match step:
            case Affine() if weight is not None:
                product = (
                    torch.mm(value, weight.t()) if bias is None else torch.addmm(bias, value, weight.t())
                )
                return product, ()
            case LayerNorm():
                normal, mean, scale = torch.native_layer_norm(value, (step.width,), weight, bias, step.eps)
                return normal, (mean, scale)
            case Dropout() if training and step.p > 0:
                mask = torch.empty_like(value).bernoulli_(1 - step.p, generator=self._generator)
                mask.div_(1 - step.p)
                return value * mask, (mask,)
            case Elementwise():
                return ACTIVATIONS[step.function].forward(value, step.arguments), ()
            case _:
                return value, ()

    def _backward(self, values: list[Tensor], contexts: list[_Context], gradient: Tensor) -> None:
        for index in range(len(self._steps) - 1, -1, -1):
            step, context = self._steps[index], contexts[index]
            match step:
                case Affine():
                    gradient = self._affine_backward(index, values[index], gradient)
                case LayerNorm():
                    gradient = self._norm_backward(index, step, values[index], context, gradient)
                case Elementwise():
                    activation = ACTIVATIONS[step.function]
                    gradient = activation.backward(gradient, values[index], values[index + 1], step.arguments)
                case Dropout() if context:
                    gradient = gradient * context[0]

    def _affine_backward(self, index: int, value: Tensor, gradient: Tensor) -> Tensor:
        to_weight, to_bias = self._gradients[index]
        weight, _ = self._parameters[index]
        if to_weight is None or weight is None:
            raise ValueError("a linear layer has a weight")
        torch.mm(gradient.t(), value, out=to_weight)
        if to_bias is not None:
            torch.sum(gradient, 0, out=to_bias)
        return torch.mm(gradient, weight) if index > 0 else gradient

    def _norm_backward(
        self, index: int, step: LayerNorm, value: Tensor, context: _Context, gradient: Tensor
    ) -> Tensor:
        weight, bias = self._parameters[index]
        wanted = [True, weight is not None, bias is not None]
        slopes = _aten.native_layer_norm_backward(
            gradient, value, (step.width,), *context, weight, bias, wanted
        )
        for target, slope in zip(self._gradients[index], slopes[1:], strict=True):
            if target is not None:
                target.copy_(slope)
        below: Tensor = slopes[0]
        return below


def _tensors(chain: Chain, flat: Tensor) -> list[tuple[Tensor | None, Tensor | None]]:
    """Weight and bias of every step as views of ``flat``; None where a step has none."""

    def view(slot: Slot | None) -> Tensor | None:
        return None if slot is None else flat[slot.offset : slot.end].view(slot.shape)

    return [
        (view(step.weight), view(step.bias)) if isinstance(step, Affine | LayerNorm) else (None, None)
        for step in chain.steps
    ]
