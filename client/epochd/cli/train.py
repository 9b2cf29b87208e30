"""`epochd train`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import typer

import epochd
from epochd.cli import keys, preprocessing, specs, tables
from epochd.cli import validation as held
from epochd.cli.following import follow
from epochd.cli.registry import labels_of
from epochd.cli.session import of
from epochd.limits import Limits
from epochd.schedules import LinearLR

_DATA = "Data"
_MODEL = "Model"
_FIT = "Fit"
_FLEET = "Many models at once"
_EPOCHS = 100
_VALIDATION = "Validation"
_LIMITS = "Limits"


def train(
    context: typer.Context,
    data: Annotated[str, typer.Argument(metavar="DATA.csv", help="CSV with a header; - for standard input.")],
    target: Annotated[
        str,
        typer.Option(metavar="COLUMNS", help="Column to predict; several by commas.", rich_help_panel=_DATA),
    ],
    features: Annotated[
        str,
        typer.Option(
            metavar="COLUMNS", help="Columns to learn from. Default: all others.", rich_help_panel=_DATA
        ),
    ] = "",
    preprocess: Annotated[
        list[str] | None,
        typer.Option(
            metavar="auto|COLUMNS=STEPS",
            help="How columns become features: auto, or age=impute:fill=median+standardize; may be repeated.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    group_by: Annotated[
        str,
        typer.Option(
            metavar="COLUMNS",
            help="A model for each value of these columns: a fleet.",
            rich_help_panel=_FLEET,
        ),
    ] = "",
    weight: Annotated[
        str, typer.Option(metavar="COLUMN", help="Weights of the rows, >= 0.", rich_help_panel=_DATA)
    ] = "",
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUES",
            help="A model for each of lr=0.1,0.01; also weight_decay, momentum, seed; may be repeated.",
            rich_help_panel=_FLEET,
        ),
    ] = None,
    log_member: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Log the epochs of this member, too; may be repeated.",
            rich_help_panel=_FLEET,
        ),
    ] = None,
    validation: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="Rows held out: a fraction such as 0.2, of the latest (0.2:time=day), in groups (0.2:group=town), "
            "or a CSV file.",
            rich_help_panel=_VALIDATION,
        ),
    ] = "",
    metrics: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Measured on them beside the loss: accuracy,roc_auc and the like.",
            rich_help_panel=_VALIDATION,
        ),
    ] = "",
    patience: Annotated[
        int | None,
        typer.Option(
            metavar="EPOCHS",
            help="Stop after so many epochs without a smaller loss on them, and keep the best.",
            rich_help_panel=_VALIDATION,
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="COUNT",
            help="Cross-validation: a model without each of so many folds, measured on it.",
            rich_help_panel=_VALIDATION,
        ),
    ] = None,
    name: Annotated[
        str,
        typer.Option(
            help="Model that gets a new version. Default: named after the run.", rich_help_panel=_MODEL
        ),
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="linear, or layers: widths and activations, out for a last one as wide as needed: 64,relu,out.",
            rich_help_panel=_MODEL,
        ),
    ] = "linear",
    module: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="A module registered at the server, instead.", rich_help_panel=_MODEL
        ),
    ] = "",
    arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Argument of the module; may be repeated.", rich_help_panel=_MODEL
        ),
    ] = None,
    init: Annotated[
        str,
        typer.Option(metavar="INIT", help="How parameters start: default or zeros.", rich_help_panel=_MODEL),
    ] = "default",
    dtype: Annotated[
        str,
        typer.Option(
            metavar="DTYPE",
            help="float32 or float64. Default: float32; with --fit float64.",
            rich_help_panel=_MODEL,
        ),
    ] = "",
    loss: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="mse, l1, huber[:delta=1], bce_with_logits or cross_entropy.",
            rich_help_panel=_FIT,
        ),
    ] = "mse",
    fit: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="Go to the optimum itself instead: auto, least_squares[:l2=1:rank=minimum_norm], newton[:l2=1] or "
            "lbfgs. No optimizer and epochs then; float64 unless --dtype is given.",
            rich_help_panel=_FIT,
        ),
    ] = "",
    optimizer: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="sgd, adam, adamw or rmsprop, with PyTorch's arguments: sgd:momentum=0.9:nesterov=true.",
            rich_help_panel=_FIT,
        ),
    ] = "sgd",
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate. Default: 0.01 for sgd and rmsprop, 0.001 for adam and adamw.",
            rich_help_panel=_FIT,
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the data. Default: 100.", rich_help_panel=_FIT)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="ROWS", help="Default: all rows at once.", rich_help_panel=_FIT)
    ] = None,
    schedule: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="Change the learning rate: step:step_size=30, exponential:gamma=0.99, cosine, linear or plateau, with "
            "the arguments of PyTorch's schedulers.",
            rich_help_panel=_FIT,
        ),
    ] = "",
    warmup: Annotated[
        int | None,
        typer.Option(
            metavar="EPOCHS", help="Raise the rate linearly from a third at first.", rich_help_panel=_FIT
        ),
    ] = None,
    max_norm: Annotated[
        float | None, typer.Option(help="Clip gradients to this 2-norm.", rich_help_panel=_FIT)
    ] = None,
    clip_value: Annotated[
        float | None, typer.Option(help="Clip gradients' entries to ± this.", rich_help_panel=_FIT)
    ] = None,
    l1: Annotated[
        float, typer.Option(help="Add L1 times the weights' sizes to the loss.", rich_help_panel=_FIT)
    ] = 0,
    l2: Annotated[
        float, typer.Option(help="Add L2 / 2 times the weights' squares to the loss.", rich_help_panel=_FIT)
    ] = 0,
    seed: Annotated[
        int | None, typer.Option(help="Default: drawn by the server, and shown.", rich_help_panel=_FIT)
    ] = None,
    log_every: Annotated[
        int | None,
        typer.Option(metavar="EPOCHS", help="Default: about a hundred logs.", rich_help_panel=_FIT),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Label of the run and its version; repeatable.", rich_help_panel=_MODEL
        ),
    ] = None,
    initial: Annotated[
        str,
        typer.Option(metavar="MODEL", help="Go on from this version's parameters.", rich_help_panel=_MODEL),
    ] = "",
    training_time: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Cancel it after so long in training.", rich_help_panel=_LIMITS),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Cancel it so long from now.", rich_help_panel=_LIMITS),
    ] = None,
    keep_weights: Annotated[
        bool,
        typer.Option(
            "--keep-weights", help="At a limit, make a version of what was reached.", rich_help_panel=_LIMITS
        ),
    ] = False,
    request_id: Annotated[
        str,
        typer.Option(metavar="ID", help="Train once: again with this ID, follow the run that it made."),
    ] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Print the run's name and leave.")] = False,
) -> None:
    r"""Train a model on a CSV file, and watch it.

    The run belongs to the server: it goes on when the connection is lost. Ctrl-C asks it to cancel.

    ```
    epochd train wine.csv --target flavanoids --features hue,total_phenols
    epochd train wine.csv --target cultivar --loss cross_entropy \
        --model 32,relu,out --optimizer adam --batch-size 32 --seed 1
    epochd train data.csv --target y --module Net --arg width=64
    epochd train data.csv --target y --json | jq .loss
    epochd train people.csv --target income --preprocess auto --preprocess city=one_hot:unseen=other
    epochd train sales.csv --target sales --group-by store --name sales
    epochd train data.csv --target y --sweep lr=0.1,0.01 --sweep seed=1,2,3
    epochd train sales.csv --target sales --group-by store --fit least_squares --name exact
    epochd train wine.csv --target cultivar --loss cross_entropy --optimizer adam --epochs 500 \
        --validation 0.2 --metrics accuracy,roc_auc --patience 20
    epochd train data.csv --target y --folds 5 --sweep lr=0.1,0.01
    ```
    """
    session = of(context)
    table = tables.read(data)
    held_out = held.arguments(validation, metrics, patience, folds, keys.sweep(sweep or ()))
    arguments: dict[str, Any] = {
        **held_out,
        "target": _names(target),
        "weight": weight or None,
        **_many(table, _names(group_by), held_out["sweep"], log_member or ()),
        "features": _names(features) or None,
        "preprocess": preprocessing.preprocess(preprocess or ()),
        "model": specs.module(module, arg or [], init) if module else specs.model(model, init),
        "loss": specs.loss(loss),
        **_how(fit, optimizer, lr, epochs, batch_size),
        "schedule": specs.schedule(schedule),
        "warmup": None if warmup is None else LinearLR(total_iters=warmup),
        "max_norm": max_norm,
        "clip_value": clip_value,
        "l1": l1,
        "l2": l2,
        "name": name or None,
        "labels": labels_of(label or []),
        "initial": initial or None,
        "limits": _limits(deadline, training_time, keep_weights),
        "dtype": dtype or None,
        "seed": seed,
        "request_id": request_id or None,
        "log_every": log_every,
    }
    with session.client() as client:
        run: epochd.Run = client.train(table, **arguments)
        if detach:
            session.output.record({"run": run.name}, {"run": run.name})
        else:
            follow(run, session.output, cancels=True)


def _limits(deadline: float | None, training_time: float | None, keep_weights: bool) -> Limits | None:
    """When the server cancels the run by itself."""
    if deadline is None and training_time is None:
        if keep_weights:
            raise typer.BadParameter(
                "is for --deadline and --training-time; for Ctrl-C use: epochd runs cancel --keep-weights",
                param_hint="--keep-weights",
            )
        return None
    until = None if deadline is None else timedelta(seconds=deadline)
    return Limits(deadline=until, training_time=training_time, keep_weights=keep_weights)


def _many(
    table: tables.Table, groups: list[str], sweep: epochd.Sweep | None, members: Sequence[str]
) -> dict[str, Any]:
    """The arguments of fleets and sweeps."""
    if members and not groups and sweep is None:
        raise typer.BadParameter("is for --group-by and --sweep", param_hint="--log-member")
    logged = [
        keys.of_sweep(key, sweep) if sweep is not None else keys.of_table(key, groups, table)
        for key in members
    ]
    return {"group_by": groups or None, "sweep": sweep, "log_members": logged}


def _how(
    fit: str, optimizer: str, lr: float | None, epochs: int | None, batch_size: int | None
) -> dict[str, Any]:
    """The arguments that say how the model is fitted."""
    if fit:
        if lr is not None or epochs is not None or batch_size is not None:
            raise typer.BadParameter("takes no --lr, --epochs and --batch-size", param_hint="--fit")
        return {"fit": specs.fit(fit)}
    return {
        "optimizer": specs.optimizer(optimizer, lr),
        "epochs": _EPOCHS if epochs is None else epochs,
        "batch_size": batch_size,
    }


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
