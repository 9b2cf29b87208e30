"""The audit of a chaos run finds whatever is not as it should be: it is given wrong stories of a real server's runs."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from benchmarks.chaos.audit import Audit, settle
from benchmarks.chaos.bits import digest
from benchmarks.chaos.control import train
from benchmarks.chaos.journal import Journal, RunEntry, Watch
from benchmarks.chaos.killer import Kill, Victim, schedule
from benchmarks.chaos.recipes import KINDS, VARIANTS, Recipe
from benchmarks.chaos.report import Report, recoveries
from benchmarks.chaos.strangers import LABELS, connect, insist, start
from benchmarks.chaos.supervised import MODULES

import epochd
from epochd import events

RECIPES = [Recipe("sgd", 0), Recipe("fleet", 1), Recipe("diverging", 2), Recipe("sweep", 3)]


@pytest.fixture(scope="module")
def client(server_type, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    server = server_type(folder / "data", folder / "log", MODULES)
    with connect(server.address) as connected:
        yield connected
    server.stop()


@pytest.fixture(scope="module")
def outcomes(client):
    return {recipe: train(client, recipe) for recipe in RECIPES}


@pytest.fixture(scope="module")
def true_journal(client):
    """One run of each recipe, with a watcher that missed nothing."""
    journal = Journal()
    for number, recipe in enumerate(RECIPES):
        run = start(client, recipe, name=f"audited-{number}", labels=LABELS)
        seen = [(event.sequence, digest(event)) for event in run.events()]
        entry = RunEntry(recipe, str(number), run.name, f"audited-{number}")
        entry.watches.append(Watch(seen=seen, complete=True))
        journal.runs.append(entry)
    model = client.model("audited-0")
    model.set_alias("champion")
    journal.aliases["audited-0@champion"] = model.resource_name
    return journal


@pytest.fixture
def journal(true_journal):
    return copy.deepcopy(true_journal)


@pytest.fixture
def audit(client, outcomes):
    def run(journal, *, kills=(), outcomes=outcomes):
        return Audit(client, journal, outcomes, kills).run()

    return run


def test_the_truth_is_found_true(audit, journal, client):
    assert settle(client, journal, 10) == []
    findings = audit(journal)
    assert (findings.losses, findings.repeats, findings.unequal) == ([], [], [])
    assert findings.ends == {"succeeded": 3, "failed": 1}
    assert findings.compared == findings.watches == 4
    assert findings.events_seen == sum(map(len, findings.logs.values()))


def test_an_event_that_a_watcher_did_not_see_is_a_loss(audit, journal):
    del journal.runs[0].watches[0].seen[3]
    assert "missed an event" in audit(journal).losses[0]


def test_an_end_that_a_watcher_did_not_see_is_a_loss(audit, journal):
    del journal.runs[0].watches[0].seen[-1]
    assert "missed an event" in audit(journal).losses[0]


def test_an_event_that_a_watcher_saw_twice_is_a_repeat(audit, journal):
    seen = journal.runs[0].watches[0].seen
    seen.insert(4, seen[3])
    assert "saw an event twice" in audit(journal).repeats[0]


def test_an_event_that_a_watcher_saw_otherwise_is_a_loss(audit, journal):
    seen = journal.runs[0].watches[0].seen
    seen[3] = (seen[3][0], "other")
    assert "not in the log" in audit(journal).losses[0]


def test_an_acknowledged_run_that_is_not_there_is_a_loss(audit, journal):
    journal.runs.append(replace(journal.runs[0], name="runs/01J00000000000000000000000", watches=[]))
    assert any("is gone" in loss for loss in audit(journal).losses)


def test_a_run_that_was_deleted_and_is_there_is_a_loss(audit, journal):
    journal.runs[0].deleted = True
    journal.runs[0].version = "audited-0/versions/1"
    assert "is back" in audit(journal).losses[0]


def test_a_run_that_nobody_was_told_of_is_a_repeat(audit, journal):
    journal.runs.pop()
    assert audit(journal).repeats == ["4 runs are listed, 3 were acknowledged"]


def test_a_version_that_is_not_there_is_a_loss(audit, journal):
    journal.runs.append(replace(journal.runs[0], deleted=True, version="audited-0/versions/9", watches=[]))
    assert "audited-0/versions/9 is gone" in audit(journal).losses


def test_a_version_that_was_deleted_and_is_there_is_a_repeat(audit, journal):
    journal.runs[0].version_deleted = True
    assert "audited-0/versions/1 was made by no known run" in audit(journal).repeats


def test_an_alias_that_points_elsewhere_is_a_loss(audit, journal):
    journal.aliases["audited-0@champion"] = "models/audited-0/versions/9"
    assert "does not point at" in audit(journal).losses[0]


@pytest.mark.parametrize("field", ["parameters", "prediction", "end"])
def test_other_bits_than_the_control_has_are_found(audit, journal, outcomes, field):
    changed = {**outcomes, RECIPES[0]: replace(outcomes[RECIPES[0]], **{field: "other"})}
    (unequal,) = audit(journal, outcomes=changed).unequal
    assert "(sgd 0, 0)" in unequal


def test_a_prediction_of_other_bits_is_found(audit, journal):
    journal.runs[0].predictions.append("other")
    assert "predicts other bits" in audit(journal).unequal[0]


def test_a_cancellation_that_was_forgotten_is_a_loss(audit, journal):
    journal.runs[0].cancelled = datetime.now(UTC) - timedelta(minutes=10)
    assert "forgotten" in audit(journal).losses[0]


def test_a_cancellation_that_came_too_late_is_none(audit, journal):
    journal.runs[0].cancelled = datetime.now(UTC)
    assert audit(journal).losses == []


def test_a_kill_that_was_not_survived_is_reported(journal, audit):
    kill = Kill(Victim.SERVER, datetime.now(UTC), survived=False)
    report = Report([kill], journal, audit(journal), [1.0], [])
    assert report.wrong == ["not survived: server"]
    assert "| server | 1 | 0 |" in str(report)


def test_the_time_to_recovery_is_that_to_the_first_run_that_goes_on(journal, audit):
    """Of two runs that were interrupted; one that had not begun, and one that had ended, do not count."""
    kill = Kill(Victim.SERVER, datetime.now(UTC), survived=True)

    def log(*seconds):
        at = [kill.time + timedelta(seconds=second) for second in seconds]
        started = replace(next(e for e in findings.logs[first] if isinstance(e, events.Started)), time=at[0])
        resumed = [
            events.Warning(sequence=3, time=time, reason="RUN_RESUMED", message="Again.") for time in at[1:]
        ]
        return [started, *resumed]

    findings = audit(journal)
    first = journal.runs[0].name
    findings.logs = {first: findings.logs[first]}
    logs = {"a": log(-5, 3), "b": log(-5, 2), "c": log(0.5, 1), "d": log(-5)}
    findings.logs |= logs
    assert recoveries([kill], findings) == [2.0]


def test_every_victim_has_its_turn_and_a_seed_makes_one_schedule():
    plan = schedule(5, 60.0, 20)
    assert plan == schedule(5, 60.0, 20) != schedule(6, 60.0, 20)
    assert {victim for _, victim in plan} == set(Victim)
    assert all(0 < due < 60 for due, _ in plan)
    assert len(schedule(5, 60.0, 3)) == 3


def test_digests_tell_every_bit_and_only_those():
    log = events.EpochLog(sequence=3, time=datetime.now(UTC), epoch=1, epochs=2, loss=float("nan"), lr=0.1)
    assert digest(log) == digest(replace(log)) != digest(replace(log, sequence=4))
    assert digest(replace(log, sequence=4), without={"sequence"}) == digest(log, without={"sequence"})
    arrays = [np.zeros(2), -np.zeros(2), np.zeros(2, np.float32), np.zeros((2, 1)), np.array([0.0, 5e-324])]
    assert len({digest({"w": array}) for array in arrays}) == len(arrays)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(["a", "b"]) != digest(["ab"])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_recipe_is_a_request_that_the_server_takes(client, kind):
    for variant in range(VARIANTS):
        training = Recipe(kind, variant).training()
        assert client.check(*training.data, **training.arguments).started.parameters > 0


def test_a_server_that_answers_late_is_waited_for(client):
    answers = iter([epochd.Unavailable("away"), epochd.ResourceExhausted("full"), "here"])

    def call():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert insist(call) == "here"
