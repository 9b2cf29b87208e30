"""Predict, ActivationTransform and Differentiate: requests and responses."""

from datetime import UTC, datetime

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from epochd.v1 import activation_pb2, differentiate_pb2, trainer_pb2
from epochd_server.codec.activations import (
    decode_chain,
    decode_stream_header,
    decode_transform,
    encode_stream_result,
    encode_transformed,
)
from epochd_server.codec.differentiate import decode_differentiate, encode_differentiated
from epochd_server.codec.predictions import decode_predict, encode_prediction
from epochd_server.codec.tensors import decode_tensor, encode_tensor
from epochd_server.domain.activations import Activation, ActivationStep, Operation
from epochd_server.domain.errors import Violations
from epochd_server.domain.models import ModelVersion, VersionCard
from epochd_server.domain.predictions import Prediction
from epochd_server.domain.resources import VersionReference
from epochd_server.domain.tensors import RawTensor

ONE = encode_tensor(np.float32(1))


def fields(violations: Violations) -> set[str]:
    return {violation.field for violation in violations.found}


def raw(*values: float) -> RawTensor:
    return RawTensor("float64", (len(values),), memoryview(np.array(values).tobytes()))


# -- Predict ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("models/m", VersionReference("m")),
        ("models/m/versions/3", VersionReference("m", version=3)),
        ("models/m@champion", VersionReference("m", alias="champion")),
    ],
)
def test_rows_to_predict_may_be_a_tensor(name, reference) -> None:
    request = trainer_pb2.PredictRequest(model=name, tensor=encode_tensor(np.ones((2, 3))), logits=True)
    command = decode_predict(request, Violations())
    assert command.reference == reference
    assert command.rows.shape == (2, 3)
    assert (command.probabilities, command.logits) == (False, True)


def test_rows_to_predict_may_be_a_table() -> None:
    request = trainer_pb2.PredictRequest(model="models/m")
    request.table.columns.add(name="x").numbers.values.extend([1, 2])
    assert decode_predict(request, Violations()).rows.names == ("x",)


def test_faults_of_a_prediction_are_named_at_once() -> None:
    violations = Violations()
    assert decode_predict(trainer_pb2.PredictRequest(model="m/../x"), violations) is None
    assert fields(violations) == {"model", "rows"}
    violations = Violations()
    request = trainer_pb2.PredictRequest(model="models/m", tensor=encode_tensor(np.ones((1, 1, 1))))
    assert decode_predict(request, violations) is None
    assert fields(violations) == {"tensor.shape"}


def test_a_fleet_is_asked_by_keys_beside_a_tensor_or_by_one_member() -> None:
    request = trainer_pb2.PredictRequest(model="models/m", tensor=encode_tensor(np.ones((2, 3))))
    request.keys.columns.add(name="store").strings.values.extend(["a", "b"])
    request.fallback_member.values.add().text = "a"
    command = decode_predict(request, Violations())
    assert command.keys.names == ("store",)
    assert (command.member, command.unknown_as_nan, command.fallback_member) == (None, False, ("a",))
    request.ClearField("keys")
    request.member.values.add().integer = 3
    request.unknown_as_nan = True
    command = decode_predict(request, Violations())
    assert command.keys is None
    assert (command.member, command.unknown_as_nan, command.fallback_member) == ((3,), True, None)


def test_keys_that_cannot_be_are_named_at_once() -> None:
    request = trainer_pb2.PredictRequest(model="models/m")
    request.table.columns.add(name="x").numbers.values.append(1)
    request.keys.columns.add(name="store")
    request.fallback_member.values.add()
    violations = Violations()
    assert decode_predict(request, violations) is None
    assert fields(violations) == {
        "keys",
        "keys.columns[0].values",
        "fallback_member.values[0].value",
    }
    both = trainer_pb2.PredictRequest(model="models/m", tensor=encode_tensor(np.ones((1, 1))))
    both.keys.columns.add(name="store").strings.values.append("a")
    both.member.values.add().text = "a"
    violations = Violations()
    assert decode_predict(both, violations) is None
    assert fields(violations) == {"keys"}


@given(st.from_type(VersionCard), st.data())
def test_predictions_are_values_or_labels(card: VersionCard, data: st.DataObject) -> None:
    version = ModelVersion(model="m", version=2, create_time=datetime.now(UTC), card=card)
    if card.classes is None:
        values = np.array([1.5, 2.5], np.float32)
        response = encode_prediction(Prediction(version=version, values=values))
        assert np.array_equal(decode_tensor(response.values, Violations()), values)
        assert not response.HasField("classes")
    else:
        chosen = data.draw(st.lists(st.sampled_from(card.classes), max_size=5))
        text = isinstance(card.classes[0], str)
        labels = np.array(chosen, dtype=object if text else np.int64)
        response = encode_prediction(Prediction(version=version, values=labels, logits=np.ones((2, 3))))
        given_back = response.labels.strings if text else response.labels.integers
        assert list(given_back.values) == chosen
        assert response.labels.WhichOneof("labels") == ("strings" if text else "integers")
        assert list(response.logits.shape) == [2, 3]
        assert not response.HasField("probabilities")
    assert response.model_version == "models/m/versions/2"


# -- ActivationTransform ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", Activation)
@pytest.mark.parametrize("operation", [*Operation, None])
def test_every_function_and_operation_has_its_number(function, operation) -> None:
    step = activation_pb2.ActivationStep(
        function=activation_pb2.ActivationFunction.Value(f"ACTIVATION_FUNCTION_{function.name}")
    )
    if operation is not None:
        step.operation = activation_pb2.ActivationOperation.Value(f"ACTIVATION_OPERATION_{operation.name}")
    expected = ActivationStep(function=function, operation=operation or Operation.FORWARD)
    assert decode_chain([step], Violations()) == (expected,)


def test_a_step_keeps_its_parameters_and_axis() -> None:
    step = activation_pb2.ActivationStep(function=5, parameters={"beta": 2.0}, approximate="tanh", axis=0)
    (decoded,) = decode_chain([step], Violations())
    assert (decoded.axis, decoded.parameters, decoded.approximate) == (0, {"beta": 2.0}, "tanh")


def test_a_transformation_keeps_its_bytes() -> None:
    request = activation_pb2.ActivationTransformRequest(input=ONE, strict=True)
    request.chain.add().function = 1
    command = decode_transform(request, Violations())
    assert command.strict
    assert encode_transformed(command.input).output == ONE


@pytest.mark.parametrize(
    ("step", "field"),
    [
        ({}, "chain[0].function"),
        ({"function": 99}, "chain[0].function"),
        ({"function": 1, "operation": 99}, "chain[0].operation"),
        ({"function": 1, "axis": 0}, "chain[0].axis"),
    ],
)
def test_faults_of_steps_have_their_fields(step, field) -> None:
    violations = Violations()
    assert decode_chain([activation_pb2.ActivationStep(**step)], violations) is None
    assert fields(violations) == {field}


@pytest.mark.parametrize("count", [0, 17])
def test_a_chain_has_1_to_16_steps(count) -> None:
    violations = Violations()
    assert decode_chain([activation_pb2.ActivationStep(function=1)] * count, violations) is None
    assert fields(violations) == {"chain"}


def test_faults_of_input_and_chain_are_named_at_once() -> None:
    violations = Violations()
    request = activation_pb2.ActivationTransformRequest(input={"shape": [-1], "dtype": 9})
    assert decode_transform(request, violations) is None
    assert fields(violations) == {"input.shape[0]", "chain"}


def test_a_stream_header_names_type_shape_and_steps() -> None:
    header = activation_pb2.ActivationStreamHeader(dtype=8, shape=[2**40], strict=True)
    header.chain.add().function = 1
    command = decode_stream_header(header, Violations())
    assert (command.dtype, command.shape, command.strict) == ("bfloat16", (2**40,), True)
    result = encode_stream_result(command.dtype, command.shape).header
    assert (result.dtype, list(result.shape)) == (8, [2**40])


def test_faults_of_a_stream_header_are_named_at_once() -> None:
    violations = Violations()
    header = activation_pb2.ActivationStreamHeader(dtype=99, shape=[-1])
    assert decode_stream_header(header, violations) is None
    assert fields(violations) == {"dtype", "shape[0]", "chain"}


# -- Differentiate ---------------------------------------------------------------------------------------------


def test_a_derivatives_variables_keep_their_names_and_bytes() -> None:
    request = differentiate_pb2.DifferentiateRequest(
        expression="w**2", gradients_of=["w"], repeat=3, accumulate=True
    )
    request.variables.add(name="w", tensor=ONE)
    command = decode_differentiate(request, Violations())
    assert command.variables["w"].shape == ()
    assert (command.expression, command.gradients_of, command.repeat, command.accumulate) == (
        "w**2",
        ("w",),
        3,
        True,
    )


def test_unset_repeat_is_1_but_a_given_0_is_kept_for_the_checks() -> None:
    request = differentiate_pb2.DifferentiateRequest(expression="1")
    assert decode_differentiate(request, Violations()).repeat == 1
    request.repeat = 0
    assert decode_differentiate(request, Violations()).repeat == 0


def test_faults_of_variables_are_named_at_once() -> None:
    request = differentiate_pb2.DifferentiateRequest()
    request.variables.add(name="w", tensor=ONE)
    request.variables.add(name="w", tensor={"dtype": 9, "shape": [2]})
    violations = Violations()
    assert decode_differentiate(request, violations) is None
    assert fields(violations) == {"variables[1].name", "variables[1].tensor.elements"}


def test_a_response_has_the_last_gradients_and_all_before() -> None:
    history = [{"w": raw(2.0)}, {"w": raw(4.0)}]
    response = encode_differentiated(raw(1.0), history, {"y": raw(3.0)})
    assert [gradient.name for gradient in response.gradients] == ["w"]
    assert decode_tensor(response.gradients[0].tensor, Violations()).tolist() == [4.0]
    passes = [decode_tensor(each.gradients[0].tensor, Violations()).tolist() for each in response.history]
    assert passes == [[2.0], [4.0]]
    assert [each.name for each in response.intermediates] == ["y"]


@given(
    st.sampled_from(
        [
            (trainer_pb2.PredictRequest, decode_predict),
            (activation_pb2.ActivationTransformRequest, decode_transform),
            (activation_pb2.ActivationStreamHeader, decode_stream_header),
            (differentiate_pb2.DifferentiateRequest, decode_differentiate),
        ]
    ),
    st.binary(max_size=80),
)
def test_any_bytes_are_a_command_or_have_violations(kind, data) -> None:
    message_type, decode = kind
    try:
        message = message_type.FromString(data)
    except DecodeError:
        return
    violations = Violations()
    assert (decode(message, violations) is None) == bool(violations)
