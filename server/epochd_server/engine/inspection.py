"""What a model will look like, without training it: parameter names, shapes, counts and output sizes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import nn

from epochd_server.domain.errors import EpochdError, FieldViolation, InvalidInput
from epochd_server.domain.specs import LinearModel, Model, ModuleModel, SequentialModel
from epochd_server.engine.chain import Slot, chain_of, total_size
from epochd_server.engine.modules import ModuleRegistry

_PROBE_ROWS = 2


@dataclass(frozen=True, slots=True)
class Shapes:
    """The parameters of a model."""

    parameters: tuple[Slot, ...]
    """Names and shapes, in PyTorch's order; for registered modules buffers of numbers too, behind the rest."""

    @property
    def count(self) -> int:
        """Numbers in all parameters."""
        return total_size(self.parameters)


def parameter_shapes(model: Model, *, modules: ModuleRegistry | None = None) -> Shapes:
    """Names and shapes of a model's parameters; allocates none of them where that can be avoided.

    Args:
        model: With resolved sizes.
        modules: Needed for registered modules.

    Raises:
        EpochdError: MODULE_NOT_FOUND, or the module cannot be constructed (InvalidInput).
        ValueError: A size is not resolved.
    """
    if isinstance(model, ModuleModel):
        return Shapes(module_slots(construct(model, modules, on_meta=True)))
    return Shapes(chain_of(model, in_features_of(model)).slots)


def output_size(model: Model, in_features: int, *, modules: ModuleRegistry | None = None) -> int:
    """The number of outputs for a row.

    Args:
        model: With resolved sizes.
        in_features: Width of the rows.
        modules: Needed for registered modules.

    Raises:
        EpochdError: MODULE_NOT_FOUND.
        InvalidInput: A registered module does not take rows of that width or gives no matrix.
        ValueError: A size is not resolved, or layers do not fit.
    """
    if not isinstance(model, ModuleModel):
        return chain_of(model, in_features).out_features
    outputs = _probe(construct(model, modules, on_meta=True), in_features, "meta")
    if outputs is None:  # not every operation has a meta implementation
        outputs = _probe(construct(model, modules), in_features, "cpu")
    if outputs is None:
        problem = f"{model.name} does not take rows of {in_features} features"
    elif outputs.dim() not in (1, 2) or len(outputs) != _PROBE_ROWS:
        problem = f"{model.name} must give [rows, outputs], gives {[*outputs.shape]} for {_PROBE_ROWS} rows"
    else:
        return 1 if outputs.dim() == 1 else int(outputs.shape[1])
    raise InvalidInput([FieldViolation("model.module", problem)])


def in_features_of(model: LinearModel | SequentialModel) -> int:
    """The width of the rows that a resolved model takes.

    Raises:
        ValueError: It is not resolved.
    """
    layers = (model,) if isinstance(model, LinearModel) else model.layers
    for layer in layers:
        size = getattr(layer, "in_features", None)
        if size is not None:
            return int(size)
    raise ValueError("in_features is not resolved")


def construct(model: ModuleModel, modules: ModuleRegistry | None, *, on_meta: bool = False) -> nn.Module:
    """Constructs a registered module, on the meta device (no memory) where it allows that."""
    registry = modules or ModuleRegistry()
    if on_meta:
        # A constructor that looks at values cannot run there; one that is wrong fails below once more.
        with contextlib.suppress(EpochdError, NotImplementedError), torch.device("meta"):
            return registry.instantiate(model.name, model.arguments)
    return registry.instantiate(model.name, model.arguments)


def module_slots(module: nn.Module) -> tuple[Slot, ...]:
    """Trained parameters, then frozen ones and floating-point buffers, of a module."""
    slots: list[Slot] = []
    buffers = [(name, value) for name, value in module.named_buffers() if value.is_floating_point()]
    parameters = sorted(module.named_parameters(), key=lambda item: not item[1].requires_grad)
    for name, value in [*parameters, *buffers]:
        slots.append(Slot(name, tuple(value.shape), slots[-1].end if slots else 0))
    return tuple(slots)


def _probe(module: nn.Module, in_features: int, device: str) -> torch.Tensor | None:
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    try:
        with torch.no_grad():
            outputs = module.eval()(torch.zeros(_PROBE_ROWS, in_features, dtype=dtype, device=device))
    except BaseException:  # the module's own, whatever it is: nothing is cancelled within a call
        return None
    return outputs if isinstance(outputs, torch.Tensor) else None
