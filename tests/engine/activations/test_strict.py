"""With strict, an undefined result is an error that names step, index and value; otherwise it is NaN."""

from __future__ import annotations

import math

import pytest
import torch

from epochd_server.domain.activations import Activation, ActivationStep, Operation
from epochd_server.domain.errors import Code, EpochdError, InvalidInput, Reason
from epochd_server.engine.activations import transform, transform_chunk
from epochd_server.engine.activations.blocks import BLOCK

LOGIT = ActivationStep(function=Activation.LOGIT)
EXP = ActivationStep(function=Activation.EXP)
LOG = ActivationStep(function=Activation.LOG)
TANH = ActivationStep(function=Activation.TANH)
SOFTMAX = ActivationStep(function=Activation.SOFTMAX)


def undefined(x: torch.Tensor, *steps: ActivationStep) -> EpochdError:
    with pytest.raises(EpochdError) as caught:
        transform(x, steps, strict=True)
    assert caught.value.reason is Reason.UNDEFINED_VALUE
    assert caught.value.code is Code.OUT_OF_RANGE
    return caught.value


def test_without_strict_the_result_is_nan_and_the_rest_is_computed() -> None:
    result = transform(torch.tensor([0.5, 1.5]), [LOGIT])
    assert result[0] == 0.0
    assert math.isnan(result[1])


def test_the_first_index_in_row_major_order_is_named() -> None:
    error = undefined(torch.tensor([[0.5, 0.2], [0.1, -2.5], [7.0, 0.3]]), LOGIT)
    assert error.metadata == {"step": "0", "index": "1, 1", "value": "-2.5"}
    assert error.message == (
        "steps[0] (logit forward) is not defined at index [1, 1], where its input is -2.5; "
        "it is defined for 0 <= x <= 1."
    )


def test_the_index_is_that_of_the_view_not_of_its_memory() -> None:
    x = torch.tensor([[0.5, 0.2, 9.0], [0.1, -2.5, 0.3]]).T
    assert undefined(x, LOGIT).metadata["index"] == "1, 1"


def test_the_step_that_was_undefined_is_named_with_the_value_it_got() -> None:
    error = undefined(torch.tensor([0.5, -1.0], dtype=torch.float64), TANH, LOG, EXP)
    assert error.metadata["step"] == "1"
    assert error.metadata["index"] == "1"
    assert float(error.metadata["value"]) == pytest.approx(math.tanh(-1.0), rel=1e-15)


def test_a_later_block_is_found_too() -> None:
    x = torch.full((2, BLOCK), 0.5)
    x[1, 5] = 3.0
    assert undefined(x, LOGIT).metadata["index"] == "1, 5"


def test_nan_in_the_input_is_undefined() -> None:
    assert undefined(torch.tensor([1.0, math.nan]), TANH).metadata == {
        "step": "0",
        "index": "1",
        "value": "nan",
    }


def test_poles_and_limits_are_defined() -> None:
    x = torch.tensor([0.0, 1.0])
    assert transform(x, [LOGIT], strict=True).tolist() == [-math.inf, math.inf]
    assert transform(torch.tensor([-math.inf]), [EXP], strict=True).item() == 0.0


def test_a_scalar_has_the_empty_index() -> None:
    assert undefined(torch.tensor(-1.0), LOG).metadata["index"] == ""


def test_a_slice_without_a_softmax_is_named() -> None:
    x = torch.tensor([[0.0, 1.0], [-math.inf, -math.inf]])
    error = undefined(x, SOFTMAX, LOG)
    assert error.metadata["step"] == "0"
    assert error.metadata["index"] == "1, 0"


def test_a_step_after_an_axis_is_counted_from_the_start() -> None:
    error = undefined(torch.tensor([[0.0, 1.0]]), SOFTMAX, TANH, LOG, LOG)
    assert error.metadata["step"] == "3"


def test_a_chunk_names_the_index_in_the_whole_tensor() -> None:
    with pytest.raises(EpochdError) as caught:
        transform_chunk(torch.tensor([0.5, 0.5, 2.0]), [LOGIT], shape=(4, 5), start=11, strict=True)
    assert caught.value.metadata["index"] == "2, 3"


def test_an_invalid_chain_is_refused_with_every_field() -> None:
    steps = [
        ActivationStep(function=Activation.SOFTMAX, axis=3),
        ActivationStep(function=Activation.SILU, operation=Operation.INVERSE),
    ]
    with pytest.raises(InvalidInput) as caught:
        transform(torch.ones(2, 2), steps)
    assert [v.field for v in caught.value.violations] == ["steps[0].axis", "steps[1].operation"]


def test_an_integer_tensor_is_refused() -> None:
    with pytest.raises(InvalidInput, match="dtype"):
        transform(torch.ones(2, dtype=torch.int64), [EXP])
