"""How large a training may be."""

from __future__ import annotations

from dataclasses import dataclass, fields

from epochd_server.domain.exact_cost import ExactCost


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """Bounds of what is accepted; all inclusive.

    Raises:
        ValueError: A bound is not positive.
    """

    max_parameters: int = 50_000_000
    """Trainable parameters of one model."""

    max_data_bytes: int = 8 * 2**30
    """Bytes of features and targets in the training's precision."""

    max_members: int = 1_000_000
    """Members of a fleet."""

    max_fleet_parameters: int = 500_000_000
    """Trainable parameters of all members of a fleet."""

    max_logged_parameters: int = 10_000
    """Parameters of a model whose epoch logs may hold them."""

    max_exact_bytes: int = 8 * 2**30
    """Memory beside the rows that the exact fit of one model may take."""

    max_exact_operations: int = 10**15
    """Multiplications of the same; about a day of one core."""

    inline_bytes: int = 256 * 2**10
    """Requests of at most so many bytes are planned in the event loop, larger ones in a thread."""

    @property
    def exact(self) -> ExactCost:
        """What the exact fit of one model may take."""
        return ExactCost(self.max_exact_bytes, self.max_exact_operations)

    def __post_init__(self) -> None:
        for bound in fields(self):
            if getattr(self, bound.name) < 1:
                raise ValueError(f"{bound.name} must be at least 1")
