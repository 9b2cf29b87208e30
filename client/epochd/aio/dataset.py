"""An uploaded table, as seen by a asyncio client."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from numpy.typing import NDArray

from epochd._core import datasets
from epochd._transport.asynchronous import AsyncTransport
from epochd.descriptions import Description
from epochd.policy import Policy
from epochd.values import Dataset as DatasetFacts


class Dataset(DatasetFacts):
    """An uploaded table; ``client.train`` takes it in place of the data.

    Made by ``client.upload``, ``client.dataset`` and ``client.datasets``.

    Example:
        >>> async def look_at(dataset: Dataset) -> None:
        ...     print(await dataset.describe())
        ...     (await dataset.preview(5))["area"]     # a NumPy array
    """

    _transport: AsyncTransport
    _policy: Policy

    def __init__(self, facts: DatasetFacts, transport: AsyncTransport, policy: Policy) -> None:
        super().__init__(**{field.name: getattr(facts, field.name) for field in fields(DatasetFacts)})
        object.__setattr__(self, "_transport", transport)  # the facts are frozen
        object.__setattr__(self, "_policy", policy)

    async def describe(self) -> Description:
        """Types, missing and distinct values, smallest, largest and mean of each column; prints as a table."""
        return await self._transport.run(datasets.describe(self.name, self._policy))

    async def preview(self, rows: int = 10) -> dict[str, NDArray[Any]]:
        """The first rows as columns by name: ``pandas.DataFrame(dataset.preview())``.

        Args:
            rows: How many, 1 to 1,000.
        """
        return await self._transport.run(datasets.preview(self.name, rows, self._policy))
