"""Short texts for models, optimizers, losses and activations."""

from __future__ import annotations

import pytest
import typer

import epochd.losses as losses
import epochd.optimizers as optimizers
from epochd import schedules
from epochd.activations import Activation
from epochd.cli import specs
from epochd.specs import Dropout, LayerNorm, Linear, Module, Sequential


def test_linear_is_a_linear_model():
    assert specs.model("linear") == Linear()
    assert specs.model("linear", "zeros") == Linear(init="zeros")


def test_numbers_are_widths_names_activations_and_out_is_left_open():
    assert specs.model("64,relu,1") == Sequential(Linear(64), "relu", Linear(1))
    assert specs.model("64, leaky_relu:negative_slope=0.2, out", "zeros") == Sequential(
        Linear(64), Activation("leaky_relu", negative_slope=0.2), Linear(), init="zeros"
    )
    assert specs.model("8,gelu:approximate=tanh,1") == Sequential(
        Linear(8), Activation("gelu", approximate="tanh"), Linear(1)
    )


def test_a_module_takes_arguments_of_the_types_they_look_like():
    assert specs.module("Net", ["width=64", "rate=0.5", "deep=true", "mode=fast"]) == Module(
        "Net", width=64, rate=0.5, deep=True, mode="fast"
    )


def test_an_optimizer_has_pytorchs_arguments_and_the_learning_rate_of_the_flag():
    assert specs.optimizer("sgd", None) == optimizers.SGD(lr=0.01)
    assert specs.optimizer("sgd:momentum=0.9:nesterov=true", 0.1) == optimizers.SGD(
        lr=0.1, momentum=0.9, nesterov=True
    )
    assert specs.optimizer("AdamW:weight-decay=0.1".replace("-", "_"), None) == optimizers.AdamW(
        weight_decay=0.1
    )
    assert specs.optimizer("adam:beta2=0.99", None) == optimizers.Adam(betas=(0.9, 0.99))


def test_a_loss_has_its_arguments():
    assert specs.loss("bce-with-logits") == losses.BCEWithLogits()
    assert specs.loss("huber:delta=2") == losses.Huber(delta=2)


def test_layers_other_than_linear_ones_have_their_arguments():
    assert specs.model("8,layer_norm:bias=false,relu,dropout:p=0.2,out") == Sequential(
        Linear(8), LayerNorm(bias=False), "relu", Dropout(0.2), Linear()
    )


def test_a_schedule_has_pytorchs_arguments():
    assert specs.schedule("") is None
    assert specs.schedule("step:step_size=30:gamma=0.5") == schedules.StepLR(step_size=30, gamma=0.5)
    assert specs.schedule("cosine:T_max=9") == schedules.CosineAnnealingLR(T_max=9)
    assert specs.schedule("plateau:patience=3:threshold_mode=abs") == schedules.ReduceLROnPlateau(
        patience=3, threshold_mode="abs"
    )


def test_activations_are_steps_and_the_operation_is_that_of_the_last():
    assert specs.activations("sigmoid", None) == [Activation("sigmoid")]
    assert specs.activations("log,sigmoid", "inverse") == [
        Activation("log"),
        Activation("sigmoid", op="inverse"),
    ]
    assert specs.activations("tanh.derivative,relu", None) == [
        Activation("tanh", op="derivative"),
        Activation("relu"),
    ]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            lambda: specs.model("64,2 3,1"),
            "'2 3' is no layer: give a width such as 64, 'out', or an activation such as relu",
        ),
        (lambda: specs.model("64,relu:x,1"), "'x' is not KEY=VALUE"),
        (lambda: specs.model("linear", "ones"), "must be one of default, zeros, is 'ones'"),
        (lambda: specs.optimizer("lion", None), "must be one of sgd, adam, adamw, rmsprop, is 'lion'"),
        (lambda: specs.optimizer("sgd:lr=1", None), "give the learning rate as --lr"),
        (lambda: specs.optimizer("sgd:beta=1", None), "SGD: has no argument 'beta'"),
        (lambda: specs.optimizer("sgd:momentum=high", None), "SGD: momentum must be a number, not 'high'"),
        (
            lambda: specs.schedule("cyclic"),
            "must be one of step, exponential, cosine, linear, plateau, is 'cyclic'",
        ),
        (
            lambda: specs.loss("hinge"),
            "must be one of mse, l1, huber, bce_with_logits, cross_entropy, poisson_nll, quantile, "
            "gaussian_nll, is 'hinge'",
        ),
        (
            lambda: specs.activations("tanh", "slope"),
            "must be one of forward, inverse, derivative, antiderivative, is 'slope'",
        ),
        (lambda: specs.module("Net", ["name=x"]), "name cannot be given as an argument"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_would_be_right(call, expected: str):
    with pytest.raises(typer.BadParameter) as caught:
        call()
    assert str(caught.value) == expected
