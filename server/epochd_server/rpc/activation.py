"""Trainer.ActivationTransform: a tensor that fits a message."""

from __future__ import annotations

import math
from collections.abc import Sequence

from epochd.v1 import activation_pb2 as pb
from epochd_server.codec.activations import decode_transform, encode_transformed
from epochd_server.codec.tensors import item_size
from epochd_server.domain.activations import ActivationStep, output_shape, validate_steps
from epochd_server.domain.commands import ActivationCommand
from epochd_server.domain.errors import EpochdError, FieldViolation, InvalidInput, Reason, Violations
from epochd_server.engine.activations import transform
from epochd_server.rpc.computing import Computer
from epochd_server.rpc.interceptors import MAX_MESSAGE_BYTES
from epochd_server.rpc.requests import required
from epochd_server.rpc.tensors import from_raw, to_raw


class Activations:
    """Applies activations to tensors of up to a message.

    Args:
        computer: Where large ones are computed.
    """

    def __init__(self, computer: Computer) -> None:
        self._computer = computer

    async def transform(self, request: pb.ActivationTransformRequest) -> pb.ActivationTransformResponse:
        """The answer to a request.

        Raises:
            InvalidInput: Everything that is wrong with it.
            EpochdError: UNDEFINED_VALUE where it is strict; MESSAGE_TOO_LARGE for a result over the limit.
        """
        violations = Violations()
        command = required(decode_transform(request, violations), violations)
        shape, dtype = command.input.shape, command.input.dtype
        check_chain(command.chain, dtype, shape, prefix="", dtype_prefix="input.")
        result = output_shape(shape, command.chain)
        if math.prod(result) * item_size(dtype) > MAX_MESSAGE_BYTES:
            raise EpochdError(Reason.MESSAGE_TOO_LARGE)
        work = max(math.prod(shape), math.prod(result)) * len(command.chain)
        return await self._computer.run(work, lambda: _answer(command))


def check_chain(
    chain: Sequence[ActivationStep], dtype: str, shape: Sequence[int], prefix: str, dtype_prefix: str
) -> None:
    """Whether steps fit each other, an element type and a shape.

    Args:
        chain: The steps.
        dtype: The input's element type.
        shape: The input's shape.
        prefix: Where the request has the chain: "" or ``header.``.
        dtype_prefix: Where the request has the element type: ``input.`` or ``header.``.

    Raises:
        InvalidInput: Everything that is wrong, in the words of the request.
    """
    violations = Violations()
    validate_steps(chain, dtype, len(shape), violations)
    if violations:
        raise InvalidInput(
            [
                FieldViolation(
                    (dtype_prefix if v.field == "dtype" else prefix) + in_request(v.field), v.description
                )
                for v in violations.found
            ]
        )


def in_request(text: str) -> str:
    """A field or a message of the engine, which speaks of ``steps[0]``, as the request has it: ``chain[0]``."""
    return "chain" + text.removeprefix("steps") if text.startswith("steps") else text


def undefined_in_request(error: EpochdError) -> EpochdError:
    """UNDEFINED_VALUE of the engine in the words of the request."""
    return EpochdError(error.reason, in_request(error.message), error.metadata)


def _answer(command: ActivationCommand) -> pb.ActivationTransformResponse:
    try:
        output = transform(from_raw(command.input), command.chain, strict=command.strict)
    except EpochdError as error:
        raise undefined_in_request(error) from None
    return encode_transformed(to_raw(output))
