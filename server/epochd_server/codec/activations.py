"""ActivationTransform: requests → commands, tensors → responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from epochd.v1 import activation_pb2 as pb
from epochd_server.codec.tensors import NUMBERS, decode_dtype, decode_raw, decode_shape, encode_raw
from epochd_server.domain.activations import CATALOG, Activation, ActivationStep, Operation
from epochd_server.domain.commands import ActivationCommand, ActivationStreamCommand
from epochd_server.domain.errors import Violations
from epochd_server.domain.tensors import RawTensor

MAX_STEPS = 16

_FUNCTIONS: Mapping[int, Activation] = MappingProxyType(
    {
        int(pb.ActivationFunction.Value(f"ACTIVATION_FUNCTION_{function.name}")): function
        for function in Activation
    }
)
_OPERATIONS: Mapping[int, Operation] = MappingProxyType(
    {
        pb.ACTIVATION_OPERATION_UNSPECIFIED: Operation.FORWARD,
        pb.ACTIVATION_OPERATION_FORWARD: Operation.FORWARD,
        pb.ACTIVATION_OPERATION_INVERSE: Operation.INVERSE,
        pb.ACTIVATION_OPERATION_DERIVATIVE: Operation.DERIVATIVE,
        pb.ACTIVATION_OPERATION_ANTIDERIVATIVE: Operation.ANTIDERIVATIVE,
    }
)


def decode_transform(
    request: pb.ActivationTransformRequest, violations: Violations
) -> ActivationCommand | None:
    """The command of a request; whether the steps fit each other and the input is not looked at here.

    Returns:
        None, and everything wrong in ``violations``, where the request is malformed.
    """
    with violations.within("input"):
        tensor = decode_raw(request.input, violations)
    chain = decode_chain(request.chain, violations)
    if tensor is None or chain is None:
        return None
    return ActivationCommand(input=tensor, chain=chain, strict=request.strict)


def decode_stream_header(
    header: pb.ActivationStreamHeader, violations: Violations
) -> ActivationStreamCommand | None:
    """The command of a stream's header, like :func:`decode_transform`."""
    dtype = decode_dtype(header.dtype, violations)
    shape = decode_shape(header.shape, violations)
    chain = decode_chain(header.chain, violations)
    if dtype is None or shape is None or chain is None:
        return None
    return ActivationStreamCommand(dtype=dtype, shape=shape, chain=chain, strict=header.strict)


def decode_chain(
    messages: Sequence[pb.ActivationStep], violations: Violations
) -> tuple[ActivationStep, ...] | None:
    """Steps; None, and violations at ``chain[2].function`` and the like, where one is malformed."""
    if not 1 <= len(messages) <= MAX_STEPS:
        violations.add("chain", f"must have 1 to {MAX_STEPS} steps, has {len(messages)}")
        return None
    before = len(violations.found)
    steps = []
    for index, message in enumerate(messages):
        with violations.within(f"chain[{index}]"):
            steps.append(_decode_step(message, violations))
    if len(violations.found) > before:
        return None
    return tuple(step for step in steps if step is not None)


def encode_transformed(output: RawTensor) -> pb.ActivationTransformResponse:
    """The response that holds a result."""
    return pb.ActivationTransformResponse(output=encode_raw(output))


def encode_stream_result(dtype: str, shape: Sequence[int]) -> pb.ActivationTransformStreamResponse:
    """The first message of a response stream."""
    header = pb.ActivationStreamResult(dtype=NUMBERS[dtype], shape=shape)
    return pb.ActivationTransformStreamResponse(header=header)


def _decode_step(message: pb.ActivationStep, violations: Violations) -> ActivationStep | None:
    function = _FUNCTIONS.get(message.function)
    operation = _OPERATIONS.get(message.operation)
    if function is None:
        unset = message.function == pb.ACTIVATION_FUNCTION_UNSPECIFIED
        violations.add(
            "function", "must be set" if unset else f"{message.function} is no known ActivationFunction"
        )
    if operation is None:
        violations.add("operation", f"{message.operation} is no known ActivationOperation")
    if function is None or operation is None:
        return None
    axis = -1
    if message.HasField("axis"):
        axis = message.axis
        if not CATALOG[function].along_axis:
            violations.add("axis", f"is for softmax, log_softmax and logsumexp, not for {function.value}")
    return ActivationStep(
        function=function,
        operation=operation,
        parameters=dict(message.parameters),
        approximate=message.approximate or "none",
        axis=axis,
    )
