"""Members that begin with given values, and members that begin afresh, in one cohort."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from epochd_server.domain.specs import Init, LinearModel, ModuleModel
from epochd_server.engine.cohort import train_cohort
from epochd_server.engine.modules import ModuleRegistry


class Line(nn.Module):
    """A registered line."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x: Any) -> Any:
        return self.linear(x)


@pytest.mark.parametrize("init", list(Init))
@pytest.mark.parametrize("model", [LinearModel(in_features=2, out_features=1), ModuleModel(name="Line")])
def test_members_whose_values_are_nan_begin_afresh(lab: Any, model: Any, init: Init) -> None:
    modules = ModuleRegistry()
    modules.register(Line)
    x, y = np.ones((6, 2), np.float32), np.ones((6, 1), np.float32)
    start = {
        "linear.weight": np.float32([[[1, 2]], [[np.nan, 0]], [[3, 4]]]),
        "linear.bias": np.float32([[5], [0], [6]]),
    }
    arguments = {"sizes": [2, 2, 2], "model": model, "init": init, "epochs": 1, "lr": 0.0, "seeds": [1, 2, 3]}
    given = train_cohort(lab.make_task(x, y, initial=start, **arguments), lab.Recorder(), modules=modules)
    fresh = train_cohort(lab.make_task(x, y, **arguments), lab.Recorder(), modules=modules)
    for name, array in start.items():
        expected = array.copy()
        expected[1] = fresh.parameters[name][1]
        np.testing.assert_array_equal(given.parameters[name], expected)
