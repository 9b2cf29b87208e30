"""Trainer.ActivationTransform over real sockets; its numbers are held against torch in tests/engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from epochd.v1 import activation_pb2 as pb
from epochd.v1 import tensor_pb2

SIGMOID = pb.ActivationStep(function=pb.ACTIVATION_FUNCTION_SIGMOID)
SOFTMAX = pb.ActivationStep(function=pb.ACTIVATION_FUNCTION_SOFTMAX)
LOGIT = pb.ActivationStep(function=pb.ACTIVATION_FUNCTION_LOGIT)


async def transform(api, tensor, *chain, strict=False) -> tensor_pb2.Tensor:
    request = pb.ActivationTransformRequest(input=tensor, chain=chain, strict=strict)
    return (await api.trainer.ActivationTransform(request)).output


@pytest.mark.parametrize("function", [f for f in pb.ActivationFunction.values() if f])
async def test_every_function_of_the_api_has_a_forward(api, tensor, function):
    output = await transform(api, tensor([0.25, 0.5]), pb.ActivationStep(function=function))
    assert output.dtype == tensor_pb2.DATA_TYPE_FLOAT32


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
async def test_the_result_has_the_inputs_type_and_shape(api, tensor, array, dtype):
    x = np.linspace(-3, 3, 12).reshape(3, 4)
    output = await transform(api, tensor(x, dtype), SIGMOID)
    expected = torch.sigmoid(torch.tensor(x.astype(dtype), dtype=torch.float64)).numpy()
    assert array(output).dtype == dtype
    np.testing.assert_allclose(array(output), expected, rtol=2 * np.finfo(dtype).eps)


async def test_bfloat16_comes_and_goes_as_bytes(api):
    x = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.bfloat16)
    data = x.view(torch.uint8).numpy().tobytes()
    message = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_BFLOAT16, shape=[3], data=data)
    output = await transform(api, message, SIGMOID)
    found = torch.frombuffer(bytearray(output.data), dtype=torch.bfloat16)
    torch.testing.assert_close(found, torch.sigmoid(x.double()).to(torch.bfloat16))


async def test_plain_numbers_are_float64(api, array):
    message = tensor_pb2.Tensor(shape=[2], numbers=tensor_pb2.Numbers(values=[0.0, 37.0]))
    derivative = pb.ActivationStep(
        function=pb.ACTIVATION_FUNCTION_SIGMOID, operation=pb.ACTIVATION_OPERATION_DERIVATIVE
    )
    found = array(await transform(api, message, derivative))
    np.testing.assert_allclose(found, [0.25, 8.533047625744066e-17], rtol=1e-15)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,)])
async def test_scalars_and_empty_tensors_keep_their_shape(api, tensor, array, shape):
    assert array(await transform(api, tensor(np.zeros(shape)), SIGMOID)).shape == shape


async def test_a_chain_is_applied_in_order(api, tensor, array):
    x = [-2.0, 0.5, 3.0]
    found = array(await transform(api, tensor(x), SIGMOID, LOGIT))
    np.testing.assert_allclose(found, x, rtol=1e-6)


async def test_the_derivative_of_softmax_is_its_jacobian(api, tensor, array):
    x = np.random.default_rng(0).normal(size=(2, 3))
    step = pb.ActivationStep(
        function=pb.ACTIVATION_FUNCTION_SOFTMAX, operation=pb.ACTIVATION_OPERATION_DERIVATIVE
    )
    found = array(await transform(api, tensor(x, "float64"), step))
    for row, jacobian in zip(torch.tensor(x), found, strict=True):
        expected = torch.autograd.functional.jacobian(lambda v: torch.softmax(v, 0), row)
        np.testing.assert_allclose(jacobian, expected, rtol=1e-12)


async def test_where_the_answer_is_not_defined_it_is_nan_or_strictly_an_error(api, tensor, array):
    x = tensor([[0.5, 0.25], [2.0, -1.0]])
    found = array(await transform(api, x, LOGIT))
    assert np.isnan(found).tolist() == [[False, False], [True, True]]
    refusal = await api.refused(transform(api, x, LOGIT, strict=True))
    assert (refusal.code, refusal.reason) == ("OUT_OF_RANGE", "UNDEFINED_VALUE")
    assert refusal.metadata["index"] == "1, 0"
    assert refusal.message.startswith("chain[0] (logit forward) is not defined at index [1, 0]")


async def test_everything_wrong_with_a_request_is_told_at_once(api):
    request = pb.ActivationTransformRequest(
        input=tensor_pb2.Tensor(dtype=99, shape=[-1], data=b"x"),
        chain=[pb.ActivationStep(function=99, operation=99)],
    )
    refusal = await api.refused(api.trainer.ActivationTransform(request))
    assert refusal.reason == "INVALID_FIELDS"
    assert set(refusal.fields) == {"input.dtype", "input.shape[0]", "chain[0].function", "chain[0].operation"}


async def test_what_does_not_fit_together_is_named_in_the_words_of_the_request(api, tensor):
    steps = [
        pb.ActivationStep(function=pb.ACTIVATION_FUNCTION_SOFTMAX, axis=5),
        pb.ActivationStep(function=pb.ACTIVATION_FUNCTION_ELU, parameters={"beta": 1.0}),
    ]
    refusal = await api.refused(transform(api, tensor([1, 2], "int32"), *steps))
    assert set(refusal.fields) == {"input.dtype", "chain[0].axis", "chain[1].parameters.beta"}


@pytest.mark.parametrize("steps", [0, 17])
async def test_a_chain_has_one_to_sixteen_steps(api, tensor, steps):
    refusal = await api.refused(transform(api, tensor([1.0]), *[SIGMOID] * steps))
    assert set(refusal.fields) == {"chain"}


async def test_bytes_that_do_not_fit_the_shape_are_named(api):
    message = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[3], data=b"12345678")
    refusal = await api.refused(transform(api, message, SIGMOID))
    assert set(refusal.fields) == {"input.data"}


async def test_a_jacobian_over_a_message_is_refused_before_it_is_computed(api, tensor):
    step = pb.ActivationStep(
        function=pb.ACTIVATION_FUNCTION_SOFTMAX, operation=pb.ACTIVATION_OPERATION_DERIVATIVE
    )
    refusal = await api.refused(transform(api, tensor(np.zeros(900_000)), step))
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")


async def test_a_large_tensor_is_the_same_as_its_parts(api, tensor, array):
    """Large ones are computed in a thread."""
    x = np.random.default_rng(0).normal(size=500_000).astype("float32")
    whole = array(await transform(api, tensor(x), SIGMOID))
    part = array(await transform(api, tensor(x[1000:1100]), SIGMOID))
    np.testing.assert_array_equal(whole[1000:1100], part)
