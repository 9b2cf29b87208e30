"""How a chain's axes say where a tensor may be cut."""

from __future__ import annotations

import pytest

from epochd_server.domain.activations import Activation, ActivationStep, Operation
from epochd_server.rpc.activation_layout import layout

TANH = ActivationStep(function=Activation.TANH)


def along(axis: int, function: Activation = Activation.SOFTMAX, **fields) -> ActivationStep:
    return ActivationStep(function=function, axis=axis, **fields)


def jacobian(axis: int) -> ActivationStep:
    return along(axis, operation=Operation.DERIVATIVE)


def reduced(axis: int) -> ActivationStep:
    return along(axis, Activation.LOGSUMEXP)


@pytest.mark.parametrize(
    ("shape", "steps", "leading", "block"),
    [
        ((4, 5, 6), [TANH], 3, ()),
        ((4, 5, 6), [along(-1)], 2, (6,)),
        ((4, 5, 6), [along(1)], 1, (5, 6)),
        ((4, 5, 6), [along(0)], 0, (4, 5, 6)),
        ((4, 5, 6), [along(2), along(-2)], 1, (5, 6)),
        ((4, 5, 6), [reduced(-1), along(-1)], 1, (5, 6)),
        ((4, 5, 6), [reduced(0), along(0)], 0, (4, 5, 6)),
        ((4, 5, 6), [jacobian(-1)], 2, (6,)),
    ],
)
def test_a_block_begins_at_the_first_axis_that_is_acted_on(shape, steps, leading, block):
    plan = layout(shape, steps)
    assert (plan.leading, plan.block_shape) == (leading, block)


@pytest.mark.parametrize(
    ("shape", "steps", "axis", "axes"),
    [
        ((4, 5, 6), [along(0)], 2, (2,)),
        ((4, 6, 5), [along(0)], 1, (1,)),
        ((4, 5, 6), [reduced(0), TANH], 2, (1, 1)),
        ((4, 5, 6), [reduced(0), reduced(0)], 2, (1, 0)),
        ((4, 5, 6), [jacobian(0)], 2, (2,)),
    ],
)
def test_a_tensor_is_cut_along_its_longest_independent_axis(shape, steps, axis, axes):
    cut = layout(shape, steps).cut
    assert (cut.axis, cut.axes, cut.size) == (axis, axes, shape[axis])


def test_a_chain_that_acts_on_every_axis_leaves_nothing_to_cut():
    assert layout((4, 5), [along(0), along(1)]).cut is None


def test_axes_are_counted_from_the_end_so_that_they_fit_a_block_too():
    steps = layout((4, 5, 6), [along(1), reduced(2), along(-1)]).steps
    assert [step.axis for step in steps] == [-2, -1, -1]


def test_the_size_of_pieces_counts_input_and_result():
    plan = layout((4, 5, 6), [jacobian(-1)])
    assert plan.block_elements == 6 + 36
    assert plan.slice_elements == (4 * 5 * 6 + 4 * 5 * 36) // 5
