"""--preprocess: short texts for steps."""

from __future__ import annotations

import pytest
import typer

from epochd.cli.preprocessing import preprocess
from epochd.preprocessing import Bucketize, Hash, Impute, OneHot, Ordinal, Preprocess, Standardize, TimeParts


def test_none_is_no_preprocessing_and_auto_is_all_of_it():
    assert preprocess([]) is None
    assert preprocess(["auto"]) == Preprocess()


def test_steps_by_column_have_arguments_and_follow_each_other():
    texts = [
        "age,income=impute:fill=median:indicator=true+standardize",
        "city=one_hot:unseen=other:max_categories=5",
        "time=time_parts:parts=hour/weekday:cyclic=false",
        "size=ordinal:categories=s/m/l",
        "rent=bucketize:edges=10/20.5",
        "id=hash:features=32",
        "others=drop",
    ]
    expected = {
        ("age", "income"): [Impute("median", indicator=True), Standardize()],
        "city": OneHot(unseen="other", max_categories=5),
        "time": TimeParts("hour", "weekday", cyclic=False),
        "size": Ordinal(categories=["s", "m", "l"]),
        "rent": Bucketize([10, 20.5]),
        "id": Hash(32),
    }
    assert preprocess(texts) == Preprocess(expected, others="drop")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("automatic", "must be auto or COLUMNS=STEPS"),
        ("age=scale", "'scale' is no step; steps are auto"),
        ("age=impute:median", "must be KEY=VALUE"),
        ("age=impute:how=median", "unexpected keyword argument 'how'"),
        ("age=impute:fill=most", "fill must be one of mean"),
        ("others=keep", "others must be one of auto"),
    ],
)
def test_what_is_no_step_is_told(text, says):
    with pytest.raises(typer.BadParameter, match=says):
        preprocess([text])
