"""A registered module as a function of flat vectors: its outputs, and the gradient of a loss."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from epochd_server.engine.chain import Slot, total_size
from epochd_server.engine.checkpointing import Columns
from epochd_server.engine.losses import row_losses
from epochd_server.engine.rows import Rows
from epochd_server.engine.task import CohortTask, Floats, Integers
from epochd_server.engine.tracing import is_watched


class ModuleProgram:
    """The gradient of a module's loss, for one member or for a stack of them.

    Args:
        task: What is trained.
        module: Is called; its own parameters do not matter.
        slots: Its parameters and buffers.
    """

    def __init__(self, task: CohortTask, module: nn.Module, slots: tuple[Slot, ...]) -> None:
        self.task = task
        self.slots = slots
        self._module = module
        trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        self.trained = total_size(slot for slot in slots if slot.name in trained)
        """How many of the flat vector's numbers are trained; they come first."""
        self._stacked = vmap(self._outputs, randomness="error")

    def alone(self) -> ModuleProgram:
        """A copy with a module of its own, for one member: calls may change the module's state."""
        return ModuleProgram(self.task, copy.deepcopy(self._module), self.slots)

    @property
    def counters(self) -> Columns:
        """Buffers of whole numbers, [1, …] each: a call may write to them, and they are in no flat vector."""
        return {
            f"buffer.{name}": buffer.numpy()[None]
            for name, buffer in self._module.named_buffers()
            if not buffer.is_floating_point()
        }

    def can_be_vmapped(self, rows: Rows) -> bool:
        """Whether the module runs under vmap; found by trying on two rows of zeros.

        Buffers are a reason not to: under vmap PyTorch may lose what a call writes to them. Hooks are another: they
        shall see a member's own rows, not batched tensors.
        """
        if is_watched(self._module) or any(True for _ in self._module.buffers()):
            return False
        features = torch.zeros(2, 2, rows.features.shape[1], dtype=torch.from_numpy(rows.features[:0]).dtype)
        flat = torch.ones(2, total_size(self.slots), dtype=features.dtype)
        stacked = self.alone().gradient
        targets = torch.zeros(2, 2, *rows.targets.shape[1:], dtype=torch.from_numpy(rows.targets[:0]).dtype)
        weights = torch.ones(2, 2, dtype=features.dtype)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                stacked(flat[:, : self.trained], flat[:, self.trained :], features, targets, weights, True)
        except Exception:
            return False
        return True

    def gradient(
        self,
        trained: Tensor,
        fixed: Tensor,
        features: Tensor,
        targets: Tensor,
        weights: Tensor,
        together: bool,
    ) -> tuple[Tensor, Tensor]:
        """The gradient of every member's loss of a batch of m rows.

        Args:
            trained: [K, T]
            fixed: [K, P − T]
            features: [K, m, d]
            targets: [K, m, t], or [K, m] class indices.
            weights: [K, m]
            together: Whether the members are stacked; K is 1 otherwise.

        Returns:
            Gradients [K, T] and losses [K].
        """
        members = len(trained)
        if together and members == 1:
            trained, fixed, features, targets, weights = (
                torch.cat([tensor, tensor]) for tensor in (trained, fixed, features, targets, weights)
            )
        trained = trained.detach().requires_grad_()
        if together:
            outputs = self._stacked(trained, fixed, features)
        else:
            outputs = self._outputs(trained[0], fixed[0], features[0])[None]
        count = outputs.shape[0] * outputs.shape[1]
        rows = row_losses(
            self.task.loss, outputs.reshape(count, -1), targets.reshape(count, *targets.shape[2:])
        )
        losses = (rows.view(weights.shape) * weights).sum(1) / weights.sum(1)
        (gradients,) = torch.autograd.grad(losses.sum(), trained)
        return gradients[:members], losses[:members].detach()

    def forward(self, flat: Floats, rows: Floats, places: Integers) -> Floats:
        """Outputs of held-out rows, each member's together: a :data:`epochd_server.engine.validation.Forward`.

        The module is called in evaluation mode, once for each member.
        """
        module, states = copy.deepcopy(self._module).eval(), torch.from_numpy(flat)
        ends = np.searchsorted(places, np.arange(len(flat)), "right").tolist()
        pieces, begin = [], 0
        with torch.no_grad():
            for state, end in zip(states, ends, strict=True):
                if end > begin:
                    named = {slot.name: state[slot.offset : slot.end].view(slot.shape) for slot in self.slots}
                    outputs = functional_call(module, named, (torch.from_numpy(rows[begin:end]),))
                    pieces.append(outputs.reshape(end - begin, -1).numpy())
                begin = end
        return np.concatenate(pieces) if pieces else np.empty((0, 1), flat.dtype)

    def _outputs(self, trained: Tensor, fixed: Tensor, features: Tensor) -> Tensor:
        """One member's outputs [m, t]."""
        state = {}
        for slot in self.slots:
            vector, shift = (trained, 0) if slot.end <= self.trained else (fixed, self.trained)
            state[slot.name] = vector[slot.offset - shift : slot.end - shift].view(slot.shape)
        outputs: Tensor = functional_call(self._module, state, (features,))
        return outputs if outputs.dim() > 1 else outputs[:, None]
