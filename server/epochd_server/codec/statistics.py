"""Statistics of exact fits: domain → messages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epochd.v1 import fits_pb2 as pb
from epochd_server.domain.statistics import Array, FitStatistics


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StatisticsEncoder:
    """Makes the messages of members.

    Attributes:
        statistics: Of K members.
        p_values: [K, t, p].
        f_p_values: [K, t]; None for classifiers.
        outputs: Names of the t outputs.
    """

    statistics: FitStatistics
    p_values: Array
    f_p_values: Array | None
    outputs: Sequence[str]

    def encode(self, member: int) -> pb.FitStatistics:
        """The message of one member, without its key."""
        found = self.statistics
        return pb.FitStatistics(
            rows=int(found.rows[member]),
            rank=int(found.ranks[member]),
            condition=float(found.conditions[member]),
            df_model=int(found.df_model[member]),
            df_residual=int(found.df_residual[member]),
            outputs=[self._output(member, output, name) for output, name in enumerate(self.outputs)],
            **_known({name: values[member] for name, values in found.whole.items()}),
        )

    def _output(self, member: int, output: int, name: str) -> pb.OutputStatistics:
        found = self.statistics
        values = {key: column[member, output] for key, column in found.outputs.items()}
        if self.f_p_values is not None:
            values["f_p_value"] = self.f_p_values[member, output]
        return pb.OutputStatistics(
            name=name,
            coefficients=found.coefficients[member, output].tolist(),
            standard_errors=found.standard_errors[member, output].tolist(),
            statistics=found.statistics[member, output].tolist(),
            p_values=self.p_values[member, output].tolist(),
            **_known(values),
        )


def _known(values: Mapping[str, float]) -> dict[str, Any]:
    """Without what has no theory."""
    return {name: float(value) for name, value in values.items() if not math.isnan(value)}
