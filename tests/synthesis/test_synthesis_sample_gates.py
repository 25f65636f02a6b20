"""Gates after verification: likeness, fluency, breadth and the judge, each by numbers a person can check."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from facviz.records import Candidate, Encoded, Verdict
from facviz.synthesis.breadth import TOO_BROAD, BreadthGate
from facviz.synthesis.fluency import (
    HIGH_NATS,
    LOW_SHARE,
    MIN_DOCUMENTS,
    TOO_PREDICTABLE,
    TOO_SURPRISING,
    FluencyGate,
    FluencyRange,
)
from facviz.synthesis.labelling import OFF_TASK, LabelGate, SampleVerdict
from facviz.synthesis.likeness import EVALUATION_COSINE, NEAR_COSINE, SAME_MEANING, LikenessGate
from facviz.synthesis.sample_gates import SampleGates

D = 40


def candidate(text="one two three"):
    return Candidate("c", 12, "paper", "guided", 0, 0, text, 2.0, 3, {}, False, None, 0)


def encoded(n_features, n_tokens, act=2.0):
    acts = np.zeros((1, D), np.float32)
    acts[0, :n_features] = act
    return Encoded(sparse.csr_matrix(acts), sparse.csr_matrix((acts > 0) * 3), np.array([n_tokens]))


class AngleEmbedder:
    """A text that is a number becomes the unit vector at that cosine to "1.0"."""

    name = "angles"

    def __init__(self):
        self.asked = []

    def embed(self, texts):
        self.asked.append(list(texts))
        cosines = np.array([float(t) for t in texts], np.float32)
        return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)


@pytest.fixture
def likeness():
    embedder = AngleEmbedder()
    known = lambda: embedder.embed(["0.0"])  # noqa: E731
    return LikenessGate(embedder, known, {"test": lambda: embedder.embed(["1.0"])})


@pytest.mark.parametrize(
    ("cosine", "reason"),
    [(EVALUATION_COSINE + 0.001, "overlaps evaluation set test"), (EVALUATION_COSINE - 0.001, None)],
)
def test_a_text_that_means_what_an_evaluation_text_means_is_turned_down(likeness, brief, cosine, reason):
    measures, found = likeness.check(brief, candidate(str(cosine)), (), encoded(1, 3))
    assert found == reason
    assert measures["evaluation_cosine"] == pytest.approx(cosine, abs=1e-4)
    assert measures["embedder"] == "angles"


def test_an_accepted_sample_is_known_from_then_on(brief):
    embedder = AngleEmbedder()
    gate = LikenessGate(embedder, lambda: embedder.embed(["0.0"]), {})
    text = candidate("0.9")
    assert gate.check(brief, text, (), encoded(1, 3)) == (
        {"near_cosine": pytest.approx((1 - 0.81) ** 0.5, abs=1e-4), "evaluation_cosine": None, "embedder": "angles"},
        None,
    )
    gate.accept("0.9")
    measures, reason = gate.check(brief, text, (), encoded(1, 3))
    assert measures["near_cosine"] >= NEAR_COSINE
    assert reason == SAME_MEANING


def test_known_texts_are_embedded_once(likeness, brief):
    for _ in range(2):
        likeness.check(brief, candidate("0.5"), (), encoded(1, 3))
    assert likeness.embedder.asked == [["0.5"], ["0.0"], ["1.0"], ["0.5"]]


class Scripted:
    """Surprises told by text length in words: `nats` each."""

    def __init__(self, nats):
        self.nats = nats

    def surprises(self, documents):
        return [np.full(len(d.text.split()), self.nats) for d in documents]


def fluency(nats, lengths, corpus_nats):
    surprises = [np.full(n, v) for n, v in zip(lengths, corpus_nats)]
    return FluencyGate(Scripted(nats), lambda: FluencyRange(surprises))


@pytest.mark.parametrize(
    ("nats", "reason"),
    [
        (1.0, None),
        (3.9 + HIGH_NATS, None),
        (4.1 + HIGH_NATS, TOO_SURPRISING),
        (0.9 * LOW_SHARE, TOO_PREDICTABLE),
        (1.1 * LOW_SHARE, None),
    ],
)
def test_surprise_outside_the_corpus_is_turned_down_on_either_side(brief, nats, reason):
    corpus = np.linspace(1, 4, 101)
    gate = fluency(nats, [10] * 101, corpus)
    measures, found = gate.check(brief, candidate("a b c"), (), encoded(1, 3))
    assert found == reason
    assert measures["perplexity"] == round(float(np.exp(nats)), 2)
    low, high = np.percentile(corpus, (1, 99))
    assert measures["perplexity_range"] == [round(float(np.exp(v)), 2) for v in (low * LOW_SHARE, high + HIGH_NATS)]


def test_a_short_text_is_compared_with_openings_of_its_length():
    # Every document opens at 6 nats a token for two tokens and goes on at 2.
    surprises = [np.array([6.0, 6.0, *[2.0] * 18])] * 40
    found = FluencyRange(surprises)
    assert found.limits(2) == (6.0 * LOW_SHARE, 6.0 + HIGH_NATS)
    assert found.limits(4) == (4.0 * LOW_SHARE, 4.0 + HIGH_NATS)
    assert found.limits(20) == (2.4 * LOW_SHARE, 2.4 + HIGH_NATS)


def test_a_text_longer_than_the_corpus_is_compared_with_its_longest_documents():
    surprises = [np.full(n, 3.0) for n in (*[5] * 50, *[30] * MIN_DOCUMENTS)]
    assert FluencyRange(surprises).limits(500) == (3.0 * LOW_SHARE, 3.0 + HIGH_NATS)


def test_too_few_documents_judge_nobody(brief):
    gate = fluency(99.0, [5] * (MIN_DOCUMENTS - 1), [1.0] * (MIN_DOCUMENTS - 1))
    measures, reason = gate.check(brief, candidate(), (), encoded(1, 3))
    assert (measures["perplexity_range"], reason) == (None, None)
    assert measures["perplexity"] > 1e20


def test_the_corpus_is_measured_once_and_its_limits_are_for_the_record(brief):
    calls = []

    def calibrate():
        calls.append(1)
        return FluencyRange([np.full(40, 2.0)] * 40)

    gate = FluencyGate(Scripted(2.0), calibrate)
    assert gate.calibration() == {}
    for _ in range(2):
        gate.check(brief, candidate(), (), encoded(1, 3))
    assert calls == [1]
    assert gate.calibration()["n_documents"] == 40
    assert gate.calibration()["perplexity"]["32"] == [
        round(float(np.exp(2 * LOW_SHARE)), 2),
        round(float(np.exp(2 + HIGH_NATS)), 2),
    ]


def breadth(counts, n_tokens, threshold=1.0):
    anchor = np.zeros((len(counts), D), np.float32)
    for row, n in enumerate(counts):
        anchor[row, :n] = 2.0
    return BreadthGate(sparse.csr_matrix(anchor), np.array(n_tokens), np.full(D, threshold))


def test_more_features_than_texts_of_its_length_fire_is_too_broad(brief):
    gate = breadth([5] * 150 + [20] * 150, [10] * 150 + [40] * 150)
    for n_features, n_tokens, reason in ((5, 10, None), (6, 10, TOO_BROAD), (20, 40, None), (21, 44, TOO_BROAD)):
        measures, found = gate.check(brief, candidate(), (), encoded(n_features, n_tokens))
        assert found == reason
        assert measures["n_features"] == n_features
        assert measures["n_features_limit"] == (5 if n_tokens == 10 else 20)


def test_features_count_above_their_own_threshold_alone(brief):
    gate = breadth([5] * 120, [10] * 120, threshold=2.0)
    assert gate.check(brief, candidate(), (), encoded(30, 10, act=2.0))[0]["n_features"] == 0
    assert gate.check(brief, candidate(), (), encoded(30, 10, act=2.1))[0]["n_features"] == 30


def test_the_cosine_is_that_of_the_nearest_document(brief):
    gate = breadth([4] * 60 + [1] * 60, [10] * 120)
    assert gate.check(brief, candidate(), (), encoded(1, 10))[0]["anchor_cosine"] == 1.0
    assert gate.check(brief, candidate(), (), encoded(16, 10))[0]["anchor_cosine"] == 0.5


def test_a_text_without_features_or_a_small_anchor_breaks_nothing(brief):
    assert breadth([3] * 30, [10] * 30).check(brief, candidate(), (), encoded(0, 0)) == (
        {"n_features": 0, "n_features_limit": None, "anchor_cosine": None},
        None,
    )
    assert breadth([3] * 10, [10] * 10).limit(10) is None


class Judge:
    """Gives one verdict and remembers what it was shown."""

    def __init__(self, verdict, name="judge"):
        self.verdict, self.name, self.seen = verdict, name, []

    def judge(self, document, task):
        self.seen.append((document.text, task.name))
        return SampleVerdict(self.verdict, "because", self.name, "" if self.verdict else "no object", ("call",))


@pytest.mark.parametrize(
    ("verdict", "recorded", "reason"),
    [(Verdict.YES, "yes", None), (Verdict.MAYBE, "maybe", None), (Verdict.NO, "no", OFF_TASK), (None, "failed", None)],
)
def test_only_a_no_turns_a_sample_down_and_every_verdict_is_recorded(brief, verdict, recorded, reason):
    judge = Judge(verdict)
    measures, found = LabelGate(judge, "writer").check(brief, candidate("what a day"), ("shown",), encoded(1, 3))
    assert (measures["label_verdict"], found) == (recorded, reason)
    assert (measures["label_judge"], measures["label_self_judged"]) == ("judge", False)
    assert judge.seen == [("what a day", "toxicity")]


def test_a_judge_of_the_writers_name_is_called_that(brief):
    measures, _ = LabelGate(Judge(Verdict.YES, "writer"), "writer").check(brief, candidate(), (), encoded(1, 3))
    assert measures["label_self_judged"] is True


class Fixed:
    """A gate that says the same of every text."""

    def __init__(self, name, reason):
        self.name, self.reason, self.accepted = name, reason, []

    def check(self, brief, candidate, shown, alone):
        return {self.name: True}, self.reason

    def accept(self, text):
        self.accepted.append(text)


def test_every_gate_measures_and_the_first_failure_is_the_reason(brief):
    judge = Fixed("judged", OFF_TASK)
    gates = SampleGates((Fixed("a", None), Fixed("b", "second"), Fixed("c", "third")), judge)
    measures, reason = gates.check(brief, candidate(), (), encoded(1, 3))
    assert measures == {"a": True, "b": True, "c": True, "label_verdict": "not judged"}
    assert reason == "second"


def test_the_judge_is_asked_last_and_only_of_what_else_would_pass(brief):
    gates = SampleGates((Fixed("a", None),), Fixed("judged", OFF_TASK))
    assert gates.check(brief, candidate(), (), encoded(1, 3)) == ({"a": True, "judged": True}, OFF_TASK)
    nobody = SampleGates((Fixed("a", None),))
    assert nobody.check(brief, candidate(), (), encoded(1, 3)) == ({"a": True, "label_verdict": "not judged"}, None)


def test_every_gate_hears_of_an_accepted_sample():
    parts = Fixed("a", None), Fixed("b", None), Fixed("judged", None)
    SampleGates(parts[:2], parts[2]).accept("a text")
    assert [part.accepted for part in parts] == [["a text"]] * 3
