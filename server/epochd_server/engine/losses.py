"""The losses on torch tensors: value and gradient with respect to the outputs, weighted rows included.

A batch's loss is Σ wᵣ lᵣ / Σ wᵣ over its rows r, where lᵣ is the row's loss (the mean over its targets), so with
weights of 1 it is PyTorch's ``reduction="mean"``. Shapes: m rows, t outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from epochd_server.domain.specs import Loss, LossKind

RATE_EPS = 1e-8
"""Added to rates before their logarithm; poisson_nll_loss's ``eps``."""
LEAST_VARIANCE = 1e-6
"""gaussian_nll_loss's ``eps``."""


def row_losses(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of every row.

    Args:
        loss: Which one.
        outputs: [m, t]; gaussian_nll: [m, 2 t], means and then logarithms of variances.
        targets: [m, t], or int64 [m] for cross_entropy.

    Returns:
        [m]
    """
    if loss.kind is LossKind.CROSS_ENTROPY:
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=loss.label_smoothing)
    return _elementwise_loss(loss, outputs, targets).mean(1)


def mean_loss(loss: Loss, outputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """The batch's loss, a scalar; see the module. Differentiable."""
    if weights is not None:
        rows = row_losses(loss, outputs, targets)
        return (rows * weights).sum() / weights.sum()
    if loss.kind is LossKind.CROSS_ENTROPY:
        return F.cross_entropy(outputs, targets, label_smoothing=loss.label_smoothing)
    return _elementwise_loss(loss, outputs, targets).mean()


def output_gradient(loss: Loss, outputs: Tensor, targets: Tensor, scale: Tensor | float) -> Tensor:
    """The gradient of ``scale`` · Σ (elements' losses) with respect to the outputs.

    Args:
        loss: Which one.
        outputs: As in :func:`row_losses`.
        targets: [m, t], or int64 [m] for cross_entropy.
        scale: 1 / elements, or [m, 1] when rows have weights.

    Returns:
        Like ``outputs``, a new tensor.
    """
    if loss.kind in _BY_LIKELIHOOD:
        return _BY_LIKELIHOOD[loss.kind](loss, outputs, targets).mul_(scale)
    residual = outputs - targets
    if loss.kind is LossKind.MSE:
        return residual.mul_(2 * scale)
    if loss.kind is LossKind.L1:
        return residual.sign_().mul_(scale)
    if loss.kind is LossKind.QUANTILE:
        return residual.sign_().mul_(0.5).add_(0.5 - loss.quantile).mul_(scale)
    return residual.clamp_(-loss.delta, loss.delta).mul_(scale)


def _elementwise_loss(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    if loss.kind is LossKind.MSE:
        return F.mse_loss(outputs, targets, reduction="none")
    if loss.kind is LossKind.L1:
        return F.l1_loss(outputs, targets, reduction="none")
    if loss.kind is LossKind.HUBER:
        return F.huber_loss(outputs, targets, reduction="none", delta=loss.delta)
    if loss.kind is LossKind.POISSON_NLL:
        return F.poisson_nll_loss(outputs, targets, loss.log_input, eps=RATE_EPS, reduction="none")
    if loss.kind is LossKind.QUANTILE:
        below = targets - outputs
        return torch.maximum(loss.quantile * below, (loss.quantile - 1) * below)
    if loss.kind is LossKind.GAUSSIAN_NLL:
        return _gaussian_loss(outputs, targets)
    return F.binary_cross_entropy_with_logits(outputs, _smoothed(loss, targets), reduction="none")


def _gaussian_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """gaussian_nll_loss, whose look at the variances' values would keep it from vmap."""
    means, raw = outputs.chunk(2, 1)
    spread = raw.exp()
    variance = spread + (spread.clamp(min=LEAST_VARIANCE) - spread).detach()
    return 0.5 * (variance.log() + (means - targets).square() / variance)


def _smoothed(loss: Loss, targets: Tensor) -> Tensor:
    """Labels 0 and 1 with their smoothing."""
    if loss.label_smoothing == 0:
        return targets
    return targets * (1 - loss.label_smoothing) + 0.5 * loss.label_smoothing


def _cross_entropy_slope(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    slope, smoothing = torch.softmax(outputs, 1), loss.label_smoothing
    slope.scatter_add_(1, targets[:, None], slope.new_tensor(smoothing - 1).expand(len(targets), 1))
    return slope.sub_(smoothing / outputs.shape[1]) if smoothing else slope


def _bce_slope(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    return torch.sigmoid(outputs).sub_(_smoothed(loss, targets))


def _poisson_slope(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    if loss.log_input:
        return outputs.exp().sub_(targets)
    return 1 - targets / (outputs + RATE_EPS)


def _gaussian_slope(_: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    means, raw = outputs.chunk(2, 1)
    spread = raw.exp()
    variance = spread.clamp(min=LEAST_VARIANCE)
    scaled = (means - targets) / variance
    return torch.cat([scaled, 0.5 * (variance.reciprocal() - scaled.square()) * spread], 1)


_BY_LIKELIHOOD: Mapping[LossKind, Callable[[Loss, Tensor, Tensor], Tensor]] = {
    LossKind.CROSS_ENTROPY: _cross_entropy_slope,
    LossKind.BCE_WITH_LOGITS: _bce_slope,
    LossKind.POISSON_NLL: _poisson_slope,
    LossKind.GAUSSIAN_NLL: _gaussian_slope,
}
