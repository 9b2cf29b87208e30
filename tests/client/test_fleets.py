"""Fleets and sweeps through both clients: what is asked for, and what comes back."""

from __future__ import annotations

import io

import grpc
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import epochd
from epochd import events
from epochd._core.data import INLINE_BYTES, gather
from epochd._wire.keys import decode_key, encode_key
from epochd.keys import key_parts
from epochd.progress import ProgressBar
from epochd.v1 import models_pb2, run_pb2, spec_pb2

STORES = pd.DataFrame(
    {"store": ["b", "a", "b"], "size": [1.0, 2.0, 3.0], "sales": [2.0, 4.0, 6.0], "trust": [1.0, 0.5, 0.0]}
)


def member(key, loss=0.25, rows=2, epochs=5, reason=""):
    message = models_pb2.Member(key=encode_key(key), state=1, rows=rows, epochs=epochs, final_loss=loss)
    if reason:
        message.state = 2
        message.failure.CopyFrom(run_pb2.Failure(reason=reason, message="It has one class only.", hint="…"))
    return message


@pytest.fixture
def fleet(fake):
    """Makes the server's model a fleet of three stores, of which one failed."""
    does = fake.does
    does.version.key_columns[:] = ["store"]
    does.version.feature_columns[:] = ["size"]
    does.version.target_columns[:] = ["sales"]
    does.version.members, does.version.failed_members = 3, 1
    does.members = [member("a", 0.5), member("b", 0.125), member("c", np.nan, 1, 0, "ONE_CLASS_ONLY")]
    does.parameters = {
        "linear.weight": np.array([[[1.0]], [[2.0]], [[np.nan]]], "float32"),
        "linear.bias": np.array([[0.5], [0.25], [np.nan]], "float32"),
    }
    return does


@pytest.fixture
def use(call, steps):
    """``use(lambda fleet: fleet.keys())``: what a call on the fleet gives."""

    def run(ask):
        @steps
        def asking(client):
            found = yield client.model("house-price")
            return (yield ask(found))

        return call(asking)

    return run


# -- asking for fleets ---------------------------------------------------------------------------------------------


def test_group_by_and_weight_name_columns_of_a_table(call, request_of, train_arguments):
    call(lambda c: c.train(STORES, target="sales", group_by="store", weight="trust", **train_arguments))
    data = request_of("Train").data
    assert (list(data.group_columns), data.weight_column) == (["store"], "trust")
    assert [column.name for column in data.table.columns] == list(STORES)


def test_several_key_columns_make_one_key(call, request_of, train_arguments):
    frame = STORES.assign(sku=[1, 2, 3])
    call(lambda c: c.train(frame, target="sales", group_by=["store", "sku"], **train_arguments))
    assert list(request_of("Train").data.group_columns) == ["store", "sku"]


def test_chosen_features_take_keys_and_weights_along():
    rows = gather(STORES, None, target="sales", features=["size"], group_by="store", weight="trust")
    assert [column.name for column in rows.table.columns] == ["size", "sales", "store", "trust"]
    assert list(rows.feature_columns) == ["size"]


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        (np.array([7, 8, 7]), "group"),
        (["a", "b", "a"], "group"),
        (pd.Series(["a", "b", "a"], name="store"), "store"),
        (pl.Series("store", [1, 2, 1]), "store"),
        ({"store": [1, 2, 1]}, "store"),
    ],
    ids=["array", "list", "pandas", "polars", "dict"],
)
def test_arrays_take_keys_as_values(keys, name):
    rows = gather(np.ones((3, 2)), [1.0, 2.0, 3.0], group_by=keys)
    assert [column.name for column in rows.table.columns] == ["x0", "x1", "y", name]
    assert list(rows.group_columns) == [name]
    assert list(rows.target_columns) == ["y"]


def test_arrays_take_several_keys_and_weights_as_values():
    keys = {"store": ["a", "b"], "sku": [1, 2]}
    rows = gather([[1.0], [2.0]], [1.0, 2.0], group_by=keys, weight=[1.0, 0.5])
    assert [column.name for column in rows.table.columns] == ["x0", "y", "store", "sku", "weight"]
    assert (list(rows.group_columns), rows.weight_column) == (["store", "sku"], "weight")


def test_values_of_keys_may_stand_beside_a_table():
    rows = gather(STORES[["size", "sales"]], None, target="sales", group_by=np.array([1, 2, 1]))
    assert [column.name for column in rows.table.columns] == ["size", "sales", "group"]


def test_keys_of_another_length_are_refused():
    with pytest.raises(epochd.InvalidArgument, match="different lengths"):
        gather([[1.0], [2.0]], [1.0, 2.0], group_by=[1, 2, 3])


def test_names_of_columns_are_refused_beside_arrays():
    with pytest.raises(epochd.InvalidArgument, match="name columns of a table"):
        gather([[1.0]], [1.0], group_by="store")


def test_files_and_datasets_have_their_keys_in_columns():
    digest = f"datasets/{'0' * 64}"
    rows = gather(digest, None, target="sales", group_by=["store"], weight="trust")
    assert (rows.dataset, list(rows.group_columns), rows.weight_column) == (digest, ["store"], "trust")
    with pytest.raises(epochd.InvalidArgument, match="name columns"):
        gather(digest, None, target="sales", group_by=np.array([1, 2]))


def test_a_large_fleet_is_uploaded_with_its_keys():
    rows_count = INLINE_BYTES // 16 + 1
    table = {"x": np.zeros(rows_count), "y": np.zeros(rows_count), "store": np.arange(rows_count)}
    rows = gather(table, None, target="y", group_by="store")
    assert rows.upload is not None
    assert list(rows.group_columns) == ["store"]


@pytest.mark.parametrize(
    "sweep",
    [epochd.Sweep(lr=[0.1, 0.01], seed=range(3)), {"lr": np.array([0.1, 0.01]), "seed": [0, 1, 2]}],
    ids=["Sweep", "dict"],
)
def test_a_sweep_lists_what_is_combined(call, request_of, train_arguments, sweep):
    call(lambda c: c.train([[1.0]], [1.0], sweep=sweep, **train_arguments))
    assert request_of("Train").sweep == spec_pb2.Sweep(lr=[0.1, 0.01], seed=[0, 1, 2])
    assert not request_of("Train").data.HasField("table")


def test_without_a_sweep_there_is_none(call, request_of, train_arguments):
    call(lambda c: c.train([[1.0]], [1.0], **train_arguments))
    assert not request_of("Train").HasField("sweep")


def test_a_sweep_knows_its_names_and_size():
    sweep = epochd.Sweep(seed=[1, 2], weight_decay=[0.0, 0.1, 0.2])
    assert (sweep.names, len(sweep)) == (("weight_decay", "seed"), 6)


def test_what_cannot_be_swept_is_refused(train_arguments):
    with pytest.raises(epochd.InvalidArgument, match="'batch_size'"):
        epochd._core.plans.plan_training([[1.0]], [1.0], sweep={"batch_size": [1]}, **train_arguments)
    for wrong in ({"lr": 0.1}, {"lr": "0.1"}, {"seed": [0.5]}, {"momentum": [True]}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            epochd.Sweep(**wrong)


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        ({"group_by": "store"}, ["a", {"store": "b"}]),
        ({"sweep": {"lr": [0.1], "seed": [1]}}, [(0.1, 1), {"seed": 1, "lr": 0.1}]),
    ],
)
def test_logs_of_members_are_asked_for_by_key(call, request_of, train_arguments, arguments, keys):
    call(lambda c: c.train(STORES, target="sales", log_members=keys, **arguments, **train_arguments))
    asked = [decode_key(key) for key in request_of("Train").logging.members]
    assert asked in ([("a"), ("b")], [(0.1, 1), (0.1, 1)])


# -- what the run says ---------------------------------------------------------------------------------------------


@pytest.fixture
def fleet_events(fleet):
    """A run of a fleet: two reports and a member's log."""
    loss = run_pb2.LossQuantiles(min=0.01, p25=0.1, p50=0.12, p75=0.2, max=4.5)
    worst = [run_pb2.MemberLoss(key=encode_key("c"), loss=4.5)]
    log = run_pb2.EpochLog(epoch=4, loss=0.2, lr=0.01)
    fleet.events = [
        run_pb2.Event(queued=run_pb2.Queued(run="runs/r1", model="models/house-price")),
        run_pb2.Event(started=run_pb2.Started(epochs=5, members=3, key_columns=["store"], parameters=2)),
        run_pb2.Event(fleet_progress=run_pb2.FleetProgress(members_total=3, eta_seconds=0.4)),
        run_pb2.Event(member_log=run_pb2.MemberLog(key=encode_key("a"), log=log)),
        run_pb2.Event(
            fleet_progress=run_pb2.FleetProgress(
                members_done=3, members_failed=1, members_total=3, loss=loss, worst=worst, elapsed_seconds=2
            )
        ),
        run_pb2.Event(
            succeeded=run_pb2.Succeeded(
                model_version="models/house-price/versions/3", epochs=5, final_loss=0.12, members=3,
                failed_members=1, training_seconds=2,
            )
        ),
    ]  # fmt: skip
    for sequence, event in enumerate(fleet.events, 1):
        event.sequence = sequence
    return fleet.events


@pytest.mark.usefixtures("fleet_events")
def test_logs_of_a_fleet_are_its_progress_and_the_logs_of_chosen_members(call, steps, train_arguments):
    @steps
    def follow(client):
        run = yield client.train(STORES, target="sales", group_by="store", **train_arguments)
        return (yield run.logs())

    began, log, ended = call(follow)
    assert str(began) == "0/3 members, eta 400 ms"
    assert isinstance(log, epochd.MemberLog)
    assert (log.key, log.epoch, log.epochs, str(log)) == ("a", 4, 5, "a  Epoch 4/4  loss 0.200000  lr 0.01")
    assert str(ended) == "3/3 members, 1 failed, loss p50 0.12 (p25 0.1 … p75 0.2), worst c 4.5, 2 s"
    assert ended.worst == (("c", 4.5),)
    assert ended.metrics["loss_p50"] == 0.12
    assert began.loss is None


@pytest.mark.usefixtures("fleet_events")
def test_the_first_and_last_events_count_members(call, steps, train_arguments):
    @steps
    def follow(client):
        run = yield client.train(STORES, target="sales", group_by="store", **train_arguments)
        return (yield run.events())

    _, started, *_, succeeded = call(follow)
    assert (started.members, started.key_columns) == (3, ("store",))
    assert "3 members by store, each 2 parameters" in str(started)
    assert (succeeded.members, succeeded.failed_members) == (3, 1)
    assert "with 3 members, 1 of them failed, after 5 epochs" in str(succeeded)


@pytest.mark.usefixtures("fleet_events")
def test_the_result_of_a_fleet_is_a_fleet(call, steps, train_arguments):
    @steps
    def train(client):
        run = yield client.train(STORES, target="sales", group_by="store", **train_arguments)
        return (yield run.result())

    assert type(call(train)).__name__ == "Fleet"


def test_the_progress_bar_counts_members():
    file = io.StringIO()
    head = {"time": events.datetime.now(), "sequence": 1}
    with ProgressBar("sales", file=file, live=True) as bar:
        bar.show(events.FleetProgress(**head, members_done=5, members_failed=0, members_total=10))
        bar.show(events.MemberLog(**head, key="a", epoch=1, epochs=2, loss=0.5, lr=0.1))
    assert file.getvalue() == f"\rsales {'━' * 12}{'─' * 12} 5/10 members\n"


# -- the fleet -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fleet")
def test_printing_a_fleet_tells_what_it_is(call):
    found = call(lambda c: c.model("house-price"))
    assert isinstance(found, epochd.Fleet | epochd.aio.Fleet)
    assert str(found).splitlines() == [
        "models/house-price/versions/3",
        "  fleet     3 members by store, 1 of them failed",
        "  model     Linear(1, 1), 2 parameters each, float32",
        "  trained   5 epochs on 3 rows, median loss 0.2 (mse)",
        "  features  size",
        "  target    sales",
        "  run       runs/r1, seed 1",
    ]
    assert (len(found), found.failed_members, found.key_columns) == (3, 1, ("store",))
    assert found.sweep is None


def test_printing_a_sweep_tells_what_was_swept(call, fleet):
    fleet.version.key_columns[:] = ["lr", "seed"]
    fleet.version.sweep.lr[:] = [0.1, 0.01]
    fleet.version.sweep.seed[:] = [1, 2]
    found = call(lambda c: c.model("house-price"))
    assert "  sweep     3 members by lr, seed, 1 of them failed" in str(found)
    assert found.sweep == epochd.Sweep(lr=[0.1, 0.01], seed=[1, 2])


@pytest.mark.usefixtures("fleet")
def test_versions_are_fleets_too(call):
    (found,) = call(lambda c: c.versions("house-price"))
    assert len(found) == 3


@pytest.mark.usefixtures("fleet")
def test_parameters_are_stacked_in_the_order_of_keys(use):
    assert use(lambda fleet: fleet.keys()) == ["a", "b", "c"]
    stacked = use(lambda fleet: fleet.parameters())
    assert stacked["linear.weight"].shape == (3, 1, 1)
    np.testing.assert_array_equal(stacked["linear.bias"][:, 0], [0.5, 0.25, np.nan])


@pytest.mark.parametrize("fits", [True, False], ids=["message", "export"])
def test_a_table_has_the_keys_and_a_column_a_scalar(use, fleet, fits):
    fleet.parameters_fit = fits
    frame = pd.DataFrame(use(lambda fleet: fleet.to_table()))
    assert list(frame.columns) == ["store", "linear.weight[0,0]", "linear.bias[0]"]
    assert frame.store.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(frame["linear.weight[0,0]"], [1, 2, np.nan])


@pytest.mark.usefixtures("fleet")
def test_members_say_how_they_were_trained(use):
    first, _, last = use(lambda fleet: fleet.members())
    assert (first.key, first.state, first.rows, first.epochs, first.final_loss) == (
        "a",
        "SUCCEEDED",
        2,
        5,
        0.5,
    )
    assert (str(first), first.failure) == ("store=a  2 rows  5 epochs  loss 0.5", None)
    assert last.state == epochd.State.FAILED
    assert last.failure.reason == "ONE_CLASS_ONLY"
    assert str(last) == "store=c  1 rows  failed: It has one class only [ONE_CLASS_ONLY]"
    assert last.fleet == "models/house-price/versions/3"


@pytest.mark.usefixtures("fleet")
def test_members_are_filtered_and_ordered_by_the_server(use):
    assert [m.key for m in use(lambda fleet: fleet.members(state="FAILED"))] == ["c"]
    assert [m.key for m in use(lambda fleet: fleet.members(order="loss"))] == ["b", "a", "c"]


def test_members_come_page_by_page(use, fleet):
    fleet.members = [member(key, key / 7) for key in range(2_500)]
    assert [m.key for m in use(lambda fleet: fleet.members())] == list(range(2_500))
    assert fleet.count("ListMembers") == 3
    assert use(lambda fleet: fleet.keys()) == list(range(2_500))
    assert len(use(lambda fleet: fleet.ranking(limit=1_500))) == 1_500


@pytest.mark.usefixtures("fleet")
def test_the_ranking_prints_as_a_table(use):
    ranking = use(lambda fleet: fleet.ranking())
    assert [m.key for m in ranking] == ["b", "a", "c"]
    assert str(ranking).splitlines() == [
        "    store    loss          epochs",
        "1.      b   0.125               5",
        "2.      a     0.5               5",
        "3.      c  failed  ONE_CLASS_ONLY",
    ]
    assert [m.key for m in ranking[:2]] == ["b", "a"]
    assert repr(ranking) == "<Ranking of 3 members>"


def test_a_long_ranking_prints_its_beginning(use, fleet):
    fleet.version.key_columns[:] = ["lr", "seed"]
    fleet.members = [member((0.1, seed), seed) for seed in range(30)]
    lines = str(use(lambda fleet: fleet.ranking())).splitlines()
    assert len(lines) == 22
    assert lines[1].split() == ["1.", "0.1", "0", "0", "5"]
    assert lines[-1] == "… and 10 more"


@pytest.mark.usefixtures("fleet")
def test_the_best_member_has_the_smallest_loss(use):
    assert use(lambda fleet: fleet.best).key == "b"


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize("key", ["b", ("b",), {"store": "b"}])
def test_a_member_is_found_by_its_key_and_has_its_parameters(call, steps, key):
    @steps
    def ask(client):
        found = yield client.model("house-price")
        chosen = yield found.member(key)
        return chosen.keys_by_column, (yield chosen.parameters())

    named, parameters = call(ask)
    assert named == {"store": "b"}
    assert parameters["linear.weight"].tolist() == [[2.0]]


@pytest.mark.usefixtures("fleet")
def test_a_listed_member_asks_for_its_parameters(call, steps):
    @steps
    def ask(client):
        found = yield client.model("house-price")
        first, *_ = yield found.members()
        return (yield first.parameters())

    assert call(ask)["linear.bias"].tolist() == [0.5]


@pytest.mark.usefixtures("fleet")
def test_there_may_be_no_such_member(use):
    with pytest.raises(epochd.NotFound):
        use(lambda fleet: fleet.member("nowhere"))
    with pytest.raises(epochd.InvalidArgument, match="must name store"):
        use(lambda fleet: fleet.member({"shop": "a"}))


@pytest.mark.usefixtures("fleet")
def test_a_promoted_member_is_a_model_of_its_own(use, request_of):
    model = use(lambda fleet: fleet.promote("b", name="flagship"))
    assert request_of("PromoteMember").model_name == "flagship"
    assert request_of("PromoteMember").request_id
    assert type(model).__name__ == "Model"
    assert model.promoted_from == ("models/house-price/versions/3", "b")
    assert "  promoted  from models/house-price/versions/3, member b" in str(model)


def test_a_promotion_is_repeated_under_one_request_id(use, fleet):
    fleet.fail("PromoteMember", grpc.StatusCode.UNAVAILABLE)
    use(lambda fleet: fleet.promote("b"))
    ids = {r.request_id for r in fleet.requests if isinstance(r, models_pb2.PromoteMemberRequest)}
    assert (fleet.count("PromoteMember"), len(ids)) == (2, 1)


@pytest.mark.usefixtures("fleet")
def test_a_member_promotes_itself(call, steps, request_of):
    @steps
    def ask(client):
        found = yield client.model("house-price")
        best = yield found.best
        return (yield best.promote())

    assert call(ask).name == "house-price"
    assert decode_key(request_of("PromoteMember").key) == "b"


# -- predictions ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fleet")
def test_rows_of_a_table_name_their_members(use, request_of):
    use(lambda fleet: fleet.predict(STORES[["store", "size", "sales"]].drop(columns="store").assign(store=1)))
    assert [column.name for column in request_of("Predict").table.columns] == ["size", "store"]


@pytest.mark.usefixtures("fleet")
def test_rows_of_an_array_come_with_keys(use, request_of):
    use(lambda fleet: fleet.predict([[1.0], [2.0]], keys=["a", "b"]))
    (column,) = request_of("Predict").keys.columns
    assert (column.name, list(column.strings.values)) == ("store", ["a", "b"])
    use(lambda fleet: fleet.predict([1.0, 2.0], keys=pd.Series(["a", "b"])))
    assert list(request_of("Predict").tensor.shape) == [2, 1]


@pytest.mark.parametrize(
    "keys", [[("a", 1), ("b", 2)], {"store": ["a", "b"], "sku": [1, 2]}], ids=["tuples", "dict"]
)
def test_several_key_columns_come_as_tuples_or_as_columns(use, fleet, request_of, keys):
    fleet.version.key_columns[:] = ["store", "sku"]
    use(lambda fleet: fleet.predict([[1.0], [2.0]], keys=keys))
    assert [column.name for column in request_of("Predict").keys.columns] == ["store", "sku"]


def test_keys_that_are_no_tuples_are_refused(use, fleet):
    fleet.version.key_columns[:] = ["store", "sku"]
    with pytest.raises(epochd.InvalidArgument, match=r"tuple \(store, sku\) a row"):
        use(lambda fleet: fleet.predict([[1.0]], keys=["a"]))


@pytest.mark.usefixtures("fleet")
def test_keys_beside_a_table_become_its_columns(use, request_of):
    use(lambda fleet: fleet.predict(pa.table({"size": [1, 2]}), keys=np.array([7, 8])))
    request = request_of("Predict")
    assert [column.name for column in request.table.columns] == ["size", "store"]
    assert not request.HasField("keys")


@pytest.mark.usefixtures("fleet")
def test_one_member_predicts_every_row_and_key_columns_may_stay(call, steps, request_of):
    @steps
    def ask(client):
        found = yield client.model("house-price")
        chosen = yield found.member("b")
        return (yield chosen.predict({"store": [1, 2], "size": [1.0, 2.0]}))

    np.testing.assert_array_equal(call(ask), [2.0, 4.0])
    assert decode_key(request_of("Predict").member) == "b"
    assert [column.name for column in request_of("Predict").table.columns] == ["size"]


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("unknown", "choice", "key"),
    [
        ("error", None, None),
        ("nan", "unknown_as_nan", None),
        ("a", "fallback_member", "a"),
        (("nan",), "fallback_member", "nan"),
        (7, "fallback_member", 7),
    ],
)
def test_unknown_keys_are_an_error_nan_or_a_members(use, request_of, unknown, choice, key):
    use(lambda fleet: fleet.predict({"store": [1], "size": [1.0]}, unknown=unknown))
    request = request_of("Predict")
    assert request.WhichOneof("unknown_keys") == choice
    if key is not None:
        assert decode_key(request.fallback_member) == key


def test_many_rows_take_their_keys_along(use, fleet):
    x = np.arange(400_000, dtype="float32")
    keys = np.arange(400_000)
    np.testing.assert_array_equal(use(lambda fleet: fleet.predict(x, keys=keys)), 2.0 * x)
    sent = [r for r in fleet.requests if hasattr(r, "keys") and r.HasField("keys")]
    assert len(sent) > 1
    assert all(r.keys.columns[0].tensor.shape == r.tensor.shape[:1] for r in sent)


def test_probabilities_come_by_key_too(use, fleet):
    fleet.version.classes.strings.values.extend(["no", "yes"])
    p = use(lambda fleet: fleet.predict_proba([[1.0], [-1.0]], keys=["a", "b"]))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    whole = use(lambda fleet: fleet.predict([[1.0]], keys=["a"], logits=True))
    assert whole.logits.tolist() == [1.0]


@pytest.mark.usefixtures("fleet")
def test_a_client_predicts_by_key_without_asking_what_the_model_is(call, fake, request_of):
    call(lambda c: c.predict("house-price", [[1.0]], keys={"store": ["a"]}, unknown="nan"))
    assert request_of("Predict").keys.columns[0].name == "store"
    call(lambda c: c.predict("house-price", [[1.0]], member="a"))
    assert decode_key(request_of("Predict").member) == "a"
    assert fake.does.count("GetVersion") == 0
    with pytest.raises(epochd.InvalidArgument, match="by the names of the key columns"):
        call(lambda c: c.predict("house-price", [[1.0]], keys=["a"]))


# -- keys ----------------------------------------------------------------------------------------------------------

parts = st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))


@given(st.one_of(parts, st.lists(parts, min_size=2, max_size=4).map(tuple)))
def test_keys_come_back_as_they_were(key):
    again = decode_key(encode_key(key))
    assert again == key
    assert list(map(type, key_parts(again))) == list(map(type, key_parts(key)))


@pytest.mark.parametrize(
    ("given_key", "key"), [(np.int64(3), 3), (np.str_("a"), "a"), (np.float64(0.5), 0.5)]
)
def test_numpys_scalars_are_keys(given_key, key):
    assert decode_key(encode_key(given_key)) == key


@pytest.mark.parametrize("key", [None, True, b"a", [None]])
def test_other_values_are_no_keys(key):
    with pytest.raises(epochd.InvalidArgument, match="texts and numbers"):
        encode_key(key)
