"""Any type, layout and size; and the same bits however a tensor is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epochd_server.domain.activations import CATALOG, Activation, ActivationStep, Operation
from epochd_server.engine.activations import is_elementwise, transform, transform_chunk
from epochd_server.engine.activations.blocks import BLOCK

ELEMENTWISE = [
    ActivationStep(function=function, operation=operation)
    for function, spec in CATALOG.items()
    if not spec.along_axis
    for operation in spec.operations
]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
GELU = ActivationStep(function=Activation.GELU)


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])


def mixed_values(count: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Values of many sizes, so that neighbours take different branches."""
    g = torch.Generator().manual_seed(seed)
    scale = 10.0 ** (torch.rand(count, generator=g, dtype=torch.float64) * 8 - 6)
    return (torch.randn(count, generator=g, dtype=torch.float64) * scale).to(dtype)


@pytest.mark.parametrize("step", ELEMENTWISE, ids=lambda s: f"{s.function.value}-{s.operation.value}")
def test_every_cut_gives_the_bits_of_the_whole(step: ActivationStep) -> None:
    x = mixed_values(1000, torch.float64)
    whole = bits(transform(x, [step]))
    for start, stop in [(0, 1), (1, 8), (3, 20), (7, 71), (100, 163), (501, 1000), (999, 1000)]:
        piece = transform_chunk(x[start:stop], [step], shape=x.shape, start=start)
        assert torch.equal(bits(piece), whole[start:stop])


@settings(max_examples=60, deadline=None)
@given(
    step=st.sampled_from(ELEMENTWISE),
    dtype=st.sampled_from(DTYPES),
    cuts=st.lists(st.integers(0, 400), max_size=6).map(sorted),
    offset=st.integers(0, 3),
)
def test_any_chunking_at_any_alignment_gives_the_same_bits(
    step: ActivationStep, dtype: torch.dtype, cuts: list[int], offset: int
) -> None:
    x = mixed_values(400 + offset, dtype)[offset:]
    edges = [0, *cuts, 400]
    pieces = [transform(x[a:b], [step]) for a, b in pairwise(edges)]
    assert torch.equal(bits(torch.cat(pieces)), bits(transform(x, [step])))


def test_a_tensor_longer_than_a_block_gets_the_bits_of_its_elements() -> None:
    x = mixed_values(2 * BLOCK + 77, torch.float32)
    whole = transform(x, [GELU])
    for index in (0, BLOCK - 1, BLOCK, 2 * BLOCK, 2 * BLOCK + 76):
        assert torch.equal(bits(transform(x[index], [GELU])), bits(whole[index]))


def test_the_number_of_threads_does_not_change_bits() -> None:
    x = mixed_values(3 * BLOCK, torch.float64)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(bits(transform(x, [GELU])))
    torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_result_is_a_new_contiguous_tensor_of_the_same_type_and_shape(dtype: torch.dtype) -> None:
    base = mixed_values(60, dtype)
    views = [
        base.view(3, 4, 5).transpose(0, 2),
        base.view(6, 10)[::2, 1::3],
        base[:1].expand(7, 1),
        base[5],
        base[:0].view(0, 4),
    ]
    for view in views:
        kept = view.clone()
        result = transform(view, [GELU])
        assert result.dtype == dtype
        assert result.shape == view.shape
        assert result.is_contiguous()
        assert torch.equal(view, kept)
        assert torch.equal(bits(result), bits(transform(view.contiguous(), [GELU])))


@pytest.mark.parametrize("step", ELEMENTWISE, ids=lambda s: f"{s.function.value}-{s.operation.value}")
def test_the_input_is_never_changed_nor_shared(step: ActivationStep) -> None:
    x = mixed_values(128, torch.float64)
    kept = x.clone()
    result = transform(x, [step])
    assert torch.equal(x, kept)
    assert result.data_ptr() != x.data_ptr()


def test_a_tensor_that_requires_grad_is_transformed_without_recording() -> None:
    x = torch.ones(3, requires_grad=True)
    assert not transform(x, [GELU]).requires_grad


def test_a_chain_is_applied_in_order_and_rounded_once() -> None:
    chain = [
        ActivationStep(function=Activation.SIGMOID),
        ActivationStep(function=Activation.LOGIT),
    ]
    x = torch.linspace(-12, 12, 97)
    assert torch.equal(transform(x, chain), x)  # rounded in between, sigmoid(12) would be off by 1 %
    exp_then_log = [ActivationStep(function=Activation.EXP), ActivationStep(function=Activation.LOG)]
    assert transform(torch.tensor([200.0]), exp_then_log).item() == 200.0  # float32 would overflow


def test_a_chain_may_go_along_an_axis_and_back_to_elements() -> None:
    x = mixed_values(24, torch.float64).view(4, 6)
    chain = [
        ActivationStep(function=Activation.TANH),
        ActivationStep(function=Activation.SOFTMAX, axis=0),
        ActivationStep(function=Activation.LOG),
        ActivationStep(function=Activation.LOGSUMEXP, axis=0),
    ]
    expected = x.tanh().softmax(0).log().logsumexp(0)
    torch.testing.assert_close(transform(x, chain), expected, rtol=1e-12, atol=1e-14)
    assert not is_elementwise(chain)
    assert is_elementwise(chain[:1])


def test_a_chain_along_an_axis_cannot_be_cut() -> None:
    softmax = ActivationStep(function=Activation.SOFTMAX)
    with pytest.raises(ValueError, match="cannot be cut"):
        transform_chunk(torch.ones(4), [softmax], shape=(4,), start=0)


def test_the_derivative_of_a_half_type_keeps_its_type() -> None:
    step = ActivationStep(function=Activation.SIGMOID, operation=Operation.DERIVATIVE)
    assert transform(torch.ones(2, dtype=torch.bfloat16), [step]).dtype == torch.bfloat16
