"""Every setting of the server: its name, default, unit and help. The one reader of the environment.

A setting ``grace`` is the flag ``--grace`` and the variable ``EPOCHD_GRACE``; a flag beats a variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from epochd_server.data.bucket_roots import BucketRoot, is_bucket

PREFIX: Final = "EPOCHD_"
"""Beginning of every environment variable."""

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:\s]+):([0-9]{1,5})")


class BadSettings(Exception):
    """Settings that cannot be used.

    Args:
        message: What is wrong, in one line.
    """


def _setting(default: Any, text: str, *, unit: str = "", **bounds: Any) -> Any:
    """A field with its help and its unit ("" where it has none)."""
    return Field(default=default, description=text, json_schema_extra={"unit": unit}, **bounds)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Settings(BaseSettings):
    """Trains, watches and serves PyTorch models over gRPC. Stop it with Ctrl-C or SIGTERM."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX, env_ignore_empty=True)

    listen: str = _setting(
        "127.0.0.1:50051", "Where to listen, HOST:PORT; an IPv6 host in brackets, port 0 for any free port."
    )
    data_dir: Path = _setting(
        Path(".epochd"),
        "Folder of all state; made where it is missing. One live server a folder, or several on one PostgreSQL.",
    )
    database_url: str = _setting(
        "",
        "Database of runs and models: postgresql://USER:PASSWORD@HOST/NAME, or sqlite:///PATH. "
        "Unset: SQLite in the data folder.",
    )
    artifacts: str = _setting(
        "",
        "Store of large weights and of datasets: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, or a "
        "folder. Credentials come from the environment, as the cloud's own tools read them. Unset: in the data folder.",
    )
    artifact_cache_bytes: int = _setting(
        16 * 2**30,
        "Disk for local copies, in the data folder, of what is read of a bucket.",
        unit="bytes",
        ge=0,
    )
    workers: int = _setting(
        None, "Worker processes, each of which trains on one core. Unset: the cores.", ge=1, le=1024
    )
    modules: Annotated[tuple[str, ...], NoDecode] = _setting(
        (),
        "Module or file whose nn.Module classes may be trained by name: package.module or path/to/file.py. "
        "The flag may be repeated; in the variable they are separated by commas.",
    )
    data_root: Annotated[tuple[str, ...], NoDecode] = _setting(
        (),
        "Folder, or bucket and prefix (s3://BUCKET/PREFIX, gs://, az://), below which Datasets.ImportDataset may read "
        "files; none: nowhere. The flag may be repeated; in the variable roots are separated by commas.",
    )
    grace: float = _setting(
        20.0,
        "How long a stopping server lets running work go on before it leaves it for the next start.",
        unit="seconds",
        ge=0,
        le=86_400,
    )
    lease: float = _setting(
        15.0,
        "How long a server that shares its database with others may be silent before they take over its runs.",
        unit="seconds",
        ge=1,
        le=3_600,
    )
    cancel_grace: float = _setting(
        10.0,
        "How long a cancelled run may take to come to the end of its epoch. Then its worker process is ended; runs "
        "that it trained besides go on in another.",
        unit="seconds",
        gt=0,
        le=86_400,
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting("info", "Least severe log line shown.")
    log_format: Literal["auto", "pretty", "json"] = _setting(
        "auto", "How logs look on standard error. auto: pretty on a terminal, JSON otherwise."
    )
    max_queued_runs: int = _setting(
        10_000, "Runs that may wait for a worker; further ones are refused.", unit="runs", ge=1
    )
    max_queued_runs_per_client: int = _setting(
        5_000,
        "Runs of one client that may wait for a worker. A client is who it says in the metadata epochd-client, or "
        "else the host it calls from.",
        unit="runs",
        ge=1,
    )
    request_memory_bytes: int = _setting(
        2**30,
        "Memory for the requests in work: what arrives, what is decoded of it, what is stored. Trainings, streams and "
        "everything else have shares of it; one client has at most half of each. Requests that find no room wait up "
        "to two seconds and are then refused.",
        unit="bytes",
        ge=64 * 2**20,
    )
    stall_timeout: float = _setting(
        60.0,
        "How long a call may stand still because its client sends no more of a request or takes no more of an answer; "
        "it is then ended, and a watch can be resumed. A watch that has nothing to send does not stand still.",
        unit="seconds",
        gt=0,
        le=86_400,
    )
    keepalive: float = _setting(
        30.0,
        "How often a connection is asked for a sign of life while nothing comes from it; without an answer within a "
        "third of that it is closed, and its calls with it.",
        unit="seconds",
        ge=1,
        le=86_400,
    )
    cohorts: Literal["on", "off"] = _setting(
        "on", "Whether compatible runs that wait at the same time train together. off: each run by itself."
    )
    cohort_window: float = _setting(
        0.010,
        "How long a run waits for others to train with, while the workers are busy or several runs wait. "
        "A lone run on an idle server never waits.",
        unit="seconds",
        ge=0,
        le=60,
    )
    checkpoint_interval: float = _setting(
        10.0,
        "How often it is kept where a run in training is; after a crash it goes on from there. Less often where "
        "that would take more than a hundredth of the time.",
        unit="seconds",
        ge=0.1,
        le=86_400,
    )
    max_parameters: int = _setting(100_000_000, "Largest model that may be trained.", unit="parameters", ge=1)
    max_exact_bytes: int = _setting(
        8 * 2**30,
        "Memory, beside the rows, that the exact fit of one model may take: about 20 bytes for each pair of "
        "coefficients.",
        unit="bytes",
        ge=1,
    )
    max_exact_operations: int = _setting(
        10**15,
        "Work that the exact fit of one model may take. The default is about a day of one core.",
        unit="multiplications",
        ge=1,
    )
    predict_cache_bytes: int = _setting(
        512 * 2**20, "Memory for the models that predicted last.", unit="bytes", ge=0
    )
    max_stream_bytes: int = _setting(
        4 * 2**30,
        "Largest tensor of ActivationTransformStream, input or output. It is kept in a temporary file "
        "where the functions do not work along the last axis.",
        unit="bytes",
        ge=1,
    )
    max_dataset_bytes: int = _setting(16 * 2**30, "Largest dataset that may be uploaded.", unit="bytes", ge=1)

    request_retention: float = _setting(
        86_400.0,
        "How long a request_id is remembered: so long a repeated request changes nothing, and is answered as the first "
        "was.",
        unit="seconds",
        ge=60,
        le=31_536_000,
    )
    keep_runs: float = _setting(
        0.0,
        "How long runs and their logs are kept after their end, before `epochd admin gc` deletes them. 0: for ever.",
        unit="days",
        ge=0,
        le=36_500,
    )
    keep_datasets: float = _setting(
        0.0,
        "How long datasets are kept after they were uploaded and last trained on, before `epochd admin gc` deletes "
        "them. 0: for ever.",
        unit="days",
        ge=0,
        le=36_500,
    )

    @field_validator("workers", mode="before")
    @classmethod
    def _all_cores(cls, value: object) -> object:
        return _cores() if value is None else value

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        match = _ADDRESS.fullmatch(value)
        if match is None or int(match[2]) > 65_535:
            raise ValueError("must be HOST:PORT, such as 127.0.0.1:50051")
        return value

    @field_validator("data_root")
    @classmethod
    def _are_roots(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for root in filter(is_bucket, value):
            BucketRoot(root)
        return value

    @field_validator("modules", "data_root", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, (list, tuple)):
            return given
        return tuple(name.strip() for text in given for name in str(text).split(",") if name.strip())


def load(arguments: Sequence[str] = (), *, program: str = "epochd serve") -> Settings:
    """The settings by flags, environment and defaults, in this order.

    Args:
        arguments: The command line after the program's name.
        program: How the program is called, for ``--help``.

    Raises:
        BadSettings: A flag is unknown or a value unusable.
        SystemExit: ``--help`` was asked for, and is printed.
    """
    options: dict[str, Any] = {
        "_cli_parse_args": list(arguments),
        "_cli_prog_name": program,
        "_cli_kebab_case": True,
        "_cli_implicit_flags": True,
        "_cli_exit_on_error": False,
        "_cli_hide_none_type": True,
        "_cli_avoid_json": True,
        "_cli_show_env_vars": True,
    }
    try:
        return Settings(**options)
    except ValidationError as error:
        problems = "; ".join(_problem(details) for details in error.errors())
        raise BadSettings(problems) from None
    except SettingsError as error:
        raise BadSettings(str(error).removeprefix("error parsing CLI: ")) from None


def flag(name: str) -> str:
    """The flag of a setting: ``max_parameters`` → ``--max-parameters``."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment variable of a setting: ``max_parameters`` → ``EPOCHD_MAX_PARAMETERS``."""
    return PREFIX + name.upper()


def _problem(details: Any) -> str:
    name = str(details["loc"][0]) if details["loc"] else ""
    text = str(details["msg"]).removeprefix("Value error, ")
    return f"{flag(name)} (or {variable(name)}): {text}, is {details['input']!r}"
