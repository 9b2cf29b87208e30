"""Sweeps on the wire."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.v1 import spec_pb2 as pb
from epochd_server.codec.sweeps import decode_sweep, encode_sweep, with_swept
from epochd_server.domain.errors import Violations
from epochd_server.domain.fleets import Sweep

SGD = pb.Optimizer(sgd=pb.Sgd(lr=0.1))
NAN, INF = float("nan"), float("inf")


def faults(sweep: pb.Sweep, optimizer: pb.Optimizer = SGD) -> dict[str, str]:
    violations = Violations()
    with violations.within("sweep"):
        decode_sweep(sweep, optimizer, violations)
    return {violation.field: violation.description for violation in violations.found}


@given(st.from_type(Sweep))
def test_a_sweep_comes_back(sweep: Sweep) -> None:
    violations = Violations()
    assert decode_sweep(encode_sweep(sweep), SGD, violations) == sweep
    assert not violations


@given(st.from_type(Sweep))
def test_members_are_the_product_in_ascending_order(sweep: Sweep) -> None:
    keys = sweep.keys()
    lists = [range(sweep.folds) if name == "fold" else getattr(sweep, name) for name in keys.names]
    assert [keys.key(member) for member in range(len(keys))] == sorted(itertools.product(*lists))
    assert len(keys) == sweep.size


@pytest.mark.parametrize("folds", [-1, 0, 1, 101])
def test_folds_are_2_to_100(folds: int) -> None:
    assert set(faults(pb.Sweep(lr=[0.1], folds=folds))) == {"sweep.folds"}


def test_folds_count_as_members() -> None:
    assert set(faults(pb.Sweep(seed=range(1_001), folds=100))) == {"sweep"}


def test_no_sweep_is_no_message() -> None:
    assert encode_sweep(None) is None


def test_an_empty_sweep_is_a_fault() -> None:
    assert faults(pb.Sweep()) == {
        "sweep": "must list values of lr, weight_decay, momentum or seed, or ask for folds"
    }


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("lr", [0.0, -1.0, NAN, INF]),
        ("weight_decay", [-1.0, NAN, INF]),
        ("momentum", [-0.5, NAN, INF]),
        ("seed", [-1, -(2**63)]),
    ],
)
def test_every_value_must_be_one_that_the_optimizer_takes(name, values) -> None:
    message = pb.Sweep(**{name: [*values, 1, 2]})
    assert set(faults(message)) == {f"sweep.{name}[{index}]" for index in range(len(values))}
    assert getattr(decode_sweep(message, SGD, Violations()), name) == (1, 2)


def test_a_value_listed_twice_is_a_fault() -> None:
    found = faults(pb.Sweep(lr=[0.1, 0.2, 0.1], seed=[3, 3]))
    assert found == {"sweep.lr[2]": "0.1 is listed twice", "sweep.seed[1]": "3 is listed twice"}


def test_a_thousand_wrong_values_are_not_a_thousand_answers() -> None:
    found = faults(pb.Sweep(lr=[-1.0] * 1_000))
    assert len(found) == 21
    assert found["sweep.lr"] == "has 980 more faults of this kind"


def test_momenta_are_for_sgd() -> None:
    found = faults(pb.Sweep(momentum=[0.9]), pb.Optimizer(adam=pb.Adam()))
    assert found == {"sweep.momentum": "is for sgd and rmsprop, not for adam"}


def test_nesterov_needs_every_momentum_above_0() -> None:
    nesterov = pb.Optimizer(sgd=pb.Sgd(lr=0.1, nesterov=True))
    assert set(faults(pb.Sweep(momentum=[0.9, 0.0]), nesterov)) == {"sweep.momentum[1]"}


def test_a_product_beyond_the_limit_is_a_fault() -> None:
    rates, seeds = [1.0 + index for index in range(1_000)], list(range(101))
    assert faults(pb.Sweep(lr=rates, seed=seeds)) == {
        "sweep": "has 101,000 combinations, at most 100,000 are allowed"
    }
    assert faults(pb.Sweep(lr=rates, seed=seeds[:100])) == {}


def test_what_is_swept_may_be_left_unset_in_the_optimizer() -> None:
    fit = pb.GradientFit(optimizer=pb.Optimizer(sgd=pb.Sgd(nesterov=True)), epochs=3)
    filled = with_swept(fit, Sweep(lr=(0.5, 0.1), momentum=(0.9,), seed=(1,)))
    assert filled.optimizer.sgd == pb.Sgd(lr=0.5, momentum=0.9, nesterov=True)
    assert filled.epochs == 3
    assert fit.optimizer.sgd.lr == 0
    adam = pb.GradientFit(optimizer=pb.Optimizer(adam=pb.Adam(beta1=0.5)))
    assert with_swept(adam, Sweep(lr=(0.5,), momentum=(0.9,))).optimizer.adam == pb.Adam(beta1=0.5, lr=0.5)
    assert with_swept(fit, None) is fit
