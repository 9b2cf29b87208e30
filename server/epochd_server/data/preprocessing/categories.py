"""Categories as numbers: one-hot and ordinal, as scikit-learn's OneHotEncoder and OrdinalEncoder.

Legend: n rows, C distinct labels of a block, W features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.preprocessing.blocks import Block, Numbers, StepProblem, Texts, as_labels
from epochd_server.domain.data import quoted
from epochd_server.domain.preprocessing import Categories, OneHot, Ordinal, Unseen

MAX_CATEGORIES = 10_000
_UNSEEN = -2
_SHOWN = 40
_NAMED = 80


def fit_categories(step: OneHot | Ordinal, block: Block) -> Categories:
    """The categories of the training rows, or those that were listed.

    Raises:
        StepProblem: There are too many, or listed ones are not all there are.
    """
    labels = as_labels(block, "one_hot" if isinstance(step, OneHot) else "ordinal")
    missing = bool((labels.codes < 0).any())
    if isinstance(step, Ordinal) and step.categories:
        return Categories(labels=step.categories)
    counts = np.bincount(labels.codes[labels.codes >= 0], minlength=len(labels.distinct))
    return chosen_categories(
        step, labels.distinct, counts, missing=missing, are_texts=isinstance(block, Texts)
    )


def chosen_categories(
    step: OneHot | Ordinal,
    distinct: NDArray[np.generic],
    counts: NDArray[np.int64],
    *,
    missing: bool,
    are_texts: bool,
) -> Categories:
    """The categories among distinct labels [C], in order, of which there are so many [C] in the training rows.

    Raises:
        StepProblem: There are too many.
    """
    found = np.flatnonzero(counts)
    if isinstance(step, OneHot) and step.max_categories is not None:
        frequent = np.argsort(-counts[found], kind="stable")[: step.max_categories]
        found = np.sort(found[frequent])
    if len(found) > MAX_CATEGORIES:
        remedy = "use hashing, or one_hot with max_categories"
        raise StepProblem(f"has {len(found):,} categories, at most {MAX_CATEGORIES:,} are allowed; {remedy}")
    names = [str(text) for text in distinct[found].tolist()]
    # An imputed text stands after the others; labels of numbers are ascending as numbers.
    return Categories(labels=tuple(sorted(names) if are_texts else names), missing=missing)


def apply_one_hot(step: OneHot, state: Categories, block: Block) -> Numbers:
    """0 and 1 [n, W]."""
    labels = as_labels(block, "one_hot")
    chosen = _positions(step.unseen, state, labels)
    width = state.count + (step.unseen is Unseen.OTHER)
    values = np.zeros((len(chosen), width))
    rows = np.flatnonzero(chosen >= 0)
    values[rows, chosen[rows]] = 1.0
    first = int(step.drop_first)
    return Numbers(values[:, first:], _names(step, state, labels.name)[first:])


def apply_ordinal(step: Ordinal, state: Categories, block: Block) -> Numbers:
    """Positions [n, 1]; -1 for what is ignored."""
    labels = as_labels(block, "ordinal")
    chosen = _positions(step.unseen, state, labels)
    return Numbers(np.maximum(chosen, -1).astype(np.float64)[:, np.newaxis], (labels.name,))


def _positions(unseen: Unseen, state: Categories, labels: Texts) -> NDArray[np.int64]:
    """Each row's position among the categories [n]; < 0 for what is ignored.

    Raises:
        StepProblem: A category is not known, and that is an error.
    """
    known = {label: position for position, label in enumerate(state.labels)}
    table = np.array(
        [*(known.get(label, _UNSEEN) for label in labels.distinct.tolist()), _missing(state)], np.int64
    )
    chosen: NDArray[np.int64] = table[labels.codes]  # the code of missing ones, -1, is the last place
    strange = chosen == _UNSEEN
    if unseen is Unseen.OTHER:
        return np.where(strange, state.count, chosen)
    if unseen is Unseen.ERROR and strange.any():
        raise _unknown(state, labels, strange)
    return chosen


def _missing(state: Categories) -> int:
    return len(state.labels) if state.missing else _UNSEEN


def _unknown(state: Categories, labels: Texts, strange: NDArray[np.bool_]) -> StepProblem:
    row = int(np.argmax(strange))
    code = int(labels.codes[row])
    shown = "missing" if code < 0 else repr(str(labels.distinct[code])[:_SHOWN])
    known = f", which is none of the categories {quoted(state.labels)}"
    remedy = f"{known}; with unseen ignore or other it would be no error"
    return StepProblem(f"is {shown}", row, int(np.count_nonzero(strange)), remedy)


def _names(step: OneHot, state: Categories, name: str) -> tuple[str, ...]:
    names = [f"{name}={label[:_NAMED]}" for label in state.labels]
    if state.missing:
        names.append(f"{name}=<missing>")
    if step.unseen is Unseen.OTHER:
        names.append(f"{name}=<other>")
    return tuple(names)
