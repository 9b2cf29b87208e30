"""The example of preprocessing finds what its made-up flats were made of."""

from __future__ import annotations

import re
from collections.abc import Callable


def test_the_model_knows_the_columns_by_name_and_predicts_raw_rows(example: Callable[[str], str]):
    text = example("preprocessing.py")
    assert "city (text): one_hot(ignore, first dropped)" in text
    found = dict(re.findall(r"^(\S+) +(-?[\d.]+)$", text, re.MULTILINE))
    assert 140 < float(found["area"]) < 160
    assert 2_000 < float(found["city=Oslo"]) < 3_000
    assert re.search(r"as they are: \[\d+\. +\d+\.\]", text)
