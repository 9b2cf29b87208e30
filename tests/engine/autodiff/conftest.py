"""Shared by the tests of the autodiff engine."""

from collections.abc import Callable

import pytest
import torch

from epochd_server.domain.errors import InvalidInput
from epochd_server.engine.autodiff import differentiate


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _as_tensor(value: object) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)


@pytest.fixture
def diff() -> Callable[..., object]:
    """``diff("2*w", w=2.0, repeat=3)``: numbers and lists become float64 variables."""

    def call(expression, *, gradients_of=None, repeat=1, accumulate=False, limits=None, **variables):
        return differentiate(
            expression,
            {name: _as_tensor(value) for name, value in variables.items()},
            gradients_of=gradients_of,
            repeat=repeat,
            accumulate=accumulate,
            limits=limits,
        )

    return call


@pytest.fixture
def refused(diff) -> Callable[..., list[tuple[str, str]]]:
    """Calls ``diff``, which must refuse, and returns the violations as (field, description)."""

    def call(expression, **options):
        with pytest.raises(InvalidInput) as caught:
            diff(expression, **options)
        return [(violation.field, violation.description) for violation in caught.value.violations]

    return call
