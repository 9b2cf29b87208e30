"""Settings: flags, variables, refusals, and the table in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from epochd_server.settings import BadSettings, Settings, flag, load, variable

TABLE = Path(__file__).parent.parent / "docs" / "settings.md"

BY_FLAG_AND_VARIABLE = {
    "listen": ("0.0.0.0:1", "[::1]:2"),
    "data_dir": ("here", "there"),
    "database_url": ("sqlite:///x.db", "postgresql://host/name"),
    "modules": ("a.b", "c.py"),
    "grace": ("1.5", "2.5"),
    "lease": ("7.5", "6.5"),
    "request_memory_bytes": ("67108864", "67108865"),
    "stall_timeout": ("1.5", "2.5"),
    "keepalive": ("1.5", "2.5"),
    "keep_runs": ("1.5", "2.5"),
    "keep_datasets": ("1.5", "2.5"),
    "cohorts": ("off", "on"),
    "cancel_grace": ("1.5", "2.5"),
    "cohort_window": ("0.5", "0.25"),
    "checkpoint_interval": ("0.5", "20.0"),
    "request_retention": ("90.5", "60.0"),
    "log_level": ("debug", "error"),
    "log_format": ("json", "pretty"),
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)


def shown(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    return ",".join(value) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_a_flag_and_a_variable_and_the_flag_wins(name, monkeypatch):
    by_flag, by_variable = BY_FLAG_AND_VARIABLE.get(name, ("7", "6"))
    monkeypatch.setenv(variable(name), by_variable)
    assert shown(load(), name) == by_variable
    assert shown(load([flag(name), by_flag]), name) == by_flag


def test_modules_may_be_repeated_or_separated_by_commas(monkeypatch):
    assert load(["--modules", "a.b", "--modules", "dir/c.py"]).modules == ("a.b", "dir/c.py")
    monkeypatch.setenv("EPOCHD_MODULES", "a.b, dir/c.py,")
    assert load().modules == ("a.b", "dir/c.py")


def test_an_empty_variable_is_an_unset_one(monkeypatch):
    monkeypatch.setenv("EPOCHD_WORKERS", "")
    assert load().workers == load([]).workers >= 1


@pytest.mark.parametrize(
    "address", ["127.0.0.1:50051", "localhost:0", "[::1]:50051", "0.0.0.0:65535", "my-host.example:80"]
)
def test_an_address_is_a_host_and_a_port(address):
    assert load(["--listen", address]).listen == address


@pytest.mark.parametrize("address", ["50051", ":50051", "host", "host:", "host:x", "::1:50051", "host:65536"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(BadSettings, match="must be HOST:PORT"):
        load(["--listen", address])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--workers", "0"], "--workers (or EPOCHD_WORKERS)"),
        (["--grace", "-1"], "--grace (or EPOCHD_GRACE)"),
        (["--grace", "soon"], "--grace (or EPOCHD_GRACE)"),
        (["--grace", "nan"], "--grace (or EPOCHD_GRACE)"),
        (["--log-level", "loud"], "log-level"),
        (["--bogus", "1"], "--bogus"),
        (["stray"], "stray"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_that_names_it(arguments, named):
    with pytest.raises(BadSettings, match=re.escape(named)) as caught:
        load(arguments)
    assert "\n" not in str(caught.value)


def test_all_problems_are_named_at_once():
    with pytest.raises(BadSettings, match=r"--workers.*; --grace|--grace.*; --workers"):
        load(["--workers", "0", "--grace", "x"])


def test_settings_never_change():
    with pytest.raises(ValueError, match="frozen"):
        load().grace = 3.0


def test_help_explains_every_flag_with_its_variable(capsys):
    with pytest.raises(SystemExit) as caught:
        load(["--help"])
    assert caught.value.code == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for name in Settings.model_fields:
        assert flag(name) in text
        assert f"[env: {variable(name)}]" in text


def test_the_documented_table_is_the_settings():
    """docs/settings.md has one row a setting: flag, variable, default, unit and help, as in the code."""
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in TABLE.read_text().splitlines()
        if line.startswith("| `--")
    ]
    assert rows == [documented(name) for name in Settings.model_fields]


def documented(name: str) -> tuple[str, ...]:
    field = Settings.model_fields[name]
    default = "" if field.default in (None, "", ()) else f"`{field.default}`"
    unit = field.json_schema_extra["unit"]
    return (f"`{flag(name)}`", f"`{variable(name)}`", default, unit, field.description)
