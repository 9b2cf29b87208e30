"""An ONNX graph in the making.

Only operators for which onnxruntime has float64 kernels are used, so that a model keeps its precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

OPSET = 17
"""ONNX 1.12 and later; onnxruntime 1.13 and later."""
_IR_VERSION = 8
_ML = "ai.onnx.ml"
_ML_OPSET = 2


class Graph:
    """Nodes, constants, inputs and outputs, in the order in which they are added.

    Args:
        dtype: Of the numbers that flow through it.
    """

    def __init__(self, dtype: np.dtype[np.floating]) -> None:
        self.dtype = dtype
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._uses_ml = False

    def input(self, name: str, dtype: np.dtype[Any], shape: Sequence[int | str]) -> str:
        """Adds an input; sizes that are texts are free, an object dtype is text. The same name twice is the same."""
        if any(known.name == name for known in self._inputs):
            return name
        kind = TensorProto.STRING if dtype.kind == "O" else helper.np_dtype_to_tensor_dtype(dtype)
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, value: str, name: str, dtype: np.dtype[Any], shape: Sequence[int | str]) -> None:
        """Makes a value an output of this name; an object dtype is text."""
        kind = TensorProto.STRING if dtype.kind == "O" else helper.np_dtype_to_tensor_dtype(dtype)
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Adds a constant; the same name twice is the same constant."""
        self._constants.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def fresh_constant(self, array: NDArray[Any]) -> str:
        """Adds a constant under a name of its own."""
        return self.constant(f"constant_{len(self._constants)}", array)

    def number(self, value: float) -> str:
        """A constant of the graph's dtype without dimensions."""
        return self.constant(f"number_{value!r}", np.array(value, self.dtype))

    def integers(self, *values: int) -> str:
        """A constant of int64 with one dimension."""
        return self.constant(f"integers_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node and returns its value."""
        value = f"value_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [value], **attributes))
        return value

    def add_ml(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of the domain ``ai.onnx.ml`` and returns its value."""
        self._uses_ml = True
        return self.add(operator, *inputs, domain=_ML, **attributes)

    def model(self, metadata: Mapping[str, str]) -> ModelProto:
        """The finished model, checked by ONNX's own checker."""
        graph = helper.make_graph(
            self._nodes, "epochd", self._inputs, self._outputs, list(self._constants.values())
        )
        opsets = [helper.make_opsetid("", OPSET)]
        if self._uses_ml:
            opsets.append(helper.make_opsetid(_ML, _ML_OPSET))
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=_IR_VERSION,
            producer_name="epochd",
        )
        helper.set_model_props(model, dict(metadata))
        checker.check_model(model, full_check=True)
        return model
