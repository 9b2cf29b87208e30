"""docs/fleets.md: its blocks run one after the other, and print what the page says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from epochd_server.codec import fleets

PAGE = (Path(__file__).parents[2] / "docs" / "fleets.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


def test_every_block_prints_what_stands_below_it(server_address: str):
    names: dict[str, object] = {}
    blocks = BLOCK.findall(PAGE)
    assert len(blocks) == PAGE.count("```python")
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code.replace("127.0.0.1:50051", server_address), "docs/fleets.md", "exec"), names)
        assert printed.getvalue() == expected, code
    names["client"].close()


def test_every_reason_of_a_failed_member_is_listed():
    listed = set(re.findall(r"`([A-Z_]+)`", "\n".join(line for line in PAGE.splitlines() if line[:1] == "|")))
    assert listed == set(fleets._FAILURES)
