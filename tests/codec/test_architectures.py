"""Models: every documented layer, and no exception for any bytes."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from epochd.v1 import activation_pb2, spec_pb2
from epochd_server.codec.architectures import decode_init, decode_model, encode_model
from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import ActivationLayer, SequentialModel, TrainingSpec

DOCUMENTED_LAYERS = [
    *("relu", "leaky_relu", "tanh", "sigmoid", "gelu", "silu", "elu", "selu", "celu", "softplus", "mish"),
    *("relu6", "hardtanh", "hardsigmoid", "hardswish", "softsign", "tanhshrink"),
]


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


@given(st.from_type(TrainingSpec))
def test_a_model_comes_back_as_it_was(spec: TrainingSpec) -> None:
    violations = Violations()
    message = spec_pb2.ModelSpec.FromString(encode_model(spec.model, spec.init).SerializeToString())
    assert decode_model(message, violations) == spec.model
    assert decode_init(message, violations) is spec.init
    assert not violations
