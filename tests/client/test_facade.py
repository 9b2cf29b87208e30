"""What ``import epochd`` gives and what it needs."""

from __future__ import annotations

import doctest
import importlib
import importlib.metadata
import inspect
import pkgutil
import subprocess
import sys
import types

import pytest
from google.protobuf import symbol_database

import epochd
from epochd._core import methods
from epochd._core.effects import Method

BLOCKED = """
import sys
ALLOWED = set(sys.stdlib_module_names) | {"epochd", "grpc", "numpy", "google", "typing_extensions"}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import epochd
epochd.Sequential(epochd.Linear(64), "relu", epochd.Linear(1))
foreign = {name.partition(".")[0] for name, module in sys.modules.items() if module} - ALLOWED
print(sorted(name for name in foreign if not name.startswith("_")))
heavy = {"epochd.cli", "epochd_server", "google.rpc"} & set(sys.modules)
print(sorted(heavy))
"""


def test_importing_needs_grpc_protobuf_and_numpy_only():
    done = subprocess.run([sys.executable, "-I", "-c", BLOCKED], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    foreign, heavy = done.stdout.splitlines()
    assert foreign in ("[]", "['cython_runtime']")
    assert heavy == "[]"


@pytest.mark.parametrize("module", [epochd, epochd.aio], ids=["epochd", "epochd.aio"])
def test_all_is_sorted_and_names_everything_public(module):
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    listed = [name for name in module.__all__ if not isinstance(getattr(module, name), types.ModuleType)]
    assert set(listed) - {"__version__"} == public
    assert list(module.__all__) == sorted(module.__all__, key=_ruffs_order)


def _ruffs_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest: the order that the formatter keeps."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", epochd.aio.__all__)
def test_the_asyncio_client_has_the_same_names_and_arguments(name):
    blocking, asynchronous = getattr(epochd, name), getattr(epochd.aio, name)
    if not inspect.isclass(blocking):
        assert inspect.signature(blocking).parameters == inspect.signature(asynchronous).parameters
        return
    public = {member for member in dir(blocking) if not member.startswith("_")}
    assert {member for member in dir(asynchronous) if not member.startswith("_")} == public
    for member in public:
        ours, theirs = getattr(blocking, member), getattr(asynchronous, member)
        if inspect.isfunction(ours):
            assert inspect.signature(ours).parameters == inspect.signature(theirs).parameters, member


def test_every_public_name_is_documented():
    for module in (epochd, epochd.aio, epochd.events, epochd.errors, epochd.losses):
        assert module.__doc__
    for name in epochd.__all__:
        value = getattr(epochd, name)
        if inspect.isclass(value):
            assert value.__doc__, name
            for member, method in inspect.getmembers(value, inspect.isfunction):
                if not member.startswith("_") and method.__module__.startswith("epochd"):
                    assert method.__doc__, f"{name}.{member}"


def test_the_arguments_of_train_are_in_its_help():
    signature = inspect.signature(epochd.Client.train)
    assert list(signature.parameters)[:4] == ["self", "X", "y", "model"]
    assert signature.parameters["loss"].default == "mse"
    for parameter in list(signature.parameters)[1:]:
        assert f"    {parameter}: " in epochd.Client.train.__doc__


def test_the_version_is_the_distributions():
    assert epochd.__version__ == importlib.metadata.version("epochd")


def modules() -> list[str]:
    walked = pkgutil.walk_packages(epochd.__path__, "epochd.")
    return [m.name for m in walked if not m.name.startswith(("epochd.v1", "epochd.cli"))]


@pytest.mark.parametrize("name", ["epochd", *modules()])
def test_examples_in_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name), extraglobs={"epochd": epochd})
    assert result.failed == 0


def test_the_table_of_methods_is_that_of_the_protos():
    pool = symbol_database.Default().pool
    table = [value for name, value in vars(methods).items() if isinstance(value, Method) and name != "HEALTH"]
    for method in table:
        service, _, name = method.path[1:].partition("/")
        found = pool.FindServiceByName(service).methods_by_name[name]
        assert found.output_type == method.decode(b"").DESCRIPTOR
        assert method.encode.__objclass__ is not None
        request = found.input_type._concrete_class
        assert method.encode(request()) == b""
        sides = (
            "stream" if found.client_streaming else "unary",
            "stream" if found.server_streaming else "unary",
        )
        assert method.kind == "_".join(sides)
    assert len({method.path for method in table}) == len(table) == 39
