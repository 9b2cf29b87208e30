"""Losses: messages ↔ domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from epochd.v1 import spec_pb2 as pb
from epochd_server.codec.checks import fraction, not_negative, positive
from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import Loss, LossKind

_KINDS = ", ".join(kind.value for kind in LossKind)
_Label = str | int


def decode_loss(message: pb.Loss, violations: Violations) -> Loss | None:
    """A loss; None where its kind is unset. Field paths are relative to the Loss."""
    kind = message.WhichOneof("kind")
    if kind is None:
        violations.add("kind", f"must be set, to one of {_KINDS}")
        return None
    with violations.within(kind):
        match kind:
            case "huber" if message.huber.HasField("delta"):
                delta = positive(message.huber.delta, "delta", violations)
                return Loss(kind=LossKind.HUBER, delta=delta)
            case "bce_with_logits":
                return _decode_classifier(LossKind.BCE_WITH_LOGITS, message.bce_with_logits, violations)
            case "cross_entropy":
                return _decode_classifier(LossKind.CROSS_ENTROPY, message.cross_entropy, violations)
            case "poisson_nll" if message.poisson_nll.HasField("log_input"):
                return Loss(kind=LossKind.POISSON_NLL, log_input=message.poisson_nll.log_input)
            case "quantile" if message.quantile.HasField("quantile"):
                return Loss(kind=LossKind.QUANTILE, quantile=_quantile(message.quantile, violations))
            case _:
                return Loss(kind=LossKind(kind))


def encode_loss(loss: Loss) -> pb.Loss:
    """The message of a loss."""
    match loss.kind:
        case LossKind.MSE:
            return pb.Loss(mse=pb.MseLoss())
        case LossKind.L1:
            return pb.Loss(l1=pb.L1Loss())
        case LossKind.HUBER:
            return pb.Loss(huber=pb.HuberLoss(delta=loss.delta))
        case LossKind.BCE_WITH_LOGITS:
            weights = _encode_class_weights(loss)
            bce = pb.BceWithLogitsLoss(label_smoothing=loss.label_smoothing, class_weights=weights)
            return pb.Loss(bce_with_logits=bce)
        case LossKind.CROSS_ENTROPY:
            weights = _encode_class_weights(loss)
            entropy = pb.CrossEntropyLoss(label_smoothing=loss.label_smoothing, class_weights=weights)
            return pb.Loss(cross_entropy=entropy)
        case LossKind.POISSON_NLL:
            return pb.Loss(poisson_nll=pb.PoissonNllLoss(log_input=loss.log_input))
        case LossKind.QUANTILE:
            return pb.Loss(quantile=pb.QuantileLoss(quantile=loss.quantile))
        case LossKind.GAUSSIAN_NLL:
            return pb.Loss(gaussian_nll=pb.GaussianNllLoss())
        case _:
            assert_never(loss.kind)


def _quantile(message: pb.QuantileLoss, violations: Violations) -> float:
    if 0 < message.quantile < 1:
        return message.quantile
    violations.add("quantile", f"must be > 0 and < 1, is {message.quantile:g}")
    return 0.5


def _decode_classifier(
    kind: LossKind, message: pb.BceWithLogitsLoss | pb.CrossEntropyLoss, violations: Violations
) -> Loss:
    weights = None
    with violations.within("class_weights"):
        if message.class_weights.balanced and message.class_weights.weights:
            violations.add("", "give balanced or weights, not both")
        elif message.class_weights.weights:
            weights = _decode_class_weights(message.class_weights, violations)
    return Loss(
        kind=kind,
        label_smoothing=fraction(message.label_smoothing, "label_smoothing", violations),
        class_weights=weights,
        balanced=message.class_weights.balanced,
    )


def _decode_class_weights(
    message: pb.ClassWeights, violations: Violations
) -> tuple[tuple[_Label, float], ...]:
    weights: dict[_Label, float] = {}
    for index, entry in enumerate(message.weights):
        with violations.within(f"weights[{index}]"):
            which = entry.WhichOneof("label")
            if which is None:
                violations.add("label", "must be set: text or integer")
                continue
            label: _Label = entry.text if which == "text" else entry.integer
            if label in weights:
                violations.add("label", "is listed twice")
            weights[label] = not_negative(entry.weight, "weight", violations)
    if weights and not any(weights.values()):
        violations.add("weights", "must not all be 0")
    return tuple(weights.items())


def _encode_class_weights(loss: Loss) -> pb.ClassWeights | None:
    if loss.balanced:
        return pb.ClassWeights(balanced=True)
    if loss.class_weights is None:
        return None
    return pb.ClassWeights(weights=map(_encode_class_weight, loss.class_weights))


def _encode_class_weight(entry: tuple[_Label, float]) -> pb.ClassWeight:
    label, weight = entry
    named: Mapping[str, _Label] = {"text" if isinstance(label, str) else "integer": label}
    return pb.ClassWeight(weight=weight, **named)  # type: ignore[arg-type]
