"""Every fault of a gradient fit, a loss and a layer is named with its field."""

from __future__ import annotations

from typing import Any

import pytest

from epochd.v1 import spec_pb2 as pb
from epochd_server.codec.architectures import decode_model
from epochd_server.codec.fits import decode_gradient_fit
from epochd_server.codec.losses import decode_loss
from epochd_server.domain.errors import Violations

SGD = pb.Optimizer(sgd=pb.Sgd(lr=0.1))


def faults(decode: Any, message: Any) -> list[str]:
    violations = Violations()
    decode(message, violations)
    return [found.field for found in violations.found]


@pytest.mark.parametrize(
    ("parts", "fields"),
    [
        ({"schedule": pb.Schedule()}, ["schedule.kind"]),
        (
            {"schedule": pb.Schedule(step=pb.StepLr(gamma=-1))},
            ["schedule.step.gamma", "schedule.step.step_size"],
        ),
        ({"schedule": pb.Schedule(exponential=pb.ExponentialLr())}, ["schedule.exponential.gamma"]),
        (
            {"schedule": pb.Schedule(cosine_annealing=pb.CosineAnnealingLr(t_max=0, eta_min=-1))},
            ["schedule.cosine_annealing.t_max", "schedule.cosine_annealing.eta_min"],
        ),
        (
            {"warmup": pb.LinearLr(start_factor=0, end_factor=2, total_iters=0)},
            ["warmup.start_factor", "warmup.end_factor", "warmup.total_iters"],
        ),
        (
            {"schedule": pb.Schedule(reduce_on_plateau=pb.ReduceLrOnPlateau(factor=1, patience=-1))},
            ["schedule.reduce_on_plateau.factor", "schedule.reduce_on_plateau.patience"],
        ),
        ({"clipping": pb.Clipping()}, ["clipping.kind"]),
        ({"clipping": pb.Clipping(max_norm=0)}, ["clipping.max_norm"]),
        ({"clipping": pb.Clipping(clip_value=float("inf"))}, ["clipping.clip_value"]),
        ({"penalty": pb.Penalty(l1=-1, l2=float("nan"))}, ["penalty.l1", "penalty.l2"]),
        (
            {"optimizer": pb.Optimizer(sgd=pb.Sgd(lr=1, momentum=1)), "penalty": pb.Penalty(l1=1)},
            ["penalty"],
        ),
        (
            {"optimizer": pb.Optimizer(rmsprop=pb.RmsProp(lr=0, alpha=1, momentum=-1))},
            ["optimizer.rmsprop.lr", "optimizer.rmsprop.alpha", "optimizer.rmsprop.momentum"],
        ),
    ],
)
def test_what_a_fit_cannot_have_is_named(parts: dict[str, Any], fields: list[str]) -> None:
    message = pb.GradientFit(**{"optimizer": SGD, "epochs": 1} | parts)
    assert faults(decode_gradient_fit, message) == fields


@pytest.mark.parametrize(
    ("loss", "fields"),
    [
        (pb.Loss(quantile=pb.QuantileLoss(quantile=1)), ["quantile.quantile"]),
        (pb.Loss(cross_entropy=pb.CrossEntropyLoss(label_smoothing=1)), ["cross_entropy.label_smoothing"]),
        (
            pb.Loss(
                bce_with_logits=pb.BceWithLogitsLoss(
                    class_weights=pb.ClassWeights(
                        balanced=True, weights=[pb.ClassWeight(integer=0, weight=1)]
                    )
                )
            ),
            ["bce_with_logits.class_weights"],
        ),
        (
            pb.Loss(
                cross_entropy=pb.CrossEntropyLoss(
                    class_weights=pb.ClassWeights(
                        weights=[
                            pb.ClassWeight(weight=1),
                            pb.ClassWeight(text="a", weight=-1),
                            pb.ClassWeight(text="a", weight=1),
                        ]
                    )
                )
            ),
            [
                "cross_entropy.class_weights.weights[0].label",
                "cross_entropy.class_weights.weights[1].weight",
                "cross_entropy.class_weights.weights[2].label",
            ],
        ),
    ],
)
def test_what_a_loss_cannot_have_is_named(loss: pb.Loss, fields: list[str]) -> None:
    assert faults(decode_loss, loss) == fields


def test_what_a_layer_cannot_have_is_named() -> None:
    layers = [
        pb.LayerSpec(dropout=pb.DropoutSpec(p=1)),
        pb.LayerSpec(layer_norm=pb.LayerNormSpec(eps=0)),
        pb.LayerSpec(),
    ]
    message = pb.ModelSpec(sequential=pb.SequentialSpec(layers=layers))
    assert faults(decode_model, message) == [
        "sequential.layers[0].dropout.p",
        "sequential.layers[1].layer_norm.eps",
        "sequential.layers[2].kind",
    ]
