"""Models, losses, optimizers and activations as values and as messages."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest
import torch

import epochd
from epochd import losses, optimizers, specs
from epochd._wire.gradients import encode_optimizer
from epochd._wire.losses import encode_loss
from epochd._wire.specs import decode_model, encode_model
from epochd._wire.steps import FUNCTIONS, encode_steps
from epochd.v1 import spec_pb2

MODELS = [
    epochd.Linear(),
    epochd.Linear(3, in_features=2, bias=False, init="zeros"),
    epochd.Sequential(epochd.Linear(64), "relu", epochd.Linear(1)),
    epochd.Sequential(epochd.Linear(2), epochd.Activation("leaky_relu", negative_slope=0.2), init="zeros"),
    epochd.Sequential(epochd.Activation("gelu", approximate="tanh")),
    epochd.Sequential(epochd.Linear(2), epochd.LayerNorm(eps=0.1, bias=False), epochd.Dropout(0.25)),
    epochd.Module("Regression", hidden=3, bias=True, rate=0.5, kind="small"),
]


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_a_model_survives_the_way_there_and_back(model):
    assert decode_model(spec_pb2.ModelSpec.FromString(encode_model(model).SerializeToString())) == model


def test_a_kind_of_model_from_the_future_is_none():
    assert decode_model(spec_pb2.ModelSpec()) is None


def test_models_are_printed_as_they_are_written():
    assert [str(model) for model in MODELS] == [
        "Linear()",
        "Linear(2, 3, bias=False)",
        "Sequential(Linear(64), relu, Linear(1))",
        "Sequential(Linear(2), leaky_relu(negative_slope=0.2))",
        "Sequential(gelu(approximate='tanh'))",
        "Sequential(Linear(2), LayerNorm(), Dropout(0.25))",
        "Regression(hidden=3, bias=True, rate=0.5, kind='small')",
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: epochd.Linear("64"),
        lambda: epochd.Linear(bias=1),
        lambda: epochd.Linear(init="ones"),
        lambda: epochd.Sequential(3),
        lambda: epochd.Sequential(epochd.Linear(init="zeros")),
        lambda: epochd.Sequential(init="ones"),
        lambda: epochd.Module(3),
        lambda: epochd.Module("M", sizes=[1, 2]),
        lambda: epochd.SGD(lr="0.1"),
        lambda: epochd.SGD(lr=True),
        lambda: epochd.SGD(lr=0.1, nesterov=1),
        lambda: epochd.Adam(betas=0.9),
        lambda: epochd.AdamW(betas=(0.9, "x")),
        lambda: epochd.Huber(delta=None),
        lambda: epochd.RMSprop(centered=1),
        lambda: epochd.Quantile(quantile="high"),
        lambda: epochd.PoissonNLL(log_input=1),
        lambda: epochd.CrossEntropy(class_weights="even"),
        lambda: epochd.BCEWithLogits(label_smoothing="little"),
        lambda: epochd.Dropout("half"),
        lambda: epochd.LayerNorm(eps=None),
        lambda: epochd.StepLR(step_size=1.5),
        lambda: epochd.ReduceLROnPlateau(threshold_mode="percent"),
        lambda: epochd.CosineAnnealingLR(T_max="all"),
        lambda: epochd.Activation("relu", op="backward"),
        lambda: epochd.Activation("relu", negative_slope="x"),
        lambda: epochd.Activation(1),
        lambda: epochd.Activation("softmax", axis=0.5),
        lambda: encode_model("linear"),
        lambda: encode_loss(epochd.SGD(lr=1)),
        lambda: encode_optimizer("sgd"),
    ],
)
def test_wrong_types_are_told_at_once(make):
    with pytest.raises(TypeError):
        make()


def test_numpy_numbers_are_numbers():
    assert encode_optimizer(epochd.SGD(lr=np.float32(0.5))).sgd.lr == 0.5
    assert encode_model(epochd.Linear(np.int64(3))).linear.out_features == 3


def test_values_are_the_servers_to_judge():
    assert encode_optimizer(epochd.SGD(lr=-1)).sgd.lr == -1


@pytest.mark.parametrize("ours", [epochd.SGD, epochd.Adam, epochd.AdamW, epochd.RMSprop])
def test_optimizers_have_torchs_argument_names_and_defaults(ours):
    theirs = inspect.signature(getattr(torch.optim, ours.__name__)).parameters
    for field in dataclasses.fields(ours):
        assert field.name in theirs
        if field.default is not dataclasses.MISSING:
            assert field.default == theirs[field.name].default


@pytest.mark.parametrize(
    "ours",
    [
        epochd.StepLR,
        epochd.ExponentialLR,
        epochd.CosineAnnealingLR,
        epochd.LinearLR,
        epochd.ReduceLROnPlateau,
    ],
)
def test_schedules_have_torchs_argument_names_and_defaults(ours):
    theirs = inspect.signature(getattr(torch.optim.lr_scheduler, ours.__name__)).parameters
    for field in dataclasses.fields(ours):
        assert field.name in theirs
        if field.default is not dataclasses.MISSING and field.name != "T_max":  # ours may be left out
            assert field.default == theirs[field.name].default


def test_an_optimizers_values_reach_the_message():
    adam = encode_optimizer(epochd.AdamW(lr=0.1, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.2)).adamw
    assert (adam.lr, adam.beta1, adam.beta2, adam.eps, adam.weight_decay) == (0.1, 0.8, 0.9, 1e-6, 0.2)
    sgd = encode_optimizer(
        epochd.SGD(lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.2, nesterov=True)
    ).sgd
    assert (sgd.momentum, sgd.dampening, sgd.weight_decay, sgd.nesterov) == (0.9, 0.1, 0.2, True)


def test_every_loss_has_a_name_and_a_message():
    kinds = {field.name for field in spec_pb2.Loss.DESCRIPTOR.fields} & set(losses.BY_NAME)
    assert kinds == set(losses.BY_NAME)
    for name, kind in losses.BY_NAME.items():
        assert encode_loss(losses.resolve(name)).WhichOneof("kind") == name
        assert losses.resolve(name.upper().replace("_", "-")) == kind()
    assert encode_loss(epochd.Huber(delta=2)).huber.delta == 2


def test_an_unknown_loss_is_refused_with_the_known_ones():
    with pytest.raises(epochd.InvalidArgument, match=r"must be one of mse, l1, huber, .*is 'msr'"):
        losses.resolve("msr")


def test_every_activation_of_the_protocol_has_a_name():
    assert len(FUNCTIONS) == 32
    assert len(encode_steps(sorted(FUNCTIONS))) == 32


def test_a_layer_with_an_operation_is_refused_by_its_place():
    with pytest.raises(epochd.InvalidArgument) as caught:
        encode_model(epochd.Sequential(epochd.Linear(1), epochd.Activation("tanh", op="inverse")))
    assert caught.value.violations[0].field == "model.sequential.layers[1].activation"


def test_values_are_frozen_hashable_and_documented():
    for kind in (specs.Linear, optimizers.SGD, optimizers.Adam, losses.Huber, epochd.Timeout, epochd.Retry):
        assert kind.__dataclass_params__.frozen
        source = inspect.getsource(kind)
        for field in dataclasses.fields(kind):
            assert f"    {field.name}: " in source
            assert source.split(f"    {field.name}: ")[1].split("\n")[1].strip().startswith('"""'), field.name
    assert len({epochd.Linear(), epochd.Linear(), epochd.Linear(2)}) == 2
    assert hash(epochd.Activation("elu", alpha=2.0)) == hash(epochd.Activation("elu", alpha=2.0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        epochd.SGD(lr=0.1).lr = 0.2
