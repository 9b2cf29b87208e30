"""The losses on torch tensors: value and gradient with respect to the outputs, weighted rows included.

A batch's loss is Σ wᵣ lᵣ / Σ wᵣ over its rows r, where lᵣ is the row's loss (the mean over its targets), so with
weights of 1 it is PyTorch's ``reduction="mean"``. Shapes: m rows, t outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from epochd_server.domain.specs import Loss, LossKind


def row_losses(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of every row.

    Args:
        loss: Which one.
        outputs: [m, t]
        targets: [m, t], or int64 [m] for cross_entropy.

    Returns:
        [m]
    """
    if loss.kind is LossKind.CROSS_ENTROPY:
        return F.cross_entropy(outputs, targets, reduction="none")
    return _elementwise_loss(loss, outputs, targets).mean(1)


def mean_loss(loss: Loss, outputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """The batch's loss, a scalar; see the module. Differentiable."""
    if weights is not None:
        rows = row_losses(loss, outputs, targets)
        return (rows * weights).sum() / weights.sum()
    if loss.kind is LossKind.CROSS_ENTROPY:
        return F.cross_entropy(outputs, targets)
    return _elementwise_loss(loss, outputs, targets).mean()


def output_gradient(loss: Loss, outputs: Tensor, targets: Tensor, scale: Tensor | float) -> Tensor:
    """The gradient of ``scale`` · Σ (elements' losses) with respect to the outputs.

    Args:
        loss: Which one.
        outputs: [m, t]
        targets: [m, t], or int64 [m] for cross_entropy.
        scale: 1 / elements, or [m, 1] when rows have weights.

    Returns:
        [m, t], a new tensor.
    """
    if loss.kind is LossKind.CROSS_ENTROPY:
        gradient = torch.softmax(outputs, 1)
        gradient.scatter_add_(1, targets[:, None], gradient.new_tensor(-1.0).expand(len(targets), 1))
        return gradient.mul_(scale)
    if loss.kind is LossKind.BCE_WITH_LOGITS:
        return torch.sigmoid(outputs).sub_(targets).mul_(scale)
    residual = outputs - targets
    if loss.kind is LossKind.MSE:
        return residual.mul_(2 * scale)
    if loss.kind is LossKind.L1:
        return residual.sign_().mul_(scale)
    return residual.clamp_(-loss.delta, loss.delta).mul_(scale)


def _elementwise_loss(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    if loss.kind is LossKind.MSE:
        return F.mse_loss(outputs, targets, reduction="none")
    if loss.kind is LossKind.L1:
        return F.l1_loss(outputs, targets, reduction="none")
    if loss.kind is LossKind.HUBER:
        return F.huber_loss(outputs, targets, reduction="none", delta=loss.delta)
    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
