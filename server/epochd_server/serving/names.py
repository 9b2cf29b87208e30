"""Which version a name means, remembered.

The server that changes a model forgets at once what its names meant, so that its clients read what they wrote.
Where other servers share the database, a meaning is asked for again after RECHECK_S: for so long a server may
predict with the version before, or with one that was deleted elsewhere. While the database does not answer,
or not soon, what is remembered goes on being used: predictions outlive an outage.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.models import ModelVersion
from epochd_server.domain.resources import VersionReference
from epochd_server.serving.single_flight import SingleFlight

RECHECK_S = 1.0
_PATIENCE_S = 0.5
"""So long a request waits for a name to be looked up again; then it takes what is remembered."""
_MOST_NAMES = 65_536


class VersionSource(Protocol):
    """Where names are looked up."""

    async def get_version(self, reference: VersionReference) -> ModelVersion:
        """The version that is meant; raises EpochdError where there is none."""


class VersionNames:
    """Remembers the meaning of names.

    Args:
        source: Where they are looked up.
        recheck_s: After so many seconds a meaning is looked up again; None: never, ``forget`` is told everything.
        clock: Seconds.
    """

    def __init__(
        self,
        source: VersionSource,
        *,
        recheck_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._recheck_s = float("inf") if recheck_s is None else recheck_s
        self._clock = clock
        self._meanings: OrderedDict[VersionReference, tuple[ModelVersion, float]] = OrderedDict()
        self._of_model: dict[str, set[VersionReference]] = {}
        self._lookups: SingleFlight[VersionReference, ModelVersion] = SingleFlight()

    def known(self, reference: VersionReference) -> ModelVersion | None:
        """The version that is meant, if that is remembered and not due to be looked up again."""
        remembered = self._meanings.get(reference)
        if remembered is None or self._clock() >= remembered[1]:
            return None
        return remembered[0]

    async def look_up(self, reference: VersionReference) -> ModelVersion:
        """The version that is meant.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND, ALIAS_NOT_FOUND; STORAGE_UNAVAILABLE where nothing
                is remembered.
        """
        remembered = self._meanings.get(reference)
        flight = self._lookups.do(reference, lambda: self._ask(reference))
        if remembered is None:
            return await flight
        try:
            return await asyncio.wait_for(flight, _PATIENCE_S)
        except TimeoutError:
            pass
        except EpochdError as error:
            if error.reason is not Reason.STORAGE_UNAVAILABLE:
                raise
        self._remember(reference, remembered[0])
        return remembered[0]

    def forget(self, model: str) -> None:
        """Forgets every name of a model that changed, and what is just being looked up."""
        for reference in self._of_model.pop(model, ()):
            self._meanings.pop(reference, None)
            self._lookups.forget(reference)

    async def _ask(self, reference: VersionReference) -> ModelVersion:
        # From here on a change of the model makes this lookup's answer too old to be remembered.
        self._of_model.setdefault(reference.model, set()).add(reference)
        try:
            version = await self._source.get_version(reference)
        except EpochdError as error:
            if error.reason is not Reason.STORAGE_UNAVAILABLE:
                self._drop(reference)
            raise
        if self._lookups.is_current(reference):
            self._remember(reference, version)
        return version

    def _remember(self, reference: VersionReference, version: ModelVersion) -> None:
        self._of_model.setdefault(reference.model, set()).add(reference)
        self._meanings[reference] = (version, self._clock() + self._recheck_s)
        self._meanings.move_to_end(reference)
        if len(self._meanings) > _MOST_NAMES:
            self._drop(next(iter(self._meanings)))

    def _drop(self, reference: VersionReference) -> None:
        self._meanings.pop(reference, None)
        names = self._of_model.get(reference.model, set())
        names.discard(reference)
        if not names:
            self._of_model.pop(reference.model, None)
