"""How the columns of a table become features: steps by column, fitted by the server on the training rows only.

Example:
    >>> print(Preprocess({"age": [Impute("median"), "standardize"], "city": OneHot(unseen="other")}))
    Preprocess(age: impute(median), standardize; city: one_hot(other); others: auto)

A step is one of these classes, or its name in lower case where it needs no argument. What the steps learn is kept in
the model, which then predicts rows as they are: with texts, timestamps and holes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypeAlias, get_args

from epochd.errors import invalid

Unseen: TypeAlias = Literal["error", "ignore", "other"]
Fill: TypeAlias = Literal["mean", "median", "most_frequent", "constant"]
TimePart: TypeAlias = Literal[
    "minute", "hour", "weekday", "day", "day_of_year", "month", "year", "elapsed_days"
]
Others: TypeAlias = Literal["auto", "passthrough", "drop"]


@dataclass(frozen=True, slots=True)
class Auto:
    """Steps chosen by the column's type and values; ``"auto"``."""

    def __str__(self) -> str:
        return "auto"


@dataclass(frozen=True, slots=True)
class Passthrough:
    """Numbers as they are; ``"passthrough"``."""

    def __str__(self) -> str:
        return "passthrough"


@dataclass(frozen=True, slots=True)
class Drop:
    """No feature at all; ``"drop"``."""

    def __str__(self) -> str:
        return "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standardize:
    """(x - mean) / deviation over the training rows, as scikit-learn's StandardScaler; ``"standardize"``."""

    with_mean: bool = True
    """Whether to subtract the mean."""

    with_std: bool = True
    """Whether to divide by the deviation."""

    per_member: bool = False
    """Fleets: whether each member's own rows are used, instead of all."""

    def __str__(self) -> str:
        return "standardize" + ("(per member)" if self.per_member else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class MinMax:
    """The smallest training value becomes ``low``, the largest ``high``; ``"min_max"``."""

    low: float = 0.0
    """What the smallest becomes."""

    high: float = 1.0
    """What the largest becomes."""

    per_member: bool = False
    """Fleets: whether each member's own rows are used, instead of all."""

    def __str__(self) -> str:
        return f"min_max({self.low:g} to {self.high:g}{', per member' if self.per_member else ''})"


@dataclass(frozen=True, slots=True)
class Log1p:
    """log(1 + x) of numbers above -1; ``"log1p"``."""

    def __str__(self) -> str:
        return "log1p"


@dataclass(frozen=True, slots=True)
class Impute:
    """Fills in missing values, as scikit-learn's SimpleImputer; ``"impute"`` with the mean.

    Example:
        >>> print(Impute("constant", value=0.0, indicator=True))
        impute(constant 0.0, indicator)
    """

    fill: Fill = "mean"
    """With what."""

    _: KW_ONLY

    value: float | str | None = None
    """For ``"constant"``: a number, or a text."""

    indicator: bool = False
    """Whether to add a feature ``NAME_missing``, which is 1 where a value was missing."""

    per_member: bool = False
    """Fleets: whether each member's own rows are used, instead of all; mean and median."""

    def __post_init__(self) -> None:
        _check(self, "fill", Fill)

    def __str__(self) -> str:
        constant = f" {self.value!r}" if self.fill == "constant" else ""
        extras = ", indicator" * self.indicator + ", per member" * self.per_member
        return f"impute({self.fill}{constant}{extras})"


@dataclass(frozen=True, slots=True, kw_only=True)
class OneHot:
    """A feature of 0 and 1 for each category of text, integers or booleans; ``"one_hot"``."""

    unseen: Unseen = "error"
    """Other categories at prediction: an error, zeros everywhere, or a feature of their own."""

    max_categories: int | None = None
    """Only so many of the most frequent ones get a feature; the others count as unseen."""

    drop_first: bool = False
    """Whether to leave out the first category's feature."""

    def __post_init__(self) -> None:
        _check(self, "unseen", Unseen)

    def __str__(self) -> str:
        most = "" if self.max_categories is None else f", at most {self.max_categories}"
        return f"one_hot({self.unseen}{most}{', first dropped' if self.drop_first else ''})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordinal:
    """The position of the category: 0, 1, 2 …; ``"ordinal"``."""

    unseen: Unseen = "error"
    """Other categories at prediction: an error, -1, or the number after the last."""

    categories: Sequence[str] = ()
    """All categories in their order; none: those of the training rows, ascending."""

    def __post_init__(self) -> None:
        _check(self, "unseen", Unseen)
        object.__setattr__(self, "categories", tuple(self.categories))

    def __str__(self) -> str:
        return f"ordinal({self.unseen})"


@dataclass(frozen=True, slots=True)
class Bucketize:
    """The interval that a number is in: between edges, or so many of about equally many training rows.

    Example:
        >>> Bucketize([18, 65]).edges, Bucketize(buckets=4).buckets
        ((18.0, 65.0), 4)
    """

    edges: Sequence[float] = ()
    """Where intervals begin that are not the first, ascending."""

    _: KW_ONLY

    buckets: int | None = None
    """Instead of edges: the number of intervals, between quantiles."""

    one_hot: bool = True
    """Whether each interval is a feature; otherwise its position is one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple(map(float, self.edges)))

    def __str__(self) -> str:
        shown = f"{self.buckets} quantiles" if self.buckets else ", ".join(f"{edge:g}" for edge in self.edges)
        return f"bucketize({shown})"


@dataclass(frozen=True, slots=True)
class Hash:
    """+1 or -1 in one of so many features, as scikit-learn's FeatureHasher; no category is unseen."""

    features: int
    """How many."""

    def __str__(self) -> str:
        return f"hash({self.features})"


@dataclass(frozen=True, slots=True, init=False)
class TimeParts:
    """Parts of timestamps, or of ISO 8601 texts.

    Args:
        *parts: ``"minute"``, ``"hour"``, ``"weekday"``, ``"day"``, ``"day_of_year"``, ``"month"``, ``"year"`` or
            ``"elapsed_days"``.
        cyclic: Whether a part is sine and cosine of its place in the period; year and elapsed_days never are.

    Example:
        >>> print(TimeParts("hour", "weekday"))
        time_parts(hour, weekday)
    """

    parts: tuple[TimePart, ...]
    """Which."""

    cyclic: bool = True
    """Whether a part is sine and cosine of its place in the period."""

    def __init__(self, *parts: TimePart, cyclic: bool = True) -> None:
        unknown = [part for part in parts if part not in get_args(TimePart)]
        if unknown or not parts:
            raise TypeError(
                f"TimeParts: parts must be some of {', '.join(get_args(TimePart))}, not {parts!r}"
            )
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "cyclic", cyclic)

    def __str__(self) -> str:
        return f"time_parts({', '.join(self.parts)}{'' if self.cyclic else ', plain'})"


Step: TypeAlias = (
    Auto
    | Passthrough
    | Drop
    | Standardize
    | MinMax
    | Log1p
    | Impute
    | OneHot
    | Ordinal
    | Bucketize
    | Hash
    | TimeParts
)
Steps: TypeAlias = "Step | str | Sequence[Step | str]"

_Plain: TypeAlias = Auto | Passthrough | Drop | Standardize | MinMax | Log1p | Impute | OneHot | Ordinal
BY_NAME: Mapping[str, type[_Plain]] = {
    "auto": Auto,
    "passthrough": Passthrough,
    "drop": Drop,
    "standardize": Standardize,
    "min_max": MinMax,
    "log1p": Log1p,
    "impute": Impute,
    "one_hot": OneHot,
    "ordinal": Ordinal,
}
"""The steps that need no argument, by the names they have in requests."""


@dataclass(frozen=True, slots=True, init=False)
class Preprocess:
    """Steps by column.

    Args:
        columns: A column's name, or a tuple of names, → its steps in order: one or a list of them, each a step or its
            name.
        others: What becomes of all other feature columns: ``"auto"``, ``"passthrough"`` or ``"drop"``.

    Raises:
        InvalidArgument: When a step's name is not known.
    """

    columns: tuple[tuple[tuple[str, ...], tuple[Step, ...]], ...]
    """Names and their steps."""

    others: Others = "auto"
    """What becomes of all other feature columns."""

    def __init__(
        self, columns: Mapping[str | tuple[str, ...], Steps] | None = None, *, others: Others = "auto"
    ) -> None:
        entries = tuple((_names(names), _steps(names, steps)) for names, steps in (columns or {}).items())
        object.__setattr__(self, "columns", entries)
        object.__setattr__(self, "others", others)
        _check(self, "others", Others)

    def __str__(self) -> str:
        entries = [f"{', '.join(names)}: {', '.join(map(str, steps))}" for names, steps in self.columns]
        return f"Preprocess({'; '.join([*entries, f'others: {self.others}'])})"


@dataclass(frozen=True, slots=True)
class FittedColumn:
    """What the training rows made of a column's steps. ``str()`` is one line.

    Example:
        >>> print(FittedColumn("city", "text", (OneHot(),), ("city=Bergen", "city=Oslo")))
        city (text): one_hot(error) -> city=Bergen, city=Oslo
    """

    name: str
    """The column."""

    kind: str
    """What it held: ``number``, ``integer``, ``boolean``, ``text`` or ``timestamp``."""

    steps: tuple[Step, ...]
    """The steps; ``auto`` is replaced by those it chose."""

    features: tuple[str, ...]
    """The features it became; none where it was dropped."""

    note: str = ""
    """Something to know, such as why it was dropped."""

    def __str__(self) -> str:
        shown = ", ".join(self.features[:8]) + (
            f" and {len(self.features) - 8} more" * (len(self.features) > 8)
        )
        steps = ", ".join(map(str, self.steps))
        ends = (f" -> {shown}" if shown else "") + (f"; {self.note}" if self.note else "")
        return f"{self.name} ({self.kind}): {steps}{ends}"


def resolve(preprocess: Preprocess | Mapping[Any, Any] | str | None) -> Preprocess | None:
    """The preprocessing of ``train``'s argument.

    Raises:
        InvalidArgument: When a text is not ``"auto"``, or a step's name not known.
    """
    if preprocess is None or isinstance(preprocess, Preprocess):
        return preprocess
    if isinstance(preprocess, Mapping):
        return Preprocess(preprocess)
    if preprocess == "auto":
        return Preprocess()
    raise invalid("preprocess", f'must be "auto", an epochd.Preprocess or a dict, is {preprocess!r}')


def _names(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _steps(names: str | tuple[str, ...], steps: Steps) -> tuple[Step, ...]:
    given = (steps,) if isinstance(steps, str | Step) else tuple(steps)
    return tuple(_step(names, step) for step in given)


def _step(names: str | tuple[str, ...], step: Step | str) -> Step:
    if isinstance(step, Step):
        return step
    found = BY_NAME.get(step) if isinstance(step, str) else None
    if found is None:
        raise invalid("preprocess", f"{names!r}: must be a step or one of {', '.join(BY_NAME)}, is {step!r}")
    return found()


def _check(owner: Any, name: str, allowed: Any) -> None:
    value = getattr(owner, name)
    if value not in get_args(allowed):
        kinds = ", ".join(get_args(allowed))
        raise TypeError(f"{type(owner).__name__}: {name} must be one of {kinds}, not {value!r}")
