"""Specs come back from storage as they were, and damaged ones are told apart."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from epochd.v1 import activation_pb2, spec_pb2, trainer_pb2
from epochd_server.codec.specs import decode_model, decode_spec, encode_spec
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.specs import ActivationLayer, ModuleModel, SequentialModel, TrainingSpec

DOCUMENTED_LAYERS = [
    *("relu", "leaky_relu", "tanh", "sigmoid", "gelu", "silu", "elu", "selu", "celu", "softplus", "mish"),
    *("relu6", "hardtanh", "hardsigmoid", "hardswish", "softsign", "tanhshrink"),
]


@given(st.from_type(TrainingSpec))
def test_a_spec_survives_storage(spec: TrainingSpec) -> None:
    decoded = decode_spec(encode_spec(spec))
    assert decoded == spec
    if isinstance(spec.model, ModuleModel):  # 1 == 1.0 == True, but not to a module
        assert isinstance(decoded.model, ModuleModel)
        kinds = {name: type(value) for name, value in spec.model.arguments.items()}
        assert {name: type(value) for name, value in decoded.model.arguments.items()} == kinds


@given(st.from_type(TrainingSpec))
def test_equal_specs_have_equal_bytes(spec: TrainingSpec) -> None:
    assert encode_spec(decode_spec(encode_spec(spec))) == encode_spec(spec)


@given(st.binary(max_size=100))
def test_other_bytes_are_corrupt(data: bytes) -> None:
    try:
        decode_spec(data)
    except EpochdError as error:
        assert error.reason is Reason.ARTIFACT_CORRUPT  # noqa: PT017


def test_a_spec_with_a_part_missing_is_corrupt() -> None:
    with pytest.raises(EpochdError) as caught:
        decode_spec(trainer_pb2.TrainRequest(seed=1).SerializeToString())
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT


@pytest.mark.parametrize("function", DOCUMENTED_LAYERS)
def test_every_documented_activation_can_be_a_layer(function: str) -> None:
    number = activation_pb2.ActivationFunction.Value(f"ACTIVATION_FUNCTION_{function.upper()}")
    layer = spec_pb2.LayerSpec(activation=spec_pb2.ActivationSpec(function=number))
    violations = Violations()
    model = decode_model(spec_pb2.ModelSpec(sequential=spec_pb2.SequentialSpec(layers=[layer])), violations)
    assert model == SequentialModel(layers=(ActivationLayer(function=function),))
    assert not violations


@given(st.binary(max_size=80))
def test_a_model_of_any_bytes_is_decoded_or_has_violations(data: bytes) -> None:
    try:
        message = spec_pb2.ModelSpec.FromString(data)
    except DecodeError:
        return
    violations = Violations()
    assert (decode_model(message, violations) is None) == bool(violations)
