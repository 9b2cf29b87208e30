"""Models.GetStatistics over real sockets: pages, single members, and what is refused."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import text_format
from google.rpc import error_details_pb2, status_pb2

from epochd.v1 import fits_pb2, models_pb2_grpc, spec_pb2, trainer_pb2, trainer_pb2_grpc

SHOPS = 5
ROWS = [0.0, 1.0, 2.0, 3.0]


def request(name: str, fit: str) -> trainer_pb2.TrainRequest:
    """Five shops of four rows, y = shop · x and something more."""
    text = f'model_name: "{name}" model {{ linear {{}} }} loss {{ mse {{}} }} {fit}'
    message = text_format.Parse(text, trainer_pb2.TrainRequest())
    columns = message.data.table.columns
    columns.add(name="shop").strings.values.extend(f"s{shop}" for shop in range(SHOPS) for _ in ROWS)
    columns.add(name="x").numbers.values.extend(ROWS * SHOPS)
    noise = [0.1, -0.1, -0.1, 0.1]
    y = [shop * x + more for shop in range(SHOPS) for x, more in zip(ROWS, noise, strict=True)]
    columns.add(name="y").numbers.values.extend(y)
    message.data.target_columns.append("y")
    message.data.group_columns.append("shop")
    return message


@pytest.fixture
async def models(channel) -> models_pb2_grpc.ModelsAsyncStub:
    """The service, with a fleet ``exact-shops`` that was fitted exactly and one that was not."""
    trainer = trainer_pb2_grpc.TrainerStub(channel)
    descent = "gradient { epochs: 1 optimizer { sgd { lr: 0.01 } } }"
    for name, fit in (("exact-shops", "least_squares {}"), ("gradient-shops", descent)):
        answers = [answer async for answer in trainer.Train(request(name, fit))]
        assert answers[-1].events[-1].HasField("succeeded")
    return models_pb2_grpc.ModelsStub(channel)


def key(shop: int) -> spec_pb2.MemberKey:
    return spec_pb2.MemberKey(values=[spec_pb2.KeyValue(text=f"s{shop}")])


async def test_pages_follow_each_other_by_key(models):
    shops, token, pages = [], "", 0
    while pages == 0 or token:
        page = await models.GetStatistics(
            fits_pb2.GetStatisticsRequest(name="models/exact-shops", page_size=2, page_token=token)
        )
        shops += [each.member.values[0].text for each in page.statistics]
        token, pages = page.next_page_token, pages + 1
        assert list(page.coefficient_names) == ["x", "bias"]
    assert shops == [f"s{shop}" for shop in range(SHOPS)]
    assert pages == 3


async def test_a_member_has_slope_and_error_as_by_hand(models):
    response = await models.GetStatistics(
        fits_pb2.GetStatisticsRequest(name="models/exact-shops", key=key(3))
    )
    (found,) = response.statistics
    (output,) = found.outputs
    assert (found.rows, found.rank, found.df_model, found.df_residual) == (4, 2, 1, 2)
    assert list(output.coefficients) == pytest.approx([3.0, 0.0], abs=1e-12)
    # residuals of ±0.1: variance 0.04 / 2, divided by Σ (x − 1.5)² = 5
    assert output.standard_errors[0] == pytest.approx((0.02 / 5) ** 0.5)
    assert output.statistics[0] == pytest.approx(3.0 / (0.02 / 5) ** 0.5)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"name": "models/gradient-shops"}, "name"),
        ({"name": "models/exact-shops", "page_size": -1}, "page_size"),
        ({"name": "models/exact-shops", "page_token": "x"}, "page_token"),
        ({"name": "models/exact-shops", "key": spec_pb2.MemberKey()}, "key.values"),
        ({"name": "nothing"}, "name"),
    ],
)
async def test_a_bad_request_is_told_by_field(models, arguments, field):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await models.GetStatistics(fits_pb2.GetStatisticsRequest(**arguments))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    (trailer,) = [v for k, v in refused.value.trailing_metadata() if k == "grpc-status-details-bin"]
    details = {
        any_.type_url.rpartition(".")[2]: any_ for any_ in status_pb2.Status.FromString(trailer).details
    }
    bad = error_details_pb2.BadRequest.FromString(details["BadRequest"].value)
    assert [violation.field for violation in bad.field_violations] == [field]


async def test_an_unknown_member_is_not_found(models):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await models.GetStatistics(fits_pb2.GetStatisticsRequest(name="models/exact-shops", key=key(99)))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
