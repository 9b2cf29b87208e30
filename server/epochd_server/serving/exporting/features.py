"""Preprocessing as ONNX nodes: from raw columns to features, in float64 as the server computes them.

Every column that is read is an input of its own [rows]: float64 with NaN for missing numbers, or texts with "" for
missing ones. What cannot be written as operators that onnxruntime has for every one of its types is refused.
An unseen category that Predict would refuse makes the row's features, and so its outputs, NaN: a graph cannot refuse.

Legend: n rows, m columns that one column has become, C categories, K members, S numbers kept a member.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from epochd_server.domain.data import ColumnKind
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.preprocessing import (
    Affine,
    Bucketize,
    Categories,
    Edges,
    Filled,
    FittedColumn,
    FittedPreprocessing,
    FittedStep,
    Impute,
    Log1p,
    OneHot,
    Ordinal,
    Passthrough,
    Unseen,
)
from epochd_server.serving.exporting.graph import Graph

_NUMERIC = frozenset({ColumnKind.NUMBER, ColumnKind.INTEGER, ColumnKind.BOOLEAN})
_DOUBLE = np.dtype(np.float64)
_UNKNOWN = -1.0


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What the members of a fleet learned by themselves.

    Attributes:
        statistics: float64 [K, S]
        member: The graph's value that says the member of each row, int64 [n].
    """

    statistics: NDArray[np.float64]
    member: str


@dataclass(slots=True)
class _Column:
    """A column on its way through its steps.

    Attributes:
        value: Numbers [n, m] of float64, or texts [n].
        is_text: Which of both.
        filled: Texts: what takes the place of missing ones; None: nothing does.
        indicator: Whether values were missing, [n, 1]; None where nobody asked.
        learned: The members' own numbers; None where there are none.
    """

    name: str
    value: str
    is_text: bool
    filled: str | None = None
    indicator: str | None = None
    learned: Learned | None = None


def add_features(graph: Graph, fitted: FittedPreprocessing, learned: Learned | None = None) -> str:
    """Adds inputs for the raw columns, and all steps; returns the features [n, d] in the graph's dtype.

    Args:
        graph: Is added to.
        fitted: What columns go through.
        learned: Fleets: what members learned by themselves, where they did.

    Raises:
        EpochdError: EXPORT_NOT_POSSIBLE, naming the column.
    """
    features = _features(graph, fitted, learned)
    if graph.dtype == _DOUBLE:
        return features
    return graph.add("Cast", features, to=TensorProto.FLOAT)


def add_fold_features(graph: Graph, fitted: FittedPreprocessing, member: str) -> str:
    """As :func:`add_features`, of a cross-validation: each row's features are those that its member's fold sees.

    Args:
        graph: Is added to.
        fitted: With what each fold's columns go through.
        member: The graph's value that says the member of each row, int64 [n].
    """
    fold = graph.add("Mod", member, graph.integers(len(fitted.folds)))
    fold = graph.add("Unsqueeze", fold, graph.integers(1))
    features = ""
    for place, one in enumerate(fitted.folds):
        own = add_features(graph, one)
        is_own = graph.add("Equal", fold, graph.integers(place))
        features = graph.add("Where", is_own, own, features) if features else own
    return features


def _features(graph: Graph, fitted: FittedPreprocessing, learned: Learned | None) -> str:
    """The features [n, d] in float64."""
    made = [(column, _add_column(graph, column, learned)) for column in fitted.columns if column.is_read]
    parts = [value for _, value in made]
    features = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)
    places = _places(fitted)
    if places == list(range(len(places))):
        return features
    # a column of zeros, after the others, is where features are that no step makes
    first = graph.add("Gather", features, graph.integers(0), axis=1)
    nothing = graph.add("Mul", _as_numbers(graph, graph.add("IsNaN", first)), _number(graph, 0.0))
    every = graph.add("Concat", features, nothing, axis=1)
    return graph.add("Gather", every, graph.fresh_constant(np.array(places, np.int64)), axis=1)


def _places(fitted: FittedPreprocessing) -> list[int]:
    """Where each feature is among those that the steps make, in their order; after them for one that none makes."""
    made = sum(len(column.outputs if column.places is None else column.places) for column in fitted.columns)
    places: list[int] = []
    start = 0
    for column in fitted.columns:
        own = range(len(column.outputs)) if column.places is None else column.places
        found = {place: start + position for position, place in enumerate(own)}
        places += [found.get(place, made) for place in range(len(column.outputs))]
        start += len(own)
    return places


def _add_column(graph: Graph, fitted: FittedColumn, learned: Learned | None) -> str:
    is_text = fitted.kind is ColumnKind.TEXT
    if not is_text and fitted.kind not in _NUMERIC:
        raise _impossible(fitted.name, "holds timestamps")
    value = graph.input(fitted.name, np.dtype(object) if is_text else _DOUBLE, ["rows"])
    column = _Column(fitted.name, value, is_text, learned=learned)
    if not is_text:
        column.value = graph.add("Unsqueeze", column.value, graph.integers(1))
    for step in fitted.steps:
        _add_step(graph, column, step)
    if column.is_text:
        raise _impossible(fitted.name, "stays text")
    if column.indicator is None:
        return column.value
    return graph.add("Concat", column.value, column.indicator, axis=1)


def _add_step(graph: Graph, column: _Column, fitted: FittedStep) -> None:
    step, state = fitted.step, fitted.state
    if isinstance(step, Impute) and step.indicator and column.indicator is None:
        column.indicator = _missing(graph, column)
    match step, state:
        case Impute(), Filled():
            _fill(graph, column, state)
        case OneHot(), Categories():
            _one_hot(graph, column, step, state)
        case Ordinal(), Categories():
            _set_numbers(column, _or_nan(graph, _position(graph, column, step.unseen, state), step.unseen))
        case _ if column.is_text:
            raise _impossible(column.name, f"is text that goes through {type(step).__name__.lower()}")
        case _:
            column.value = _of_numbers(graph, column, fitted)


def _of_numbers(graph: Graph, column: _Column, fitted: FittedStep) -> str:
    """What a step that only numbers go through makes of them."""
    match fitted.step, fitted.state:
        case _, Affine() as state:
            return _scaled(graph, column, state)
        case Bucketize() as step, Edges() as state:
            return _bucketized(graph, column.value, state, one_hot=step.one_hot)
        case Log1p(), _:
            return _log1p(graph, column.value)
        case Passthrough(), _:
            return column.value
        case step, _:
            raise _impossible(column.name, f"goes through {type(step).__name__.lower()}")


def _fill(graph: Graph, column: _Column, state: Filled) -> None:
    if column.is_text:
        column.filled = state.text
        return
    fill = _constant(graph, np.array(state.numbers))
    if state.slot is not None:
        fill = _own(graph, column, state.slot)
    column.value = graph.add("Where", graph.add("IsNaN", column.value), fill, column.value)


def _scaled(graph: Graph, column: _Column, state: Affine) -> str:
    if state.slot is None:
        center, scale = (_constant(graph, np.array(numbers)) for numbers in (state.center, state.scale))
    else:
        center, scale = (_own(graph, column, state.slot + place) for place in range(2))
    scaled = graph.add("Div", graph.add("Sub", column.value, center), scale)
    return graph.add("Add", scaled, _number(graph, state.low)) if state.low else scaled


def _own(graph: Graph, column: _Column, slot: int) -> str:
    """A number [n, 1] that each row's member learned by itself."""
    learned = column.learned
    if learned is None:
        raise _impossible(column.name, "is scaled for each member by itself")
    numbers = _constant(graph, learned.statistics[:, slot : slot + 1])
    return graph.add("Gather", numbers, learned.member, axis=0)


def _log1p(graph: Graph, x: str) -> str:
    undefined = graph.add("LessOrEqual", x, _number(graph, -1.0))
    logarithm = graph.add("Log", graph.add("Add", x, _number(graph, 1.0)))
    return graph.add("Where", undefined, _number(graph, np.nan), logarithm)


def _bucketized(graph: Graph, x: str, state: Edges, *, one_hot: bool) -> str:
    above = graph.add("GreaterOrEqual", x, _constant(graph, np.array(state.edges)[None]))
    position = graph.add("ReduceSum", _as_numbers(graph, above), graph.integers(1), keepdims=1)
    missing = graph.add("IsNaN", x)
    if not one_hot:
        return graph.add("Where", missing, _number(graph, np.nan), position)
    hot = graph.add("Equal", position, _constant(graph, np.arange(len(state.edges) + 1.0)[None]))
    return _as_numbers(graph, graph.add("And", hot, graph.add("Not", missing)))


def _one_hot(graph: Graph, column: _Column, step: OneHot, state: Categories) -> None:
    width = state.count + (step.unseen is Unseen.OTHER)
    position = _position(graph, column, step.unseen, state)
    places = np.arange(int(step.drop_first), width, dtype=np.float64)[None]
    hot = _as_numbers(graph, graph.add("Equal", position, _constant(graph, places)))
    if step.unseen is Unseen.ERROR:
        unknown = graph.add("Less", position, _number(graph, 0.0))
        hot = graph.add("Where", unknown, _number(graph, np.nan), hot)
    _set_numbers(column, hot)


def _or_nan(graph: Graph, position: str, unseen: Unseen) -> str:
    """Positions; NaN for what is not known where that is an error."""
    if unseen is not Unseen.ERROR:
        return position
    unknown = graph.add("Less", position, _number(graph, 0.0))
    return graph.add("Where", unknown, _number(graph, np.nan), position)


def _position(graph: Graph, column: _Column, unseen: Unseen, state: Categories) -> str:
    """The position [n, 1] of each row's category, as float64; -1 for what is not known."""
    unknown = float(state.count) if unseen is Unseen.OTHER else _UNKNOWN
    missing = float(len(state.labels)) if state.missing else unknown
    if not column.is_text:
        return _position_of_number(graph, column.value, state, unknown, missing)
    places = {label: place for place, label in enumerate(state.labels)}
    empty = missing if column.filled is None else places.get(column.filled, unknown)
    keys = [*state.labels, ""]
    found = graph.add_ml(
        "LabelEncoder",
        column.value,
        keys_strings=keys,
        values_int64s=[*range(len(state.labels)), int(empty)],
        default_int64=int(unknown),
    )
    return graph.add("Unsqueeze", graph.add("Cast", found, to=TensorProto.DOUBLE), graph.integers(1))


def _position_of_number(graph: Graph, x: str, state: Categories, unknown: float, missing: float) -> str:
    values = np.array([float(label) for label in state.labels])[None]
    same = _as_numbers(graph, graph.add("Equal", x, _constant(graph, values)))
    place = graph.add("MatMul", same, _constant(graph, np.arange(values.size, dtype=np.float64)[:, None]))
    known = graph.add("ReduceSum", same, graph.integers(1), keepdims=1)
    is_known = graph.add("Greater", known, _number(graph, 0.0))
    other = graph.add("Where", graph.add("IsNaN", x), _number(graph, missing), _number(graph, unknown))
    return graph.add("Where", is_known, place, other)


def _missing(graph: Graph, column: _Column) -> str:
    """1 [n, 1] where a value is missing, else 0."""
    if not column.is_text:
        return _as_numbers(graph, graph.add("IsNaN", column.value))
    empty = graph.add_ml("LabelEncoder", column.value, keys_strings=[""], values_int64s=[1], default_int64=0)
    return graph.add("Unsqueeze", graph.add("Cast", empty, to=TensorProto.DOUBLE), graph.integers(1))


def _set_numbers(column: _Column, value: str) -> None:
    column.value, column.is_text = value, False


def _as_numbers(graph: Graph, flags: str) -> str:
    return graph.add("Cast", flags, to=TensorProto.DOUBLE)


def _number(graph: Graph, value: float) -> str:
    return graph.constant(f"double_{value!r}", np.array(value, _DOUBLE))


def _constant(graph: Graph, array: NDArray[np.float64]) -> str:
    return graph.fresh_constant(array)


def _impossible(name: str, why: str) -> EpochdError:
    message = (
        f"The column {name!r} {why}, which has no ONNX form here; export as PT2, or prepare it beforehand."
    )
    return EpochdError(Reason.EXPORT_NOT_POSSIBLE, message, {"column": name})
