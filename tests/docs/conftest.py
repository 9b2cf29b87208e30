"""A real server for the documents' examples."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from examples.with_server import server


@pytest.fixture(scope="session")
def server_address() -> Iterator[str]:
    """Where a real server is."""
    with server("--workers", "1") as address:
        yield address
