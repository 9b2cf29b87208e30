"""Trainer.Differentiate."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from epochd.v1 import differentiate_pb2 as pb
from epochd_server.codec.differentiate import decode_differentiate, encode_differentiated
from epochd_server.domain.commands import DifferentiateCommand
from epochd_server.domain.errors import Violations
from epochd_server.domain.tensors import RawTensor
from epochd_server.engine.autodiff import differentiate
from epochd_server.rpc.computing import Computer
from epochd_server.rpc.requests import required
from epochd_server.rpc.tensors import from_raw, to_raw


class Differentiator:
    """Evaluates and differentiates expressions.

    Args:
        computer: Where large ones are computed.
    """

    def __init__(self, computer: Computer) -> None:
        self._computer = computer

    async def differentiate(self, request: pb.DifferentiateRequest) -> pb.DifferentiateResponse:
        """The answer to a request.

        Raises:
            InvalidInput: Everything that is wrong with it.
        """
        violations = Violations()
        command = required(decode_differentiate(request, violations), violations)
        elements = sum(len(raw.data) for raw in command.variables.values()) + max(command.repeat, 1)
        return await self._computer.run(elements * len(command.expression), lambda: _answer(command))


def _answer(command: DifferentiateCommand) -> pb.DifferentiateResponse:
    found = differentiate(
        command.expression,
        {name: from_raw(raw) for name, raw in command.variables.items()},
        gradients_of=command.gradients_of,
        repeat=command.repeat,
        accumulate=command.accumulate,
    )
    history = [_raw(gradients) for gradients in found.history]
    return encode_differentiated(to_raw(found.value), history, _raw(found.intermediates))


def _raw(tensors: Mapping[str, torch.Tensor]) -> dict[str, RawTensor]:
    return {name: to_raw(tensor) for name, tensor in tensors.items()}
