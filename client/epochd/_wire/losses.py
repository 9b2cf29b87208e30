"""Losses as messages."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral

from epochd.losses import (
    L1,
    MSE,
    BCEWithLogits,
    ClassWeights,
    CrossEntropy,
    GaussianNLL,
    Huber,
    Loss,
    PoissonNLL,
    Quantile,
)
from epochd.v1 import spec_pb2


def encode_loss(loss: Loss) -> spec_pb2.Loss:
    """The message of a loss."""
    match loss:
        case MSE():
            return spec_pb2.Loss(mse=spec_pb2.MseLoss())
        case L1():
            return spec_pb2.Loss(l1=spec_pb2.L1Loss())
        case Huber(delta=delta):
            return spec_pb2.Loss(huber=spec_pb2.HuberLoss(delta=delta))
        case BCEWithLogits(label_smoothing=smoothing, class_weights=weights):
            bce = spec_pb2.BceWithLogitsLoss(label_smoothing=smoothing, class_weights=_weights(weights))
            return spec_pb2.Loss(bce_with_logits=bce)
        case CrossEntropy(label_smoothing=smoothing, class_weights=weights):
            entropy = spec_pb2.CrossEntropyLoss(label_smoothing=smoothing, class_weights=_weights(weights))
            return spec_pb2.Loss(cross_entropy=entropy)
        case PoissonNLL(log_input=log_input):
            return spec_pb2.Loss(poisson_nll=spec_pb2.PoissonNllLoss(log_input=log_input))
        case Quantile(quantile=quantile):
            return spec_pb2.Loss(quantile=spec_pb2.QuantileLoss(quantile=quantile))
        case GaussianNLL():
            return spec_pb2.Loss(gaussian_nll=spec_pb2.GaussianNllLoss())
    raise TypeError(f"loss must be a name or one of epochd.losses, not {loss!r}")


def _weights(weights: ClassWeights | None) -> spec_pb2.ClassWeights | None:
    if weights is None:
        return None
    if not isinstance(weights, Mapping):
        return spec_pb2.ClassWeights(balanced=True)
    return spec_pb2.ClassWeights(weights=[_weight(label, weight) for label, weight in weights.items()])


def _weight(label: object, weight: float) -> spec_pb2.ClassWeight:
    if isinstance(label, Integral):  # booleans and NumPy's integers too
        return spec_pb2.ClassWeight(integer=int(label), weight=weight)
    return spec_pb2.ClassWeight(text=str(label), weight=weight)
