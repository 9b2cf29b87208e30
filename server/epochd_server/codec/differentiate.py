"""Differentiate: requests → commands, values → responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from epochd.v1 import differentiate_pb2 as pb
from epochd.v1 import tensor_pb2
from epochd_server.codec.tensors import decode_raw, encode_raw
from epochd_server.domain.commands import DifferentiateCommand
from epochd_server.domain.errors import Violations
from epochd_server.domain.tensors import RawTensor

_SHOWN = 40


def decode_differentiate(
    request: pb.DifferentiateRequest, violations: Violations
) -> DifferentiateCommand | None:
    """The command of a request; the expression itself is not looked at here.

    Returns:
        None, and everything wrong in ``violations``, where the request is malformed.
    """
    before = len(violations.found)
    variables: dict[str, RawTensor] = {}
    for index, variable in enumerate(request.variables):
        if variable.name in variables:
            violations.add(f"variables[{index}].name", f"{variable.name[:_SHOWN]!r} is given twice")
        with violations.within(f"variables[{index}].tensor"):
            tensor = decode_raw(variable.tensor, violations)
        if tensor is not None:
            variables[variable.name] = tensor
    if len(violations.found) > before:
        return None
    return DifferentiateCommand(
        expression=request.expression,
        variables=variables,
        gradients_of=tuple(request.gradients_of),
        repeat=request.repeat if request.HasField("repeat") else 1,
        accumulate=request.accumulate,
    )


def encode_differentiated(
    value: RawTensor,
    history: Sequence[Mapping[str, RawTensor]],
    intermediates: Mapping[str, RawTensor],
) -> pb.DifferentiateResponse:
    """The response that holds a value, the gradients after each pass, and the intermediate values."""
    passes = [pb.Gradients(gradients=_named(gradients)) for gradients in history]
    return pb.DifferentiateResponse(
        value=encode_raw(value),
        gradients=_named(history[-1]),
        history=passes,
        intermediates=_named(intermediates),
    )


def _named(tensors: Mapping[str, RawTensor]) -> list[tensor_pb2.NamedTensor]:
    return [tensor_pb2.NamedTensor(name=name, tensor=encode_raw(tensor)) for name, tensor in tensors.items()]
