"""One feature of the planted loop in full: words, evidence, history, and a text of one's own."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from facviz.errors import InputError
from facviz.store.database import Database
from facviz.store.events import explanation_of, relevance_of
from facviz.store.workspace import open_workspace
from facviz.views.decisions import read_history, read_said
from facviz.views.feature import any_feature, first_feature, read_feature, read_histogram, read_spans, try_text
from facviz.views.scope import look
from facviz.views.text import EncodedText


@pytest.fixture
def planted(loop_copy):
    """Database of the planted loop, open, and what is looked at."""
    with Database(open_workspace(loop_copy / "workspace")) as database:
        database.sync()
        yield database, look(database, database.workspace.manifest)


def history(database, looked, feature_id):
    return read_history(database, explanation_of(looked.sae_id, feature_id), datetime.now(UTC))


def test_a_feature_shows_its_planted_numbers(planted):
    view = read_feature(*planted, 1)
    assert (view.said.text, view.said.status, view.said.seen) == ('fires on "bread"', "unreviewed", "")
    assert view.said.by == "facviz lexical v1 · by counting words"
    assert (view.state, view.feature_max, view.act_threshold) == ("covered", 3.0, 0.5)
    anchor, seed = view.measured
    assert (anchor.dataset, anchor.documents, anchor.max_act) == ("anchor", "48", "3.00")
    assert (seed.dataset, seed.max_act) == ("seed", "3.00")
    [judged] = view.judged
    assert (judged.task, judged.by_machine, judged.by_person) == ("toxicity", "yes by label", "")
    assert "AUROC 0.750" in judged.why
    assert (view.before, view.after) == (0, 2)
    assert (view.neighbours, view.output_tokens) == ([], [])  # decoder rows at right angles, an output head of zeros


def test_the_dead_feature_and_the_ends_of_the_row_are_shown_as_such(planted):
    dead = read_feature(*planted, 25)
    assert list(dead.marks) == ["dead"]
    assert (dead.said.is_explained, dead.before, dead.after) == (False, 24, None)
    assert read_histogram(*planted, 25) is None
    spans = read_spans(*planted, 25, dead.feature_max)
    assert (spans.shown, spans.held_out) == ([], [])
    assert read_feature(*planted, 0).before is None


def test_a_feature_that_does_not_exist_is_one_sentence(planted):
    with pytest.raises(InputError, match=r"has no feature 99; choose one on the Features page"):
        read_feature(*planted, 99)


def test_first_and_random_features_fire(planted):
    assert first_feature(*planted) == 0
    assert {any_feature(*planted, rng_seed=n) for n in range(200)} == set(range(25))


def test_spans_keep_their_halves_apart_and_peak_where_the_word_stands(planted):
    database, looked = planted
    spans = read_spans(database, looked, 3, 5.0, n=2)
    assert (len(spans.shown), len(spans.held_out)) == (2, 2)
    for row in (*spans.shown, *spans.held_out):
        assert row.tokens[row.peak].strip() == "drum"
        assert row.acts[row.peak] == 5.0
        assert row.note.startswith("text ")
    documents = {r["doc_no"]: r["text"] for r in database.rows("documents", dataset_id=looked.dataset.dataset_id)}
    assert set(spans.texts) <= set(documents.values())


def test_text_around_a_span_is_exactly_that_of_its_document(planted):
    database, looked = planted
    row = database.rows("feature_spans", sae_id=looked.sae_id, dataset_id=looked.dataset.dataset_id, feature_id=3, n=1)[
        0
    ]
    assert (row["text_before"], row["text_after"]) == ("", "")


def test_the_histogram_counts_every_active_text_once(planted):
    found = read_histogram(*planted, 0)
    assert (sum(found.counts), found.n_docs, found.edges[-1]) == (48, 48, 2.0)


def test_verified_samples_of_a_missing_feature_are_listed(planted):
    database, looked = planted
    accepted = {r["feature_id"] for r in database.rows("samples")}
    feature = min(accepted)
    samples = read_feature(database, looked, feature).samples
    assert {s.text for s in samples} == {r["text"] for r in database.rows("samples") if r["feature_id"] == feature}
    assert all(s.act > 0.5 and "δ 0.500" in s.note for s in samples)
    [*_, generated] = read_feature(database, looked, feature).measured
    written = database.rows("feature_candidates", sae_id=looked.sae_id, feature_id=feature)
    above = [row for row in written if row["act"] > 0.5]
    assert (generated.dataset, generated.documents) == ("generated", str(len(above)))
    assert generated.share == len(above) / len(written)
    assert read_feature(database, looked, 0).samples == []


def test_history_says_who_changed_which_words_and_what_was_taken_back(planted):
    database, looked = planted
    target = explanation_of(looked.sae_id, 2)
    database.record("ann", target, "edit", {"text": "fires on <b>clouds</b>"})
    database.record("bob", target, "reject", {"reason": "too broad"})
    database.undo("cem", target)
    database.undo("cem", target)
    newest, second, rejected, edited = history(database, looked, 2)
    assert (edited.who, edited.what, edited.is_void) == ("ann", "wrote", True)
    assert "&lt;b&gt;clouds&lt;/b&gt;" in edited.diff_html
    assert "<b>" not in edited.diff_html
    assert (rejected.what, rejected.is_void, rejected.diff_html) == ("rejected it: too broad", True, "")
    assert (second.what, newest.what) == ("took back what bob did", "took back what ann did")
    assert "cloud" in newest.diff_html
    said = read_said(database, looked.sae_id, 2)
    assert (said.text, said.status, said.can_undo, said.can_redo) == ('fires on "cloud"', "unreviewed", False, True)
    database.redo("cem", target)
    assert history(database, looked, 2)[0].what == "brought back what ann did"
    assert read_said(database, looked.sae_id, 2).text == "fires on <b>clouds</b>"


def test_a_persons_verdict_stands_beside_the_machines(planted):
    database, looked = planted
    event = database.record("ann", relevance_of(looked.sae_id, 6, "toxicity"), "verdict", {"verdict": "probably"})
    [judged] = read_feature(database, looked, 6).judged
    assert (judged.by_machine, judged.by_person, judged.person) == ("no by label", "probably", "ann")
    assert judged.seen == event["event_id"]


def encoded(tokens, hits):
    """An encoded text from (token, feature, activation) triples."""
    by_token = [[(f, a) for t, f, a in hits if t == i] for i in range(len(tokens))]
    offsets = np.cumsum([0, *map(len, by_token)])
    flat = [pair for pairs in by_token for pair in pairs]
    ids = np.array([f for f, _ in flat], np.int64)
    return EncodedText(tokens, offsets, ids, np.array([a for _, a in flat], np.float32))


def test_a_text_of_ones_own_is_measured_against_the_threshold(planted):
    database, looked = planted
    view = read_feature(database, looked, 1)
    text = encoded(("my", " bread", " drum"), [(1, 1, 3.0), (2, 3, 5.0), (2, 1, 0.25)])
    tested = try_text(database, view, looked.sae_id, text)
    assert tested.verdict == "Its maximum is 3.00, above δ 0.500."
    assert (tested.row.peak, list(tested.row.acts), tested.is_active) == (1, [0.0, 3.0, 0.25], True)
    assert [(o.feature_id, o.words, o.why) for o in tested.others] == [
        (3, 'fires on "drum"', "activation 5.00 on “drum”")
    ]
    weak = try_text(database, view, looked.sae_id, encoded(("x",), [(0, 1, 0.5)]))
    assert (weak.verdict, weak.is_active) == ("Its maximum is 0.500, not above δ 0.500.", False)
    silent = try_text(database, view, looked.sae_id, encoded(("x",), []))
    assert (silent.verdict, silent.row.peak, silent.others) == ("It does not fire on this text.", None, [])
