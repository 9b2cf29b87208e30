"""Registered modules that are plain networks: found by symbolic tracing, trained by the engine's own programs.

Many registered modules are what a ``Sequential`` spec could say, such as the tutorials' ``LinearRegressionModel``
with its one ``nn.Linear``. Tracing ``forward`` with torch.fx shows that: a chain of distinct linear layers and
activations from the input to the output, and nothing else. Such a module trains hundreds of times faster, with the
same formulas; its ``forward`` is then called by the tracer only. All others are called for every batch: modules with
hooks, whose calls somebody watches; whose attributes a call changes; that print; with buffers, dropout, frozen or
shared parameters.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from epochd_server.domain.layers import ACTIVATION_PARAMETERS
from epochd_server.engine.chain import Affine, Chain, Elementwise, Slot, Step
from epochd_server.engine.inspection import module_slots

_MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.SELU: "selu",
    nn.Softsign: "softsign",
    nn.Identity: "identity",
    nn.LeakyReLU: "leaky_relu",
    nn.ELU: "elu",
    nn.Softplus: "softplus",
}
_FUNCTIONS: dict[Any, str] = {
    torch.relu: "relu",
    F.relu: "relu",
    torch.tanh: "tanh",
    F.tanh: "tanh",
    torch.sigmoid: "sigmoid",
    F.sigmoid: "sigmoid",
    F.silu: "silu",
    F.mish: "mish",
}
_METHODS = {"relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid"}


class _NotAChain(Exception):
    pass


def chain_of_module(module: nn.Module) -> Chain | None:
    """The chain that a module's ``forward`` is, or None where it is anything else.

    Args:
        module: Fresh from its constructor; is not changed.
    """
    in_features = next((int(part.in_features) for part in module.modules() if type(part) is nn.Linear), None)
    if in_features is None or is_watched(module) or any(True for _ in module.buffers()):
        return None
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    slots = {slot.name: slot for slot in module_slots(module)}
    frozen = any(not parameter.requires_grad for parameter in module.parameters())
    if frozen or len(names) != len(slots):
        return None
    graph = _trace(module)
    if graph is None:
        return None
    try:
        steps = list(_steps(module, graph, slots, in_features))
    except _NotAChain:
        return None
    used = [slot for step in steps if isinstance(step, Affine) for slot in (step.weight, step.bias) if slot]
    if sorted(slot.name for slot in used) != sorted(slots):
        return None
    last = steps[-1]
    width = last.out_features if isinstance(last, Affine) else last.width
    return Chain(tuple(steps), tuple(slots.values()), in_features, width)


def is_watched(module: nn.Module) -> bool:
    """Whether any hook is registered on the module, a part of it, or on all modules, or calls are overridden."""
    tables: list[Any] = [getattr(nn.modules.module, name) for name in _GLOBAL_HOOKS]
    tables += [parameter._backward_hooks for parameter in module.parameters()]  # noqa: SLF001 - no public way
    for part in module.modules():
        tables += [value for name, value in vars(part).items() if name.endswith("_hooks")]
        tables.append(type(part).__call__ is not nn.Module.__call__)
    return any(tables)


_GLOBAL_HOOKS = [name for name in vars(nn.modules.module) if name.startswith("_global_") and "hooks" in name]


def _trace(module: nn.Module) -> fx.Graph | None:
    """The graph of one symbolic call; None where it cannot be traced or did anything that can be seen."""
    twin = copy.deepcopy(module)
    before, printed = _state(twin), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            graph = fx.Tracer().trace(twin)
    except Exception:
        return None
    return graph if not printed.getvalue() and _state(twin) == before else None


def _state(module: nn.Module) -> list[str]:
    """The plain attributes of a module and its parts, as text."""
    return [
        repr([(name, value) for name, value in vars(part).items() if name not in ("_parameters", "_modules")])
        for part in module.modules()
    ]


def _steps(module: nn.Module, graph: fx.Graph, slots: dict[str, Slot], in_features: int) -> Iterator[Step]:
    previous: fx.Node | None = None
    width = in_features
    for node in graph.nodes:
        if node.op == "placeholder" and previous is None:
            previous = node
            continue
        if node.op == "output":
            if node.args != (previous,):
                raise _NotAChain
            return
        if node.args[:1] != (previous,) or (node.op != "call_module" and (node.args[1:] or node.kwargs)):
            raise _NotAChain
        step = _step(module, node, slots, width)
        width = step.out_features if isinstance(step, Affine) else width
        yield step
        previous = node


def _step(module: nn.Module, node: fx.Node, slots: dict[str, Slot], width: int) -> Step:
    if node.op == "call_function" and node.target in _FUNCTIONS:
        return Elementwise(_FUNCTIONS[node.target], (), width)
    if node.op == "call_method" and node.target in _METHODS:
        return Elementwise(_METHODS[str(node.target)], (), width)
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        raise _NotAChain
    layer = module.get_submodule(str(node.target))
    if type(layer) is nn.Linear and layer.in_features == width:
        bias = slots[f"{node.target}.bias"] if layer.bias is not None else None
        return Affine(slots[f"{node.target}.weight"], bias)
    function = _MODULES.get(type(layer))
    if function is None:
        raise _NotAChain
    arguments = tuple(float(getattr(layer, name)) for name in ACTIVATION_PARAMETERS[function])
    return Elementwise(function, arguments, width)
