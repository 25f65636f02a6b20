"""Candidates as cards on the planted run: facets add up, filters equal a loop, and the file is the exported one."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter

import numpy as np
import pytest

from facviz.errors import InputError
from facviz.store.events import candidate_of
from facviz.views.candidate import (
    compare_strategies,
    compared_html,
    facts_html,
    gate_list,
    gates_html,
    provenance,
    read_pair,
)
from facviz.views.coverage import coverage_runs
from facviz.views.heat import spans_html
from facviz.views.samples import (
    PAGE_SIZE,
    REASONS,
    Facet,
    accepted_of,
    edit_of,
    facets,
    failed_edit,
    find_place,
    plain_span,
    read_sample,
    reason_words,
    sample_page,
    samples_of,
    share_words,
    tally_html,
    unreviewed,
)
from facviz.views.text import EncodedText


@pytest.fixture
def run(database):
    [found] = coverage_runs(database, [])
    return found


@pytest.fixture
def candidates(database):
    [synthesis] = database.rows("syntheses")
    return database.rows("candidates", synth_id=synthesis["synth_id"])


def test_facets_count_every_candidate_once_per_view(database, run, candidates):
    first, second = [c for c in candidates if c["accepted"]][:2]
    database.record("ann", candidate_of(first["candidate_id"]), "approve")
    database.record("ann", candidate_of(second["candidate_id"]), "reject")
    found = {facet.key: facet.n for facet in facets(database, run["coverage_id"])}
    assert (found["verified"], found["unreviewed"], found["approved"], found["rejected"]) == (12, 10, 1, 1)
    reasons = Counter(c["reject_reason"] for c in candidates if not c["accepted"])
    turned_down = {key: n for key, n in found.items() if key.startswith("no_")}
    assert turned_down == {f"no_{'_'.join(re.findall(r'[a-z]+', reason))}": n for reason, n in reasons.items()}
    assert found["verified"] + sum(turned_down.values()) == len(candidates)


def test_every_page_of_a_facet_is_what_a_loop_selects(database, run, candidates):
    for facet in facets(database, run["coverage_id"]):
        wanted = [
            c["candidate_id"]
            for c in candidates
            if c["accepted"] == facet.accepted
            and (facet.review is None or c["review"] == facet.review)
            and (facet.reason is None or c["reject_reason"] == facet.reason)
        ]
        n_pages = -(-facet.n // PAGE_SIZE)
        found = [s.candidate_id for page in range(1, n_pages + 1) for s in sample_page(database, run, facet, page)]
        assert found == wanted, facet


def test_a_card_says_what_was_measured_and_who_decided(database, run):
    [row] = [r for r in database.rows("samples") if r["feature_id"] == 14]
    sample = accepted_of(database, run, 14)
    assert sample.text == row["text"]
    assert sample.measure == "fires at 4.00, δ 0.500 · 8.00 × δ"
    assert sample.verdict == "verified, not reviewed yet"
    assert ("Strategy", "Contrast, then guide, step 2, guided by the pair") in provenance(sample, run["task"])
    database.record("bea", candidate_of(row["candidate_id"]), "reject", {"reason": "not fluent"})
    rejected = accepted_of(database, run, 14)
    assert rejected.verdict == "rejected by bea: not fluent"
    assert rejected.event_id
    assert sample.event_id == ""
    assert accepted_of(database, run, 0) is None


def test_every_reason_of_the_machine_has_words(candidates):
    reasons = {c["reject_reason"] for c in candidates if not c["accepted"]}
    assert {reason.partition(": ")[0] for reason in reasons} <= REASONS.keys()
    assert reason_words("invalid format: it was cut off") == "Not in its form: it was cut off"
    assert reason_words("copied") == "Copied"
    assert reason_words("of its own") == "of its own"


def test_heat_marks_the_token_on_which_the_target_fires(database, run):
    sample = accepted_of(database, run, 13)
    words = sample.text.split(" ")
    tokens = tuple(word if i == 0 else f" {word}" for i, word in enumerate(words))
    at = words.index("needle")
    encoded = EncodedText(
        tokens,
        np.array([0] * (at + 1) + [1] * (len(words) - at)),
        np.array([13]),
        np.array([3.0], np.float32),
    )
    row = sample.heat(encoded)
    assert (row.peak, row.acts[at], row.feature_max) == (at, 3.0, 3.0)
    silent = EncodedText(tokens, np.zeros(len(words) + 1, np.int64), np.array([], np.int64), np.array([], np.float32))
    assert sample.heat(silent).peak is None
    assert "".join(plain_span(sample.text, 1.0).tokens) == sample.text


def test_hostile_texts_come_out_escaped(database, run, candidates):
    hostile = candidates[0] | {"text": "<script>alert(1)</script> " + "x" * 500, "reject_reason": "<i>"}
    [sample] = samples_of(database, run, [hostile])
    html = spans_html([plain_span(sample.text, 1.0)], mode="light")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    for part in (gates_html(gate_list(sample.row)), facts_html(provenance(sample, "<script>"))):
        assert "<script>" not in part
        assert "<i>" not in part


def test_the_pair_of_step_one_is_shown_with_its_margin(database, run):
    for feature_id in range(12, 24):
        sample = accepted_of(database, run, feature_id)
        [stored] = [p for p in database.rows("pairs", synth_id=sample.synth_id) if p["feature_id"] == feature_id]
        pair = read_pair(database, sample)
        assert bool(pair.sides) == (stored["state"] == "paired")
        if pair.sides:
            strong, weak = (0.0 if s.share == "silent" else float(s.share.split()[0]) for s in pair.sides)
            assert strong - weak == pytest.approx(float(pair.margin.split()[0]), rel=0.02)


def test_texts_to_review_are_those_without_a_decision(database, run):
    ids = [s.candidate_id for s in unreviewed(database, run)]
    assert len(ids) == 12
    database.record("ann", candidate_of(ids[0]), "approve")
    assert [s.candidate_id for s in unreviewed(database, run)] == ids[1:]


def test_an_unknown_facet_is_empty(database, run):
    assert sample_page(database, run, Facet("x", "x", 0, reason="no such reason"), 1) == []


def test_next_and_previous_are_the_neighbours_in_the_list(database, run):
    [facet] = [f for f in facets(database, run["coverage_id"]) if f.key == "verified"]
    ids = [s.candidate_id for page in (1, 2) for s in sample_page(database, run, facet, page)]
    first = find_place(database, run, facet, "")
    assert (first.candidate_id, first.place, first.before, first.after) == (ids[0], 1, "", ids[1])
    third = find_place(database, run, facet, ids[2])
    assert (third.place, third.before, third.after) == (3, ids[1], ids[3])
    assert find_place(database, run, facet, "no such id") == first
    assert find_place(database, run, Facet("x", "x", 0, reason="no such"), "no such id") is None


def test_a_candidate_that_left_its_list_is_shown_with_the_way_back(database, run):
    ids = [w.candidate_id for w in unreviewed(database, run)]
    database.record("ann", candidate_of(ids[0]), "approve")
    [facet] = [f for f in facets(database, run["coverage_id"]) if f.key == "unreviewed"]
    place = find_place(database, run, facet, ids[0])
    assert (place.candidate_id, place.place, place.after) == (ids[0], 0, ids[1])


def test_one_feature_is_read_alone(database, run, candidates):
    found = facets(database, run["coverage_id"], 14)
    assert sum(f.n for f in found if f.key == "verified" or f.reason) == len(
        [c for c in candidates if c["feature_id"] == 14]
    )
    for facet in found:
        assert {s.feature_id for s in sample_page(database, run, facet, 1)} == {14}
    assert [w.candidate_id for w in unreviewed(database, run, 14)] == [accepted_of(database, run, 14).candidate_id]


def test_the_bar_shows_every_candidate_once(database, run, candidates):
    html = tally_html(facets(database, run["coverage_id"]), "light")
    assert sum(int(part.split(" ")[0]) for part in html.split("flex:")[1:]) == len(candidates)
    assert tally_html([], "light") == ""


def test_the_gate_that_turned_a_text_down_is_the_one_marked(database, run):
    row = accepted_of(database, run, 14).row
    gates = gate_list(row)
    assert gates
    assert all(gate.passed for gate in gates)
    assert {"Length", "Copying", "Repetition", "Read alone"} <= {gate.name for gate in gates}
    for reason, name in (("copied", "Copying"), ("target does not fire alone", "Read alone"), ("length", "Length")):
        assert [g.name for g in gate_list({**row, "reject_reason": reason}) if not g.passed] == [name]
    [told] = [g for g in gate_list({**row, "reject_reason": "something new"}) if not g.passed]
    assert told.words == "something new"


def test_gates_of_other_kinds_are_read_as_they_are_and_absent_ones_missed_by_nobody(database, run):
    row = accepted_of(database, run, 14).row
    assert gate_list({**row, "gates": None}) == []
    assert gate_list({**row, "gates": "no json"}) == []
    gates = json.dumps({"something_new": {"verdict": "yes", "by": "m"}, "axes": {"persona": "x", "topic": ""}})
    words = {g.name: g.words for g in gate_list({**row, "gates": gates})}
    assert words == {"Something new": "verdict yes, by m"}
    [sample] = samples_of(database, run, [{**row, "gates": gates}])
    assert ("Asked to vary", "persona x") in provenance(sample, "topic")


def test_measures_are_said_with_their_limits(database, run):
    row = accepted_of(database, run, 14).row
    gates = {
        "masked_act": 0.25, "masked_words": 3, "anti_copy": False, "perplexity": 12.345, "perplexity_range": [3, 80],
        "n_features": 24, "n_features_limit": 40, "near_cosine": 0.5, "evaluation_cosine": 0.25, "near_jaccard": 0.1,
        "label_verdict": "maybe", "label_judge": "m", "label_self_judged": True, "label_rationale": "<b>why",
    }  # fmt: skip
    words = {g.name: g.words for g in gate_list({**row, "gates": json.dumps(gates)})}
    assert words == {
        "Not by copying": "0.250, 0.500 × δ, without the words it copied; only recorded",
        "Fluency": "perplexity 12.3; 3 to 80 is usual",
        "Breadth": "24 features above δ; at most 40 for its length",
        "New meaning": "cosine 0.500 to the nearest known text, 0.250 to the nearest of an evaluation set",
        "New words": "shares 10 % of its word triples with the nearest known text",
        "On task": "maybe by m, which also wrote it: <b>why",
    }
    assert "<b>why" not in gates_html(gate_list({**row, "gates": json.dumps(gates)}))
    told = [(overlap, cosine) for overlap in ("", "test") for cosine in (None, 0.97)]
    for overlap, cosine in told:
        found = {"evaluation_overlap": overlap, "near_cosine": cosine, "embedder": "not installed"}
        turned_down = {**row, "gates": json.dumps(found), "reject_reason": "overlaps evaluation set test"}
        failed = [g.name for g in gate_list(turned_down) if not g.passed]
        assert failed == (["Not in a test"] if overlap else ["New meaning"])
        words = {g.name: g.words for g in gate_list(turned_down)}
        assert words["Not in a test"] == (
            "stands in part in test" if overlap else "no 13 words in a row of an evaluation set"
        )
        assert ("not installed" in words["New meaning"]) == (cosine is None)
    unknown = {"masked_act": None, "perplexity": None, "perplexity_range": None, "n_features": 1}
    words = {g.name: g.words for g in gate_list({**row, "gates": json.dumps(unknown)})}
    assert words["Not by copying"] == "no words were copied"
    assert words["Fluency"].startswith("perplexity –")
    assert words["Breadth"] == "1 feature above δ"


def test_an_activation_is_said_in_proportion_to_its_threshold():
    assert share_words(4.0, 0.5) == "8.00 × δ"
    assert share_words(4.0, 0.0) == "4.00"
    assert share_words(0.0, 0.5) == share_words(None, 0.5) == "silent"


def measured(text, *, accepted=True, act=3.0):
    return {
        "act": act, "act_threshold": 0.5, "accepted": accepted, "reject_reason": None if accepted else "copied",
        "gates": {"verified_act": act}, "peak_token": 1, "messages": [{"role": "user", "content": text}],
        "text": text, "fields": None,
    }  # fmt: skip


def test_an_edit_that_verified_stands_in_place_of_the_text_and_an_undo_brings_it_back(database, run):
    sample = accepted_of(database, run, 14)
    target = candidate_of(sample.candidate_id)
    edit = edit_of(sample, run, "as a person put it")
    assert (edit.was, edit.text, edit.seen) == (sample.text, "as a person put it", "")
    database.record("ann", target, "edit", {"text": edit.text, "was": edit.was, "measured": measured(edit.text)})
    edited = read_sample(database, run, sample.candidate_id)
    assert (edited.text, edited.written_text, edited.review) == (edit.text, sample.text, "edited")
    assert (edited.row["act"], edited.messages[-1]["content"]) == (3.0, edit.text)
    assert [g.name for g in gate_list(edited.row)] == ["Read alone"]
    database.record("ann", target, "approve")
    assert read_sample(database, run, sample.candidate_id).text == edit.text
    database.undo("ann", target)
    database.undo("ann", target)
    back = read_sample(database, run, sample.candidate_id)
    assert (back.text, back.review, back.written_text) == (sample.text, "unreviewed", "")


def test_a_sample_of_several_parts_keeps_them_as_they_were_read_from_its_edited_layout(database, run):
    sample = accepted_of(database, run, 14)
    found = measured("Q\nA") | {"fields": {"prompt": "Q", "answer": "A"}}
    database.record(
        "ann", candidate_of(sample.candidate_id), "edit", {"text": "Prompt: Q\nAnswer: A", "measured": found}
    )
    edited = read_sample(database, run, sample.candidate_id)
    assert (edited.text, edited.fields) == ("Q\nA", {"prompt": "Q", "answer": "A"})
    assert sample.fields is None


def test_a_turned_down_text_counts_once_its_edit_verified(database, run, candidates):
    row = next(c for c in candidates if c["reject_reason"] == "target does not fire" or not c["accepted"])
    database.record("ann", candidate_of(row["candidate_id"]), "edit", {"text": "new", "measured": measured("new")})
    kept = {s["candidate_id"]: s for s in database.rows("samples")}
    assert kept[row["candidate_id"]]["text"] == "new"
    assert kept[row["candidate_id"]]["reject_reason"] is None


def test_an_edit_that_did_not_verify_is_remembered_and_changes_nothing(database, run):
    sample = accepted_of(database, run, 14)
    target = candidate_of(sample.candidate_id)
    bad = measured("worse", accepted=False, act=0.1)
    event = database.record("ann", target, "edit", {"text": "worse", "measured": bad})
    after = read_sample(database, run, sample.candidate_id)
    assert (after.text, after.review, after.event_id) == (sample.text, "unreviewed", event["event_id"])
    tried = failed_edit(database, sample.candidate_id)
    assert (tried.text, tried.words) == ("worse", "copied, 0.200 × δ")
    database.record("ann", target, "approve", seen=after.event_id)
    assert read_sample(database, run, sample.candidate_id).review == "approved"
    assert failed_edit(database, sample.candidate_id) is None


def test_an_edit_without_a_measure_is_refused(database, run):
    target = candidate_of(accepted_of(database, run, 14).candidate_id)
    with pytest.raises(InputError, match="verify it first"):
        database.record("ann", target, "edit", {"text": "as I like it"})
    with pytest.raises(InputError, match="text is empty"):
        database.record("ann", target, "edit", {"text": " ", "measured": measured(" ")})


def test_strategies_are_compared_by_what_they_filled(database, run, candidates):
    [found] = compare_strategies(database, run)
    assert found.filled == "12 of 12"
    assert found.verified.startswith(f"12 of {len(candidates)}")
    assert float(found.cost) == pytest.approx(len(candidates) / 12, rel=0.01)
    [one] = compare_strategies(database, run, 14)
    assert one.filled == "1 of 1"
    assert "&lt;" in compared_html([dataclasses.replace(one, generator="<b>")])
