"""What was read of a request's rows.

Legend: N rows, d features.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.assembly import Fleet
from epochd_server.data.targets import Targets
from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.preprocessing import FittedPreprocessing
from epochd_server.domain.work import DatasetFile
from epochd_server.planning.holding_out import HeldRows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Values:
    """What was read; None where a fault kept it from being read.

    Attributes:
        features: [N, d], or [F, N, d] where each of F folds has its own; None too where they are a dataset's, which the
            worker reads by itself.
        targets: As the loss takes them.
        weights: [N]; None too where all rows count alike.
        fleet: The members; None too where one model is trained.
        held: Which of the rows are held out.
        given: Held-out rows of their own, or where the worker finds them.
        preprocess: What columns go through to become features; None where they are that already.
        large: Whether the rows are too many for memory: no values are here then, but what is known of them.
    """

    features: NDArray[np.floating] | None
    targets: Targets | None
    weights: NDArray[np.floating] | None
    fleet: Fleet | None
    held: HeldRows = field(default_factory=HeldRows)
    given: TrainingArrays | DatasetFile | None = None
    preprocess: FittedPreprocessing | None = None
    large: bool = False
