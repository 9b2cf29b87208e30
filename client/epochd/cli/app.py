"""The command line's root: global options, and the commands."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import epochd
from epochd.cli import compute, datasets, health, models, predict, runs, serve, train
from epochd.cli.output import Output
from epochd.cli.session import DEFAULT_SERVER, Session, of, reported_errors

_GLOBAL_FLAG = "--json"
_GLOBAL_OPTION = "--server"
_HANDED_OVER = ("serve", "admin")


class _Root(TyperGroup):
    """The group of all commands, which turns errors into messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        with reported_errors():
            return super().invoke(ctx)


app = typer.Typer(
    name="epochd",
    cls=_Root,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code."""
    try:
        app(hoisted(arguments), prog_name="epochd")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return 0


def hoisted(arguments: Sequence[str]) -> list[str]:
    """Moves the global options to the front, so that they may stand after the command as well.

    What follows ``--`` or belongs to ``serve`` or ``admin``, which have options of their own, stays where it is.
    """
    front: list[str] = []
    rest: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if word == "--" or (word in _HANDED_OVER and not rest):
            return [*front, *rest, word, *left]
        if word == _GLOBAL_FLAG or word.startswith(_GLOBAL_OPTION + "="):
            front.append(word)
        elif word == _GLOBAL_OPTION and left:
            front += [word, left.pop(0)]
        else:
            rest.append(word)
    return [*front, *rest]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"epochd {epochd.__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    server: Annotated[
        str, typer.Option(metavar="HOST:PORT", envvar="EPOCHD_SERVER", help="Where the server is.")
    ] = DEFAULT_SERVER,
    as_json: Annotated[bool, typer.Option("--json", help="Write results as JSON.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Train, watch and use PyTorch models on an epochd server.

    Start a server, train on a CSV file, and predict:

    ```
    epochd serve
    epochd train wine.csv --target flavanoids --name wine
    epochd predict wine new.csv
    ```

    Both options may also follow the command. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 Ctrl-C.
    """
    context.obj = Session(server=server, output=Output(as_json=as_json))


def version(context: typer.Context) -> None:
    """Show the versions of epochd and of what it stands on."""
    versions = {"epochd": epochd.__version__, "python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in ("grpcio", "protobuf", "numpy")}
    of(context).output.record(versions, versions)


for name, command in (("serve", serve.serve), ("admin", serve.admin)):
    app.command(
        name,
        rich_help_panel="Server",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(command)
app.command("health", rich_help_panel="Server")(health.health)
app.command("version", rich_help_panel="Server")(version)
app.command("train", rich_help_panel="Models")(train.train)
app.command("predict", rich_help_panel="Models")(predict.predict)
app.add_typer(runs.app, name="runs", rich_help_panel="Models")
app.add_typer(models.app, name="models", rich_help_panel="Models")
app.add_typer(datasets.app, name="datasets", rich_help_panel="Models")
app.command("activation", rich_help_panel="Calculate", context_settings={"ignore_unknown_options": True})(
    compute.activation
)
app.command("diff", rich_help_panel="Calculate", context_settings={"ignore_unknown_options": True})(
    compute.diff
)
