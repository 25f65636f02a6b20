"""Candidates as cards on the planted run: facets add up, filters equal a loop, and the file is the exported one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from facviz.store.events import candidate_of
from facviz.views.coverage import coverage_runs
from facviz.views.heat import spans_html
from facviz.views.samples import (
    PAGE_SIZE,
    REASONS,
    Facet,
    accepted_of,
    facets,
    pair_of,
    sample_page,
    samples_of,
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
    assert turned_down == {f"no_{reason.replace(' ', '_')}": n for reason, n in reasons.items()}
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
    assert "step 2" in sample.origin
    database.record("bea", candidate_of(row["candidate_id"]), "reject", {"reason": "not fluent"})
    rejected = accepted_of(database, run, 14)
    assert rejected.verdict == "rejected by bea: not fluent"
    assert rejected.event_id
    assert sample.event_id == ""
    assert accepted_of(database, run, 0) is None


def test_every_reason_of_the_machine_has_words(candidates):
    assert {c["reject_reason"] for c in candidates if not c["accepted"]} <= REASONS.keys()


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
    assert "".join(sample.row.tokens) == sample.text


def test_hostile_texts_come_out_escaped(database, run, candidates):
    hostile = candidates[0] | {"text": "<script>alert(1)</script> " + "x" * 500, "reject_reason": "<i>"}
    [sample] = samples_of(database, run, [hostile])
    html = spans_html([sample.row], mode="light")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "".join(sample.row.tokens) == hostile["text"]


def test_the_pair_of_step_one_is_shown_with_its_margin(database, run):
    for feature_id in range(12, 24):
        sample = accepted_of(database, run, feature_id)
        [stored] = [p for p in database.rows("pairs", synth_id=sample.synth_id) if p["feature_id"] == feature_id]
        pair = pair_of(database, sample)
        assert bool(pair.strong) == (stored["state"] == "paired")
        if pair.strong:
            assert float(pair.strong_act) - float(pair.weak_act) == pytest.approx(float(pair.margin))


def test_texts_to_review_are_those_without_a_decision(database, run):
    ids = [s.candidate_id for s in unreviewed(database, run)]
    assert len(ids) == 12
    database.record("ann", candidate_of(ids[0]), "approve")
    assert [s.candidate_id for s in unreviewed(database, run)] == ids[1:]


def test_an_unknown_facet_is_empty(database, run):
    assert sample_page(database, run, Facet("x", "x", 0, reason="no such reason"), 1) == []
