"""Activation functions on the server: in one message where they fit, else as a stream in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd._core.calling import call, retrying
from epochd._core.effects import Program, Stream, open_stream, receive
from epochd._core.methods import ACTIVATION, ACTIVATION_STREAM
from epochd._wire.steps import encode_steps
from epochd._wire.tensors import (
    as_array,
    byte_chunks,
    byte_view,
    data_type,
    decode_tensor,
    encode_tensor,
    wire_array,
)
from epochd.activations import Activation, Operation
from epochd.errors import DataLoss, ResourceExhausted, invalid
from epochd.policy import Policy
from epochd.v1 import activation_pb2

UNARY_BYTES = 3_500_000
"""Tensors up to this size travel in one message; gRPC allows 4 MiB."""

_CHUNK_BYTES = 1 << 20
_FLOATS = ("float16", "bfloat16", "float32", "float64")


class Transform:
    """A chain of activation functions for one tensor."""

    def __init__(self, steps: Sequence[Activation | str], x: Any, strict: bool) -> None:
        self._steps = encode_steps(steps)
        self._array = _floats(x)
        self._strict = strict
        self._restore = _restorer(x)

    def run(self, policy: Policy) -> Program[Any]:
        """Applies the chain: an array gives an array of its type, a number a number."""
        output = None
        if self._array.nbytes <= UNARY_BYTES:
            output = yield from self._in_one_message(policy)
        if output is None:
            output = yield from retrying(lambda left: self._streamed(left), policy, policy.timeout.transfer)
        return self._restore(output)

    def _in_one_message(self, policy: Policy) -> Program[NDArray[Any] | None]:
        request = activation_pb2.ActivationTransformRequest(
            input=encode_tensor(self._array), chain=self._steps, strict=self._strict
        )
        try:
            response = yield from call(ACTIVATION, request, policy)
        except ResourceExhausted as error:
            # A Jacobian may be too large for a message where its input is not. gRPC itself gives no reason.
            if error.reason not in ("", "MESSAGE_TOO_LARGE"):
                raise
            return None
        return decode_tensor(response.output, self._array.dtype)

    def _streamed(self, timeout: float) -> Program[NDArray[Any]]:
        stream = yield from open_stream(ACTIVATION_STREAM, self._requests(), timeout)
        try:
            return (yield from self._collect(stream))
        finally:
            stream.cancel()

    def _requests(self) -> Iterator[activation_pb2.ActivationTransformStreamRequest]:
        header = activation_pb2.ActivationStreamHeader(
            dtype=data_type(self._array.dtype.name),
            shape=self._array.shape,
            chain=self._steps,
            strict=self._strict,
        )
        yield activation_pb2.ActivationTransformStreamRequest(header=header)
        for chunk in byte_chunks(self._array, _CHUNK_BYTES):
            yield activation_pb2.ActivationTransformStreamRequest(data=chunk)

    def _collect(self, stream: Stream) -> Program[NDArray[Any]]:
        """Writes the response's bytes where they belong in an array that is allocated once."""
        first = yield from receive(ACTIVATION_STREAM, stream)
        if first is None or not first.HasField("header"):
            raise DataLoss("The response does not begin with a header.", reason="BAD_RESPONSE")
        output = np.empty(tuple(first.header.shape), dtype=self._array.dtype)
        space = byte_view(output)
        position = 0
        while (message := (yield from receive(ACTIVATION_STREAM, stream))) is not None:
            end = position + len(message.data)
            if end > len(space):
                break
            space[position:end] = message.data
            position = end
        if message is not None or position != len(space):
            raise DataLoss("The response's bytes do not fill its shape.", reason="BAD_RESPONSE")
        return output


def steps_of(
    function: str | Activation | Sequence[str | Activation],
    op: Operation,
    axis: int | None,
    approximate: str | None,
    parameters: dict[str, float],
) -> Sequence[Activation | str]:
    """The steps of ``client.activation``'s arguments: a chain, or one function with its arguments.

    Raises:
        InvalidArgument: When arguments are given that belong to the steps of a chain.
    """
    if isinstance(function, str):
        return [Activation(function, op=op, axis=axis, approximate=approximate, **parameters)]
    if op != "forward" or axis is not None or approximate is not None or parameters:
        raise invalid(
            "chain", "give op, axis and parameters to the steps: epochd.Activation('log', op='inverse')"
        )
    return [function] if isinstance(function, Activation) else list(function)


def _floats(x: Any) -> NDArray[Any]:
    """Floating-point elements as they are, little-endian; integers and booleans as float64."""
    array = as_array(x)
    if array.dtype.name in _FLOATS:
        return wire_array(array)
    if array.dtype.kind not in "biuf":
        raise invalid("input", f"must hold real numbers, holds {array.dtype}")
    return array.astype(np.float64)


def _restorer(x: Any) -> Any:
    """What gives a result the form of the input: a float for a number, a NumPy scalar for one, else the array."""
    if isinstance(x, int | float) and not isinstance(x, np.generic):
        return lambda output: output.item() if output.ndim == 0 else output
    if isinstance(x, np.generic):
        return lambda output: output[()]
    return lambda output: output
