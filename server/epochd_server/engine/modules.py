"""The ``nn.Module`` subclasses that the operator of a server allows to be trained."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from torch import nn

from epochd_server.domain.errors import EpochdError, Reason, Violations

ENTRY_POINT_GROUP = "epochd.modules"
"""Installed packages may offer modules: entry points of this group name a Python module or a class."""

_logger = logging.getLogger(__name__)


class ModuleSourceError(Exception):
    """A ``--modules`` source cannot be loaded; the message is one line for the operator."""


class ModuleRegistry:
    """Names of trainable modules and their classes.

    A class is registered under its attribute ``epochd_name`` where it has one, else under its own name.
    """

    def __init__(self) -> None:
        self._classes: dict[str, type[nn.Module]] = {}

    @classmethod
    def load(cls, sources: Iterable[str] = ()) -> ModuleRegistry:
        """Registers what installed packages offer, then what ``sources`` hold.

        Args:
            sources: ``package.module`` or ``path/to/file.py`` each. All public ``nn.Module`` subclasses that are
                defined there are registered.

        Raises:
            ModuleSourceError: A source cannot be imported, holds no module class, or repeats a name.
        """
        registry = cls()
        for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
            registry._load_entry_point(entry_point)
        for source in sources:
            registry._register_all(_import(source), source)
        return registry

    @property
    def names(self) -> tuple[str, ...]:
        """All registered names, sorted."""
        return tuple(sorted(self._classes))

    def register(self, module_class: type[nn.Module], name: str | None = None) -> None:
        """Makes a class trainable under ``name``, by default as the class says.

        Raises:
            ModuleSourceError: Another class has that name.
        """
        name = name or str(getattr(module_class, "epochd_name", module_class.__name__))
        if self._classes.setdefault(name, module_class) is not module_class:
            raise ModuleSourceError(f"two modules are called {name!r}")

    def instantiate(self, name: str, arguments: Mapping[str, bool | int | float | str]) -> nn.Module:
        """Constructs a registered module.

        Raises:
            EpochdError: MODULE_NOT_FOUND.
            InvalidInput: The constructor does not take these arguments.
        """
        module_class = self._classes.get(name)
        if module_class is None:
            known = ", ".join(self.names) or "none"
            message = f"no module is registered as {name!r}; registered: {known}"
            raise EpochdError(Reason.MODULE_NOT_FOUND, message, {"module": name})
        _check_arguments(module_class, name, arguments)
        try:
            return module_class(**arguments)
        except BaseException as error:
            # Neither sys.exit nor a KeyboardInterrupt of its own may end this process. What a constructor says may
            # hold internals of the server; its owner finds it in the log.
            _logger.warning("constructor of module %s failed", name, exc_info=error)
            violations = Violations()
            violations.add("model.module.arguments", f"{name} cannot be constructed with these values")
            violations.raise_if_any()
            raise

    def _load_entry_point(self, entry_point: importlib.metadata.EntryPoint) -> None:
        try:
            loaded = entry_point.load()
        except Exception as error:
            raise ModuleSourceError(f"entry point {entry_point.name}: {error}") from error
        if isinstance(loaded, ModuleType):
            self._register_all(loaded, entry_point.value)
        else:
            self.register(loaded, entry_point.name)

    def _register_all(self, module: ModuleType, source: str) -> None:
        found = [
            value
            for name, value in sorted(vars(module).items())
            if isinstance(value, type)
            and issubclass(value, nn.Module)
            and value.__module__ == module.__name__
            and not name.startswith("_")
        ]
        if not found:
            raise ModuleSourceError(f"{source} defines no nn.Module subclass")
        for module_class in found:
            self.register(module_class)


def _import(source: str) -> ModuleType:
    try:
        if source.endswith(".py"):
            return _import_file(Path(source))
        return importlib.import_module(source)
    except Exception as error:
        raise ModuleSourceError(f"cannot load {source}: {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> ModuleType:
    # The name must be the same in every worker process, and differ from that of any installed package.
    name = f"epochd_modules_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


def _check_arguments(
    module_class: type[nn.Module], name: str, arguments: Mapping[str, bool | int | float | str]
) -> None:
    parameters = inspect.signature(module_class).parameters.values()
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    accepted = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    required = {p.name for p in parameters if p.name in accepted and p.default is p.empty}
    violations = Violations()
    with violations.within("model.module.arguments"):
        for argument in sorted(set(arguments) - accepted) if not open_ended else ():
            listed = ", ".join(sorted(accepted)) or "none"
            violations.add(argument, f"{name} takes no such argument; it takes: {listed}")
        for argument in sorted(required - set(arguments)):
            violations.add(argument, f"{name} needs this argument")
    violations.raise_if_any()
