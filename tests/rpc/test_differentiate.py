"""Trainer.Differentiate over real sockets; its mathematics are held against PyTorch in tests/engine."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from epochd.v1 import differentiate_pb2 as pb
from epochd.v1 import tensor_pb2


def named(**values: float) -> list[tensor_pb2.NamedTensor]:
    """Scalar variables as a client without a tensor library sends them."""
    return [
        tensor_pb2.NamedTensor(
            name=name, tensor=tensor_pb2.Tensor(numbers=tensor_pb2.Numbers(values=[value]))
        )
        for name, value in values.items()
    ]


async def differentiate(api, expression: str, variables, **fields) -> pb.DifferentiateResponse:
    request = pb.DifferentiateRequest(expression=expression, variables=variables, **fields)
    return await api.trainer.Differentiate(request)


async def test_the_tutorials_gradient_is_eight(api, array):
    answer = await differentiate(api, "y = w**2; z = 2*y + 5", named(w=2.0))
    assert array(answer.value) == 13
    assert [(g.name, array(g.tensor)) for g in answer.gradients] == [("w", 8)]
    assert [(i.name, array(i.tensor)) for i in answer.intermediates] == [("y", 4), ("z", 13)]


@pytest.mark.parametrize(("accumulate", "expected"), [(True, range(2, 43, 2)), (False, [2] * 21)])
async def test_gradients_accumulate_over_repetitions_or_start_from_zero(api, array, accumulate, expected):
    answer = await differentiate(api, "2*w", named(w=2.0), repeat=21, accumulate=accumulate)
    assert [array(g.gradients[0].tensor) for g in answer.history] == list(expected)
    assert array(answer.gradients[0].tensor) == list(expected)[-1]


async def test_gradients_of_intermediates_come_in_the_order_asked_for(api, array):
    answer = await differentiate(api, "y = w**2; 2*y", named(w=2.0, v=1.0), gradients_of=["y", "w"])
    assert [(g.name, array(g.tensor)) for g in answer.gradients] == [("y", 2), ("w", 8)]


async def test_everything_wrong_with_a_request_is_told_at_once(api):
    variables = [
        *named(w=1.0),
        tensor_pb2.NamedTensor(name="w", tensor=tensor_pb2.Tensor(shape=[-1])),
    ]
    refusal = await api.refused(differentiate(api, "w", variables))
    assert refusal.code == "INVALID_ARGUMENT"
    assert {"variables[1].name", "variables[1].tensor.shape[0]"} <= set(refusal.fields)


@pytest.mark.parametrize("expression", ["", "w +", "__import__('os')", "w.grad", "open('/etc/passwd')", "a"])
async def test_what_is_no_expression_is_refused(api, expression):
    refusal = await api.refused(differentiate(api, expression, named(w=1.0)))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_FIELDS")


@pytest.mark.parametrize("repeat", [0, -1, 1001])
async def test_repeat_is_bounded(api, repeat):
    refusal = await api.refused(differentiate(api, "w", named(w=1.0), repeat=repeat))
    assert set(refusal.fields) == {"repeat"}


async def test_a_heavy_expression_leaves_the_server_responsive(api, tensor):
    """A matrix product of a few hundred milliseconds runs in a thread."""
    matrix = tensor_pb2.NamedTensor(name="m", tensor=tensor(np.ones((700, 700))))
    product = "sum(matmul(matmul(m, m), matmul(m, m)))"
    heavy = asyncio.create_task(differentiate(api, product, [matrix]))
    answered = 0
    while not heavy.done():
        await differentiate(api, "w", named(w=1.0))
        answered += 1
    await heavy
    assert answered > 3
