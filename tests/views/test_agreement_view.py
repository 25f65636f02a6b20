"""Agreement as it is shown: between people, with oneself, with the machine, each with its n."""

from __future__ import annotations

import pytest

from facviz.store.events import explanation_of, relevance_of
from facviz.views.agreement import read_agreement, seconds_per_person
from facviz.views.scope import look


@pytest.fixture
def looked(database):
    return look(database, database.workspace.manifest)


def test_nothing_to_compare_is_nothing(database, looked):
    database.record("ann", explanation_of(looked.sae_id, 1), "accept")
    assert read_agreement(database, looked) == []


def test_three_people_have_one_alpha_and_a_kappa_a_pair(database, looked):
    def say(actor, feature, kind):
        look = {} if actor == "ann" else {"look": "second"}
        database.record(actor, explanation_of(looked.sae_id, feature), kind, look)

    for feature, kinds in enumerate(("aar", "ara", "rrr", "rra")):
        for actor, kind in zip(("ann", "bob", "eve"), kinds):
            say(actor, feature, "accept" if kind == "a" else "reject")
    alpha, *pairs = read_agreement(database, looked)
    assert (alpha.what, alpha.measure, alpha.n) == ("All 3 reviewers on explanations", "Krippendorff’s α", "4")
    # Unequal ordered pairs: 4 + 4 + 0 + 4 of items of three, each by 2: 6. By chance, of 5 a and 7 r: 70 / 11.
    assert float(alpha.value.replace("−", "-")) == pytest.approx(1 - 6 / (70 / 11), abs=1e-3)
    by_pair = {line.what: (line.value, line.equal, line.n) for line in pairs}
    assert by_pair["ann and bob on explanations"] == ("0.500", "75 %", "4")
    assert all("on few items" in line.words or "no better" in line.words for line in pairs)


def test_who_changes_another_s_decision_in_plain_view_is_not_compared(database, looked):
    database.record("ann", explanation_of(looked.sae_id, 1), "accept")
    database.record("bob", explanation_of(looked.sae_id, 1), "accept")
    assert read_agreement(database, looked) == []


def test_repeats_say_how_steady_one_is(database, looked):
    for feature, again in ((1, "accept"), (2, "reject")):
        first = database.record("ann", explanation_of(looked.sae_id, feature), "accept")
        payload = {"look": "repeat", "of": first["event_id"]}
        database.record("ann", explanation_of(looked.sae_id, feature), again, payload)
    [line] = read_agreement(database, looked)
    assert (line.what, line.equal, line.n) == ("ann asked again on explanations", "50 %", "2")


def test_verdicts_given_before_seeing_the_machine_s_stand_apart(database, looked):
    machine = {
        r["feature_id"]: r["verdict"] for r in database.rows("relevance", task=looked.task, sae_id=looked.sae_id)
    }
    for feature, saw in ((0, False), (12, False), (1, True)):
        target = relevance_of(looked.sae_id, feature, looked.task)
        database.record("ann", target, "verdict", {"verdict": machine[feature], "saw": saw})
    unseen, seen = read_agreement(database, looked)
    assert ("unseen" in unseen.what, unseen.n, unseen.equal) == (True, "2", "100 %")
    assert ("seen first" in seen.what, seen.n) == (True, "1")


def test_time_is_the_middle_of_what_each_person_took(database, looked):
    for feature, seconds in ((1, 2.0), (2, 4.0), (3, 60.0)):
        database.record("ann", explanation_of(looked.sae_id, feature), "accept", {"seconds": seconds})
    database.record("bob", explanation_of(looked.sae_id, 4), "accept")
    assert seconds_per_person(database, looked) == [("ann", "3 decided · 4.00 s each"), ("bob", "1 decided · –")]
