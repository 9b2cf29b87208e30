"""Checks that several services make of a request: names, pages, and that what was decoded is there."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Final, TypeVar

from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.resources import (
    VERSION_REFERENCE_RULE,
    VersionReference,
    parse_dataset,
    parse_model,
    parse_run,
    parse_version_reference,
)

DEFAULT_PAGE: Final = 50
MAX_PAGE: Final = 1_000

_T = TypeVar("_T")
_SHOWN = 80


def required(value: _T | None, violations: Violations) -> _T:
    """What a decoder gave, once it is sure that it found nothing wrong.

    Raises:
        InvalidInput: All violations.
    """
    violations.raise_if_any()
    if value is None:
        raise EpochdError(Reason.INTERNAL)
    return value


def run_id(name: str, field: str = "name", violations: Violations | None = None) -> str:
    """The id in ``runs/{run}``.

    Raises:
        InvalidInput: ``name`` has another form, or there are violations already.
    """
    return _parsed(parse_run(name), name, field, "must be runs/{run}", violations)


def model_id(name: str, field: str = "name", violations: Violations | None = None) -> str:
    """The id in ``models/{model}``.

    Raises:
        InvalidInput: ``name`` has another form, or there are violations already.
    """
    return _parsed(parse_model(name), name, field, "must be models/{model}", violations)


def dataset_digest(name: str, field: str = "name", violations: Violations | None = None) -> str:
    """The digest in ``datasets/{dataset}``.

    Raises:
        InvalidInput: ``name`` has another form, or there are violations already.
    """
    rule = "must be datasets/ and 64 lower-case hex digits"
    return _parsed(parse_dataset(name), name, field, rule, violations)


def version_reference(name: str, field: str = "name") -> VersionReference:
    """The version that ``name`` refers to in one of three ways.

    Raises:
        InvalidInput: ``name`` has none of the three forms.
    """
    return _parsed(parse_version_reference(name), name, field, VERSION_REFERENCE_RULE)


def parse_exact_version(name: str) -> tuple[str, int] | None:
    """Model and number in ``models/{model}/versions/{version}``, or None where ``name`` has another form."""
    reference = parse_version_reference(name)
    return None if reference is None or reference.version is None else (reference.model, reference.version)


def exact_version(name: str, field: str = "name", violations: Violations | None = None) -> tuple[str, int]:
    """Model and number in ``models/{model}/versions/{version}``.

    Raises:
        InvalidInput: ``name`` has another form, or there are violations already.
    """
    rule = "must be models/{model}/versions/{version}"
    return _parsed(parse_exact_version(name), name, field, rule, violations)


class PageRequest:
    """A page that a List method was asked for.

    Args:
        size: ``page_size``; 0 means the default.
        token: ``page_token``; empty means the first page.
        violations: Collects what is wrong with the size.
        default: The size where it is unset.
        most: The largest size.

    Attributes:
        size: At most so many entries.
    """

    def __init__(
        self,
        size: int,
        token: str,
        violations: Violations,
        *,
        default: int = DEFAULT_PAGE,
        most: int = MAX_PAGE,
    ) -> None:
        if not 0 <= size <= most:
            violations.add("page_size", f"must be from 0 (unset) to {most:,}, is {size:,}")
        self.size = size or default
        self._token = token

    @property
    def fetch(self) -> int:
        """One entry more than the page holds, to know whether there is a next one."""
        return self.size + 1

    def after_as(self, parse: Callable[[str], _T | None], violations: Violations) -> _T | None:
        """Where the page before ended, as parsed from the token; None for the first page."""
        if not self._token:
            return None
        text = _decode_token(self._token)
        last = None if text is None else parse(text)
        if last is None:
            violations.add("page_token", "must be the next_page_token of the page before")
        return last

    def split(self, entries: list[_T]) -> tuple[list[_T], bool]:
        """The page among the entries fetched, and whether there are more."""
        return entries[: self.size], len(entries) > self.size


def page_token(last: str) -> str:
    """The token of the page that follows the entry ``last``. Clients should not read it."""
    return base64.urlsafe_b64encode(last.encode()).decode()


def _decode_token(token: str) -> str | None:
    try:
        return base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        return None


def _parsed(value: _T | None, name: str, field: str, rule: str, violations: Violations | None = None) -> _T:
    """The value, where there is one and nothing else was found wrong."""
    found = violations or Violations()
    if value is None:
        found.add(field, f"{rule}, is {name[:_SHOWN]!r}")
    return required(value, found)
