"""Members of fleets over real sockets: lists, single ones, promotions and predictions by key."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import safetensors.numpy

from epochd.v1 import models_pb2 as pb
from epochd.v1 import spec_pb2, tensor_pb2, trainer_pb2
from epochd_server.domain.fleets import Keys, Members
from epochd_server.domain.models import TrainedModel, VersionCard
from epochd_server.domain.records import FIRST_CLAIM, NewRun, Success
from epochd_server.domain.runs import Event, Queued
from epochd_server.domain.specs import (
    GradientFit,
    Init,
    LinearModel,
    Logging,
    Loss,
    LossKind,
    Optimizer,
    OptimizerKind,
    Precision,
    TrainingSpec,
)
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.executor.local import LocalExecutor
from epochd_server.settings import Settings
from epochd_server.storage import open_storage
from epochd_server.wiring import build

NOW = datetime(2026, 7, 1, tzinfo=UTC)
RUN = "01J" + "0" * 23
COUNT = 25
FAILED = {3: "ONE_CLASS_ONLY", 20: "LOSS_NOT_FINITE"}
NAME = "models/shops"
VERSION = f"{NAME}/versions/1"


def fleet() -> TrainedModel:
    """y = member·x + 0.5 for shops s00 to s24; the loss falls with the member's number."""
    states = np.array([2 if n in FAILED else 1 for n in range(COUNT)], np.uint8)
    losses = np.array([np.nan if n in FAILED else 1 / (n + 1) for n in range(COUNT)])
    names = np.array([f"s{n:02}" for n in range(COUNT)], object)
    spec = TrainingSpec(
        model=LinearModel(in_features=1, out_features=1),
        loss=Loss(kind=LossKind.MSE),
        fit=GradientFit(optimizer=Optimizer(kind=OptimizerKind.SGD, lr=0.1), epochs=9),
        init=Init.ZEROS,
        precision=Precision.FLOAT32,
        seed=0,
        logging=Logging(every=1),
        key_columns=("shop",),
    )
    card = VersionCard(
        run_id=RUN, spec=spec, feature_columns=("x",), target_columns=("y",), classes=None, parameters=2,
        rows=4 * COUNT, epochs=9, final_loss=0.1, members=COUNT, failed_members=2, key_columns=("shop",),
    )  # fmt: skip
    weights = np.arange(COUNT, dtype=np.float32).reshape(COUNT, 1, 1)
    weights[list(FAILED)] = np.nan
    members = Members(
        keys=Keys(("shop",), (names,)),
        states=states,
        rows=np.full(COUNT, 4),
        epochs=np.full(COUNT, 9),
        final_losses=losses,
        reasons=FAILED,
    )
    parameters = {"linear.weight": weights, "linear.bias": np.full((COUNT, 1), 0.5, np.float32)}
    return TrainedModel(card=card, parameters=parameters, members=members)


@pytest.fixture
async def shops(tmp_path, connect):
    """The API of a server whose registry has one fleet."""
    settings = Settings(data_dir=tmp_path / "data", workers=1)
    storage = open_storage(settings.data_dir, convert=lambda *_: None, most_dataset_bytes=1)
    trained = fleet()
    run = NewRun(
        run_id=RUN, model="shops", spec=trained.card.spec, request=b"", asked=None, fingerprint=b"",
        client="", create_time=NOW,
    )  # fmt: skip
    await storage.runs.accept(run, Event(1, NOW, Queued(run_id=RUN, model="shops")))
    success = Success(
        run_id=RUN, claim=FIRST_CLAIM, sequence=2, time=NOW, trained=trained, training_seconds=1.0
    )
    assert (await storage.runs.record([success]))[0].body.version == 1
    parts = build(settings, storage, ModuleRegistry.load(()), LocalExecutor(1))
    port = parts.server.add_insecure_port("127.0.0.1:0")
    await parts.server.start()
    async with connect(f"127.0.0.1:{port}") as api:
        yield api
    await parts.server.stop(0)
    await parts.runs.close()
    parts.computer.close()
    storage.close()


def key(text: str) -> spec_pb2.MemberKey:
    return spec_pb2.MemberKey(values=[spec_pb2.KeyValue(text=text)])


def shown(members) -> list[str]:
    return [member.key.values[0].text for member in members]


async def pages(api, **request) -> list[pb.ListMembersResponse]:
    found, token = [], ""
    while True:
        found.append(
            await api.models.ListMembers(pb.ListMembersRequest(name=NAME, page_token=token, **request))
        )
        token = found[-1].next_page_token
        if not token:
            return found


class TestList:
    async def test_a_version_says_that_it_is_a_fleet(self, shops):
        version = (await shops.models.GetVersion(pb.GetVersionRequest(name=NAME))).version
        assert (version.members, version.failed_members, list(version.key_columns)) == (25, 2, ["shop"])

    async def test_is_by_key_page_by_page(self, shops):
        found = await pages(shops, page_size=10)
        assert [len(page.members) for page in found] == [10, 10, 5]
        assert [page.total for page in found] == [25] * 3
        assert [name for page in found for name in shown(page.members)] == [f"s{n:02}" for n in range(25)]

    async def test_by_loss_has_the_best_first_and_the_failed_last(self, shops):
        [page] = await pages(shops, order=pb.MEMBER_ORDER_BY_LOSS)
        assert shown(page.members)[:2] == ["s24", "s23"]
        assert shown(page.members)[-2:] == ["s03", "s20"]

    async def test_may_be_of_one_state_and_says_why_members_failed(self, shops):
        [page] = await pages(shops, state=pb.MEMBER_STATE_FAILED)
        assert (shown(page.members), page.total) == (["s03", "s20"], 2)
        assert [member.failure.reason for member in page.members] == ["ONE_CLASS_ONLY", "LOSS_NOT_FINITE"]
        assert all(member.failure.message and member.failure.hint for member in page.members)
        [page] = await pages(shops, state=pb.MEMBER_STATE_SUCCEEDED)
        assert page.total == 23
        one = page.members[1]
        assert (one.rows, one.epochs, one.final_loss) == (4, 9, 0.5)
        assert not one.HasField("failure")

    async def test_goes_on_with_the_version_that_it_began_with(self, shops):
        first = await shops.models.ListMembers(pb.ListMembersRequest(name=NAME, page_size=20))
        await shops.models.PromoteMember(pb.PromoteMemberRequest(name=NAME, key=key("s01")))
        request = pb.ListMembersRequest(name=NAME, page_size=20, page_token=first.next_page_token)
        assert len((await shops.models.ListMembers(request)).members) == 5

    async def test_refuses_all_that_is_wrong_at_once(self, shops):
        request = pb.ListMembersRequest(name=NAME, page_size=10_001, page_token="x", order=9, state=9)
        refusal = await shops.refused(shops.models.ListMembers(request))
        assert set(refusal.fields) == {"page_size", "page_token", "order", "state"}

    async def test_refuses_the_token_of_another_list(self, shops):
        first = await shops.models.ListMembers(pb.ListMembersRequest(name=NAME, page_size=2))
        request = pb.ListMembersRequest(
            name=NAME, page_token=first.next_page_token, order=pb.MEMBER_ORDER_BY_LOSS
        )
        assert set((await shops.refused(shops.models.ListMembers(request))).fields) == {"page_token"}


class TestGet:
    async def test_shows_a_member_with_its_parameters(self, shops, array):
        answer = await shops.models.GetMember(pb.GetMemberRequest(name=NAME, key=key("s07")))
        assert (answer.model_version, shown([answer.member])) == (VERSION, ["s07"])
        found = {parameter.name: array(parameter.tensor).tolist() for parameter in answer.parameters}
        assert found == {"linear.weight": [[7.0]], "linear.bias": [0.5]}

    async def test_shows_one_that_failed_without_parameters(self, shops):
        answer = await shops.models.GetMember(pb.GetMemberRequest(name=NAME, key=key("s03")))
        assert answer.member.state == pb.MEMBER_STATE_FAILED
        assert not answer.parameters

    async def test_of_nobody_is_not_found(self, shops):
        refusal = await shops.refused(shops.models.GetMember(pb.GetMemberRequest(name=NAME, key=key("q"))))
        assert (refusal.code, refusal.reason) == ("NOT_FOUND", "MEMBER_NOT_FOUND")
        assert (refusal.metadata["name"], refusal.metadata["member"]) == (VERSION, "'q'")

    async def test_without_a_key_is_invalid(self, shops):
        refusal = await shops.refused(shops.models.GetMember(pb.GetMemberRequest(name=NAME)))
        assert set(refusal.fields) == {"key.values"}

    async def test_all_parameters_have_the_members_first(self, shops, array):
        answer = await shops.models.GetParameters(pb.GetParametersRequest(name=NAME))
        chunks = [m.data async for m in shops.models.ExportVersion(pb.ExportVersionRequest(name=NAME))]
        exported = safetensors.numpy.load(b"".join(chunks))
        for parameter in answer.parameters:
            assert array(parameter.tensor).shape[0] == COUNT
            np.testing.assert_array_equal(exported[parameter.name], array(parameter.tensor))


class TestPromote:
    async def test_makes_a_version_that_predicts_like_the_member(self, shops, tensor, array):
        request = pb.PromoteMemberRequest(name=NAME, key=key("s07"), model_name="best", request_id="r-1")
        version = (await shops.models.PromoteMember(request)).version
        assert (version.name, version.fleet, version.member) == (
            "models/best/versions/1",
            VERSION,
            key("s07"),
        )
        assert (version.members, version.rows, version.final_loss) == (0, 4, 0.125)
        assert (await shops.models.PromoteMember(request)).version == version
        predict = trainer_pb2.PredictRequest(model=version.name, tensor=tensor([[2.0]]))
        assert array((await shops.trainer.Predict(predict)).values).tolist() == [14.5]

    async def test_of_one_that_failed_is_refused(self, shops):
        refusal = await shops.refused(
            shops.models.PromoteMember(pb.PromoteMemberRequest(name=NAME, key=key("s03")))
        )
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "MEMBER_FAILED")
        assert refusal.metadata["failure"] == "ONE_CLASS_ONLY"

    async def test_with_a_request_id_of_another_request_is_refused(self, shops):
        for text in ("s01", "s02"):
            request = pb.PromoteMemberRequest(name=NAME, key=key(text), request_id="r-1")
            call = shops.models.PromoteMember(request)
            if text == "s01":
                await call
        refusal = await shops.refused(call)
        assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")

    async def test_refuses_all_that_is_wrong_at_once(self, shops):
        request = pb.PromoteMemberRequest(name="shops", model_name="A b", request_id=" ")
        refusal = await shops.refused(shops.models.PromoteMember(request))
        assert set(refusal.fields) == {"name", "key.values", "model_name", "request_id"}


@pytest.mark.parametrize("method", ["ListMembers", "GetMember", "PromoteMember"])
async def test_a_single_model_has_no_members(shops, method):
    await shops.models.PromoteMember(pb.PromoteMemberRequest(name=NAME, key=key("s01"), model_name="one"))
    kind = getattr(pb, f"{method}Request")
    request = kind(name="models/one") if method == "ListMembers" else kind(name="models/one", key=key("s01"))
    refusal = await shops.refused(getattr(shops.models, method)(request))
    assert "must name a fleet" in refusal.fields["name"]


def table(**columns) -> tensor_pb2.Table:
    made = []
    for name, values in columns.items():
        if isinstance(values[0], str):
            made.append(tensor_pb2.Column(name=name, strings=tensor_pb2.Strings(values=values)))
        else:
            made.append(tensor_pb2.Column(name=name, numbers=tensor_pb2.Numbers(values=values)))
    return tensor_pb2.Table(columns=made)


class TestPredict:
    async def test_sends_each_row_to_the_member_of_its_key(self, shops, array):
        rows = table(shop=["s02", "s10", "s02"], x=[1, 1, 3])
        answer = await shops.trainer.Predict(trainer_pb2.PredictRequest(model=NAME, table=rows))
        assert array(answer.values).tolist() == [2.5, 10.5, 6.5]

    async def test_takes_keys_beside_tensors_and_gives_nan_where_asked(self, shops, tensor, array):
        request = trainer_pb2.PredictRequest(
            model=NAME, tensor=tensor([[1.0], [1.0]]), keys=table(shop=["s02", "q"]), unknown_as_nan=True
        )
        np.testing.assert_array_equal(array((await shops.trainer.Predict(request)).values), [2.5, np.nan])

    async def test_names_unknown_keys(self, shops):
        rows = table(shop=["q", "s03", "s01"], x=[1, 1, 1])
        refusal = await shops.refused(
            shops.trainer.Predict(trainer_pb2.PredictRequest(model=NAME, table=rows))
        )
        assert refusal.code == "INVALID_ARGUMENT"
        assert set(refusal.fields) == {"table"}
        assert "'q'" in refusal.message
        assert "'s03' (ONE_CLASS_ONLY)" in refusal.message
