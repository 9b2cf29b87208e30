"""Hypothesis strategies for the domain's values, by type: tests draw them with ``st.from_type``."""

from __future__ import annotations

import string
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from epochd.v1 import activation_pb2
from epochd_server.codec.sweeps import MAX_MEMBERS
from epochd_server.domain.exact_fits import LbfgsFit, LeastSquaresFit, NewtonFit, RankRule
from epochd_server.domain.fleets import Sweep
from epochd_server.domain.layers import ACTIVATION_PARAMETERS
from epochd_server.domain.models import ModelVersion, Origin, VersionCard
from epochd_server.domain.runs import (
    Cancelled,
    EpochLog,
    Event,
    Failure,
    FleetProgress,
    MemberLog,
    Queued,
    Run,
    RunState,
    Started,
    Succeeded,
    Warned,
)
from epochd_server.domain.schedules import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    ReduceLROnPlateau,
    StepLR,
    ThresholdMode,
)
from epochd_server.domain.specs import (
    CLASSIFICATION_LOSSES,
    ActivationLayer,
    Clipping,
    DropoutLayer,
    GradientFit,
    Init,
    LayerNormLayer,
    LinearLayer,
    LinearModel,
    Logging,
    Loss,
    LossKind,
    ModuleModel,
    Optimizer,
    OptimizerKind,
    Penalty,
    Precision,
    SequentialModel,
    TrainingSpec,
)
from epochd_server.domain.validation import (
    CalibrationBin,
    ClassEvaluation,
    EarlyStopping,
    Evaluation,
    Folds,
    GivenRows,
    HoldOut,
    Metric,
    Split,
    Validation,
)

texts = st.text(st.characters(codec="utf-8"), max_size=20)
names = st.from_regex(r"[a-z][a-z0-9-]{0,63}", fullmatch=True)
run_ids = st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=26, max_size=26)
times = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
counts = st.integers(0, 2**63 - 1)
sizes = st.integers(1, 2**63 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(0, exclude_min=True, allow_infinity=False)
not_negative = st.floats(0, allow_infinity=False)
fractions = st.floats(0, 1, exclude_max=True)
columns = st.lists(texts, max_size=4).map(tuple)
classes = (
    st.none()
    | st.lists(texts, min_size=1).map(tuple)
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1).map(tuple)
)

layer_functions = sorted(
    name
    for name in ACTIVATION_PARAMETERS
    if f"ACTIVATION_FUNCTION_{name.upper()}" in activation_pb2.ActivationFunction.keys()  # noqa: SIM118
)


@st.composite
def activation_layers(draw: st.DrawFn) -> ActivationLayer:
    function = draw(st.sampled_from(layer_functions))
    given = (
        draw(st.sets(st.sampled_from(sorted(ACTIVATION_PARAMETERS[function]))))
        if ACTIVATION_PARAMETERS[function]
        else set()
    )
    parameters = {name: draw(st.floats(0.5, 5)) for name in sorted(given)}
    if function == "hardtanh" and parameters:
        parameters = {"min_val": draw(st.floats(-5, 0)), "max_val": draw(st.floats(0, 5))}
    approximate = draw(st.sampled_from(["none", "tanh"])) if function == "gelu" else "none"
    return ActivationLayer(function=function, parameters=parameters, approximate=approximate)


epochs = st.integers(1, 10_000_000)
linear_schedules = st.builds(
    LinearLR,
    start_factor=st.floats(0, 1, exclude_min=True),
    end_factor=st.floats(0, 1),
    total_iters=epochs,
)
plateaus = st.builds(
    ReduceLROnPlateau,
    factor=st.floats(0, 1, exclude_min=True, exclude_max=True),
    patience=st.integers(0, 10_000_000),
    threshold=not_negative,
    threshold_mode=st.sampled_from(ThresholdMode),
    cooldown=st.integers(0, 10_000_000),
    min_lr=not_negative,
    eps=not_negative,
)
schedules = (
    st.builds(StepLR, step_size=epochs, gamma=positive)
    | st.builds(ExponentialLR, gamma=positive)
    | st.builds(CosineAnnealingLR, t_max=st.none() | epochs, eta_min=not_negative)
    | linear_schedules
    | plateaus
)
clippings = st.builds(Clipping, max_norm=positive) | st.builds(Clipping, clip_value=positive)


@st.composite
def fits(draw: st.DrawFn) -> GradientFit:
    batch_size = draw(st.none() | sizes)
    optimizer = draw(st.from_type(Optimizer))
    penalised = optimizer.momentum < 1 and optimizer.dampening == 0
    penalty = st.builds(Penalty, l1=not_negative, l2=not_negative)
    return GradientFit(
        optimizer=optimizer,
        schedule=draw(st.none() | schedules),
        warmup=draw(st.none() | linear_schedules),
        clipping=draw(st.none() | clippings),
        penalty=draw(st.none() | penalty if penalised else st.none()),
        epochs=draw(st.integers(1, 10_000_000)),
        batch_size=batch_size,
        shuffle=draw(st.booleans()),
        accumulation_steps=1 if batch_size is None else draw(sizes),
    )


@st.composite
def sgds(draw: st.DrawFn) -> Optimizer:
    nesterov = draw(st.booleans())
    return Optimizer(
        kind=OptimizerKind.SGD,
        lr=draw(positive),
        momentum=draw(positive if nesterov else not_negative),
        dampening=0.0 if nesterov else draw(finite),
        weight_decay=draw(not_negative),
        nesterov=nesterov,
    )


adams = st.builds(
    Optimizer,
    kind=st.sampled_from([OptimizerKind.ADAM, OptimizerKind.ADAMW]),
    lr=positive,
    beta1=fractions,
    beta2=fractions,
    eps=not_negative,
    weight_decay=not_negative,
)
rmsprops = st.builds(
    Optimizer,
    kind=st.just(OptimizerKind.RMSPROP),
    lr=positive,
    alpha=fractions,
    eps=not_negative,
    weight_decay=not_negative,
    momentum=not_negative,
    centered=st.booleans(),
)
penalties = {"l2": not_negative, "penalize_bias": st.booleans(), "automatic": st.booleans()}
iterations = {"max_iterations": st.integers(1, 10_000), "tolerance": st.floats(1e-300, 0.5)}
exact_fits = (
    st.builds(LeastSquaresFit, rank=st.sampled_from(RankRule), **penalties)
    | st.builds(NewtonFit, **penalties, **iterations)
    | st.builds(LbfgsFit, **penalties, **iterations, history=st.integers(1, 100))
)
linears = {"in_features": st.none() | sizes, "out_features": st.none() | sizes, "bias": st.booleans()}
class_weights = st.dictionaries(texts | st.integers(-(2**63), 2**63 - 1), positive, min_size=1, max_size=3)
classifier_losses = {
    "kind": st.sampled_from(sorted(CLASSIFICATION_LOSSES, key=str)),
    "label_smoothing": fractions,
}
losses = (
    st.builds(Loss, kind=st.sampled_from([LossKind.MSE, LossKind.L1, LossKind.GAUSSIAN_NLL]))
    | st.builds(Loss, kind=st.just(LossKind.HUBER), delta=positive)
    | st.builds(Loss, kind=st.just(LossKind.POISSON_NLL), log_input=st.booleans())
    | st.builds(
        Loss, kind=st.just(LossKind.QUANTILE), quantile=st.floats(0, 1, exclude_min=True, exclude_max=True)
    )
    | st.builds(Loss, **classifier_losses, balanced=st.booleans())
    | st.builds(
        Loss, **classifier_losses, class_weights=class_weights.map(lambda weights: tuple(weights.items()))
    )
)
arguments = st.dictionaries(
    st.text(string.ascii_letters, min_size=1, max_size=8),
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts,
    max_size=4,
)
norms = st.builds(
    LayerNormLayer, eps=positive, elementwise_affine=st.just(True), bias=st.booleans()
) | st.builds(LayerNormLayer, eps=positive, elementwise_affine=st.just(False), bias=st.just(False))
layers = (
    st.builds(LinearLayer, **linears) | activation_layers() | st.builds(DropoutLayer, p=fractions) | norms
)
models = (
    st.builds(LinearModel, **linears)
    | st.builds(SequentialModel, layers=st.lists(layers, min_size=1, max_size=5).map(tuple))
    | st.builds(
        ModuleModel, name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), arguments=arguments
    )
)
parameters = st.none() | st.dictionaries(
    texts,
    hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    ),
    min_size=1,
    max_size=3,
)

keys = st.lists(texts | st.integers(-(2**63), 2**63 - 1) | finite, min_size=1, max_size=3).map(tuple)


@st.composite
def sweeps(draw: st.DrawFn, optimizer: Optimizer) -> Sweep:
    def listed(values: st.SearchStrategy) -> tuple:
        return draw(st.lists(values, unique=True, max_size=4).map(tuple))

    moving = optimizer.kind in (OptimizerKind.SGD, OptimizerKind.RMSPROP)
    sweep = Sweep(
        lr=listed(positive),
        weight_decay=listed(not_negative),
        momentum=listed(positive if optimizer.nesterov else not_negative) if moving else (),
        seed=draw(st.lists(counts, unique=True, min_size=1, max_size=4).map(tuple)),
        folds=draw(st.sampled_from([0, 0, 2, 7])),
    )
    assert sweep.size <= MAX_MEMBERS
    return sweep


@st.composite
def validations(draw: st.DrawFn, loss: Loss, folds: int) -> Validation:
    """What a training with this loss, over so many folds, may hold out."""
    of_classes = loss.kind in CLASSIFICATION_LOSSES
    asked = st.sampled_from([metric for metric in Metric if metric.of_classes is of_classes])
    split = draw(st.sampled_from([one for one in Split if of_classes or one is not Split.STRATIFIED]))
    how = {"split": split, "column": draw(texts.filter(bool)) if split in (Split.TIME, Split.GROUP) else None}
    rows: Folds | HoldOut | GivenRows = Folds(count=folds, **how)
    if not folds:
        part = st.floats(0, 1, exclude_min=True, exclude_max=True)
        digests = st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)
        rows = draw(
            part.map(lambda one: HoldOut(fraction=one, **how)) | st.builds(GivenRows, dataset=digests)
        )
    stopping = st.builds(
        EarlyStopping,
        metric=st.none() | asked,
        patience=sizes,
        min_delta=not_negative,
        restore_best=st.booleans(),
        every=sizes,
    )
    return Validation(
        rows=rows,
        metrics=draw(st.lists(asked, unique=True, max_size=3).map(tuple)),
        early_stopping=draw(st.none() | stopping),
    )


measured = st.lists(st.tuples(st.sampled_from(Metric), finite), max_size=3).map(tuple)


@st.composite
def evaluations(draw: st.DrawFn) -> Evaluation:
    """Evaluations of models, and of sweeps over folds."""
    metrics, classes = draw(measured), draw(st.integers(0, 3))
    row = st.tuples(*[finite] * classes)
    is_sweep = draw(st.booleans())
    return Evaluation(
        rows=draw(counts),
        loss=draw(finite),
        metrics=metrics,
        best_epoch=draw(st.none() | counts),
        loss_deviation=draw(finite) if is_sweep else None,
        deviations=draw(st.tuples(*[finite] * len(metrics))) if is_sweep else (),
        best=draw(keys) if is_sweep else None,
        classes=draw(
            st.tuples(
                *[st.builds(ClassEvaluation, precision=finite, recall=finite, f1=finite, support=finite)]
                * classes
            )
        ),
        confusion=draw(st.tuples(*[row] * classes)) if classes else (),
        calibration=draw(
            st.lists(
                st.builds(CalibrationBin, confidence=finite, accuracy=finite, weight=finite), max_size=2
            ).map(tuple)
        ),
    )


@st.composite
def specs(draw: st.DrawFn) -> TrainingSpec:
    """Specs of single models and fleets; a sweep's key columns are the swept names."""
    fit = draw(fits() | exact_fits)
    sweep = draw(st.none() | sweeps(fit.optimizer)) if isinstance(fit, GradientFit) else None
    loss, folds = draw(losses), 0 if sweep is None else sweep.folds
    held_out = validations(loss, folds)
    return TrainingSpec(
        model=draw(models),
        loss=loss,
        fit=fit,
        init=draw(st.sampled_from(Init)),
        precision=draw(st.sampled_from(Precision)),
        seed=draw(counts),
        logging=Logging(
            every=draw(sizes),
            parameters=draw(st.booleans()),
            members=draw(st.lists(keys, unique=True, max_size=3).map(tuple)),
        ),
        key_columns=draw(columns) if sweep is None else sweep.names,
        sweep=sweep,
        validation=draw(held_out if folds else st.none() | held_out),
    )


st.register_type_strategy(Sweep, st.from_type(Optimizer).flatmap(sweeps))
st.register_type_strategy(Optimizer, sgds() | adams | rmsprops)
st.register_type_strategy(GradientFit, fits())
st.register_type_strategy(TrainingSpec, specs())
_resolved = {
    # Messages of started runs hold no sweep, only its names.
    "spec": specs().map(lambda spec: replace(spec, sweep=None)),
    "parameters": counts,
    "rows": counts,
    "feature_columns": columns,
    "target_columns": columns,
    "classes": classes,
    "members": counts,
}


def _with_key_columns(value: Started | VersionCard) -> Started | VersionCard:
    return replace(value, key_columns=value.spec.key_columns)


epoch_logs = st.builds(
    EpochLog, epoch=counts, loss=st.floats(), lr=finite, rows_per_second=finite, parameters=parameters
) | st.builds(EpochLog, epoch=counts, loss=finite, lr=finite, validation_loss=finite, metrics=measured)
failures = st.builds(Failure, reason=texts, message=texts, hint=texts, epoch=st.none() | counts)
bodies = (
    st.builds(Queued, run_id=run_ids, model=names)
    | st.builds(Started, **_resolved, device=texts).map(_with_key_columns)
    | epoch_logs
    | st.builds(
        FleetProgress,
        members_done=counts,
        members_failed=counts,
        members_total=counts,
        loss_quantiles=st.none() | st.tuples(*[finite] * 5),
        worst=st.lists(st.tuples(keys, finite), max_size=3).map(tuple),
        eta_seconds=finite,
        elapsed_seconds=finite,
        validation_quantiles=st.none() | st.tuples(*[finite] * 5),
    )
    | st.builds(MemberLog, key=keys, log=epoch_logs)
    | st.builds(Warned, reason=texts, message=texts)
    | st.builds(
        Succeeded,
        model=names,
        version=st.integers(1, 999_999_999),
        epochs=counts,
        final_loss=finite,
        training_seconds=finite,
        members=counts,
        failed_members=counts,
        evaluation=st.none() | evaluations(),
    )
    | failures
    | st.builds(Cancelled, epochs=counts)
)
st.register_type_strategy(Event, st.builds(Event, sequence=counts, time=times, body=bodies))
st.register_type_strategy(
    VersionCard,
    st.builds(
        VersionCard,
        run_id=run_ids,
        **(_resolved | {"spec": specs()}),
        origin=st.none() | st.builds(Origin, model=names, version=st.integers(1, 999_999_999), key=keys),
        epochs=counts,
        final_loss=finite,
        failed_members=counts,
        evaluation=st.none() | evaluations(),
    ).map(_with_key_columns),
)
st.register_type_strategy(
    ModelVersion,
    st.builds(
        ModelVersion,
        model=names,
        version=st.integers(1, 999_999_999),
        create_time=times,
        card=st.from_type(VersionCard),
    ),
)
st.register_type_strategy(
    Run,
    st.builds(
        Run,
        run_id=run_ids,
        state=st.sampled_from(RunState),
        model=names,
        spec=st.from_type(TrainingSpec),
        create_time=times,
        start_time=st.none() | times,
        end_time=st.none() | times,
        version=st.none() | st.integers(1, 999_999_999),
        failure=st.none() | failures,
        latest_log=st.none() | epoch_logs,
        latest_sequence=counts,
    ),
)
