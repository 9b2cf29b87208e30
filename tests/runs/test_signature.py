"""Which runs may share a cohort."""

from __future__ import annotations

from dataclasses import replace

import pytest

from epochd_server.domain.specs import (
    ActivationLayer,
    Init,
    LinearLayer,
    LinearModel,
    Loss,
    LossKind,
    ModuleModel,
    OptimizerKind,
    Precision,
    SequentialModel,
)
from epochd_server.domain.validation import EarlyStopping, HoldOut, Metric, Validation
from epochd_server.runs.signature import estimated_seconds, rows_bytes, signature


def with_spec(started, **changes):
    return replace(started, spec=replace(started.spec, **changes))


def with_fit(started, **changes):
    return with_spec(started, fit=replace(started.spec.fit, **changes))


def with_optimizer(started, **changes):
    return with_fit(started, optimizer=replace(started.spec.fit.optimizer, **changes))


SHARED = [
    lambda s: s,
    lambda s: with_spec(s, seed=99),
    lambda s: with_spec(s, logging=replace(s.spec.logging, every=1, parameters=True)),
    lambda s: with_optimizer(s, lr=0.5),
    lambda s: with_optimizer(s, momentum=0.9, dampening=0.1, weight_decay=0.2, eps=1e-3),
    lambda s: replace(s, rows=4),
    lambda s: replace(s, feature_columns=("z",), target_columns=("t",)),
    lambda s: with_fit(s, epochs=21),
]
APART = [
    lambda s: with_spec(s, model=LinearModel(in_features=1, out_features=1, bias=False)),
    lambda s: with_spec(s, loss=Loss(kind=LossKind.L1)),
    lambda s: with_spec(s, loss=Loss(kind=LossKind.HUBER, delta=2.0)),
    lambda s: with_optimizer(s, kind=OptimizerKind.ADAM),
    lambda s: with_optimizer(s, nesterov=True),
    lambda s: with_fit(s, batch_size=2),
    lambda s: with_fit(s, shuffle=False),
    lambda s: with_fit(s, accumulation_steps=2),
    lambda s: with_spec(s, init=Init.ZEROS),
    lambda s: with_spec(s, precision=Precision.FLOAT64),
    lambda s: replace(s, rows=5),
    lambda s: replace(s, feature_columns=("a", "b")),
    lambda s: replace(s, classes=(0, 1)),
    lambda s: with_fit(s, epochs=200_000),
    lambda s: with_spec(s, validation=Validation(rows=HoldOut())),
]


@pytest.mark.parametrize("change", SHARED)
def test_runs_that_differ_by_member_only_share_a_cohort(started_of, change):
    assert signature(change(started_of())) == signature(started_of())


@pytest.mark.parametrize("change", APART)
def test_runs_of_different_programs_or_sizes_do_not(started_of, change):
    assert signature(change(started_of())) != signature(started_of())


def test_runs_that_hold_rows_out_share_a_cohort_where_they_measure_and_stop_alike(started_of):
    def of(fraction=0.2, **rules):
        return signature(
            with_spec(started_of(), validation=Validation(rows=HoldOut(fraction=fraction), **rules))
        )

    assert of() == of(0.5)
    assert of() != of(metrics=(Metric.MAE,))
    assert of() != of(early_stopping=EarlyStopping())


def sequential(slope=0.01, approximate="none"):
    layers = (
        LinearLayer(in_features=1, out_features=4),
        ActivationLayer(function="leaky_relu", parameters={"negative_slope": slope}, approximate=approximate),
        LinearLayer(in_features=4, out_features=1),
    )
    return SequentialModel(layers=layers)


def test_sequentials_compare_by_layers_and_their_parameters(started_of):
    one = signature(with_spec(started_of(), model=sequential()))
    assert one == signature(with_spec(started_of(), model=sequential()))
    assert one != signature(with_spec(started_of(), model=sequential(slope=0.2)))
    assert one != signature(with_spec(started_of(), model=sequential(approximate="tanh")))


def test_modules_compare_by_name_and_typed_arguments(started_of):
    def of(name="Net", **arguments):
        return signature(with_spec(started_of(), model=ModuleModel(name=name, arguments=arguments)))

    assert of(width=1, depth=2) == of(depth=2, width=1)
    assert len({of(width=1), of(width=1.0), of(width=True), of(width="1"), of("Other", width=1)}) == 5


def test_estimates_grow_with_epochs_rows_parameters_and_batches(started_of):
    base = estimated_seconds(started_of(rows=100))
    assert estimated_seconds(started_of(rows=100, epochs=200)) == pytest.approx(10 * base)
    assert estimated_seconds(started_of(rows=10_000)) > base
    assert estimated_seconds(replace(started_of(rows=100), parameters=1_000)) > base
    assert estimated_seconds(with_fit(started_of(rows=100), batch_size=1)) > 10 * base


def test_rows_take_their_columns_and_precision(started_of):
    assert rows_bytes(started_of(rows=10)) == 10 * 2 * 4
    assert rows_bytes(with_spec(started_of(rows=10), precision=Precision.FLOAT64)) == 10 * 2 * 8
