"""Five-fold cross-validation of an MLP classifier, from arrays to scores, against scikit-learn's cross_val_score."""

from __future__ import annotations

import warnings

from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier

import epochd
from benchmarks.harness import Row, paired, server

ROWS, FEATURES, CLASSES, HIDDEN = 2_000, 20, 3, 64
EPOCHS, BATCH, FOLDS, LR = 100, 200, 5, 1e-3


def measure() -> list[Row]:
    """Rows: against one process, and against as many as the server has workers."""
    features, labels = make_classification(
        ROWS, FEATURES, n_informative=10, n_classes=CLASSES, random_state=0
    )
    features = features.astype("float32")
    warnings.simplefilter("ignore", ConvergenceWarning)  # both make all their epochs
    with server(workers=2) as address, epochd.connect(address, timeout=300) as client:

        def ours() -> None:
            client.cross_validate(
                features,
                labels,
                folds=FOLDS,
                model=epochd.Sequential(epochd.Linear(HIDDEN), "relu", epochd.Linear(CLASSES)),
                loss="cross_entropy",
                optimizer=epochd.Adam(lr=LR),
                epochs=EPOCHS,
                batch_size=BATCH,
                metrics="accuracy",
                seed=0,
            )

        def theirs(processes: int) -> None:
            # no L2 penalty and no early end, as ours
            model = MLPClassifier(
                (HIDDEN,),
                alpha=0.0,
                batch_size=BATCH,
                learning_rate_init=LR,
                max_iter=EPOCHS,
                n_iter_no_change=EPOCHS,
                random_state=0,
            )
            folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
            cross_val_score(model, features, labels, cv=folds, n_jobs=processes)

        rows = []
        for processes, aim in ((1, "≥ 3 ×"), (2, "")):
            a, b, (low, high) = paired(ours, lambda count=processes: theirs(count), repeats=5)
            rows.append(_row(a, processes, b, (1 / high, 1 / low), aim))
        return rows


def _row(ours: float, processes: int, theirs: float, spread: tuple[float, float], aim: str) -> Row:
    jobs = "one process" if processes == 1 else f"n_jobs={processes}"
    return Row(
        work=f"5-fold cross-validation of an MLP {FEATURES}-{HIDDEN}-{CLASSES}, {ROWS:,} rows, {EPOCHS} epochs",
        ours=ours,
        against=f"scikit-learn cross_val_score of MLPClassifier, {jobs}",
        theirs=theirs,
        aim=aim,
        better="more",
        spread=spread,
    )
