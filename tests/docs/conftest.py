"""A real server for the documents' examples."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from examples.with_server import server

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)

DATA = Path(__file__).parents[2] / "examples" / "data"
"""What /srv/data stands for in the examples."""


@pytest.fixture(scope="session")
def server_address() -> Iterator[str]:
    """Where a real server is."""
    with server("--workers", "1", "--data-root", str(DATA)) as address:
        yield address


@pytest.fixture
def run_page(server_address: str) -> Callable[[str], None]:
    """Runs the Python blocks of a page under docs/, one after the other; each must print what stands below it."""

    def run(name: str) -> None:
        page = (DOCS / name).read_text(encoding="utf-8")
        blocks = BLOCK.findall(page)
        assert len(blocks) == page.count("```python")
        names: dict[str, object] = {}
        for code, expected in blocks:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code.replace("127.0.0.1:50051", server_address), name, "exec"), names)
            assert printed.getvalue() == expected, code
        names["client"].close()

    return run
