"""A synthesis of 40 missing features by a paid model on a bad day: killed, refused, out of money, and all adds up."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import threading
from collections import Counter

import pytest
from books import most_committed, recorded

from facviz.llm.ledger import call_rows
from facviz.records import Document, Message
from facviz.store.workspace import open_workspace
from facviz.testing.llm_server import Fault, StubServer, wait_for_requests
from facviz.testing.many_features import SAE_ID, WordEncoder, make_gap

N_FEATURES, N_COVERED, CONCURRENCY, BUDGET_USD = 46, 6, 8, 0.6
MISSING = range(N_COVERED, N_FEATURES)
PROGRAM = f"""
import json, sys
from facviz.config import BackboneConfig, CoverageConfig, SynthesisConfig
from facviz.errors import FacvizError
from facviz.pipeline import coverage, synthesis
from facviz.pipeline.gating import Gates
from facviz.pipeline.session import Session
from facviz.store.workspace import open_workspace
from facviz.synthesis.gates import TextGates
from facviz.synthesis.sample_gates import SampleGates
from facviz.testing.fakes import SilentProgress
from facviz.testing.many_features import DATASET, SEED, WordEncoder
synthesis.open_sae = lambda session, sae_id: None
Session.encoder = lambda self, sae, roles: WordEncoder({N_FEATURES})
by_words = lambda session, corpora, *more, **rest: Gates(TextGates(corpora.texts), SampleGates((), None, {{}}))
synthesis.build_gates = by_words  # the others need models
root, provider, stage, settings = sys.argv[1:]
asked = CoverageConfig(anchor=DATASET, seed=SEED, kind="absolute", threshold=0.5, n_bootstrap=10)
plan = {{"pair_candidates": 4, "batch": 4, "max_candidates": 12, "concurrency": {CONCURRENCY}, "provider": provider}}
config = SynthesisConfig(**plan | json.loads(settings))
workspace = open_workspace(root)
with workspace.lock():
    session = Session(workspace, BackboneConfig(name="none", layer=1), SilentProgress())
    measured = coverage.coverage(session, "{SAE_ID}", "toxicity", "label", asked)
    try:
        print(json.dumps(getattr(synthesis, stage)(session, measured, asked, config)))
    except FacvizError as error:
        sys.exit(f"{{type(error).__name__}}: {{error}}")
"""
REPLIES = {Fault.REFUSAL, Fault.TRUNCATION, Fault.INVALID_JSON}


def feature_of(body) -> int:
    """The feature whose word the last turn asks for."""
    return int(re.findall(r"theme(\d+)", body["messages"][-1]["content"])[-1])


class Day:
    """A reply follows from the request alone, never from its turn, but for faults that are no replies."""

    def __init__(self, *, lossy=False):
        self.seen, self.next, self.lock, self.lossy = Counter(), [], threading.Lock(), lossy

    def __call__(self, number, body):
        with self.lock:
            feature = feature_of(body)
            self.seen[feature] += 1
            if self.next:
                return self.next.pop()
            return self.of(feature, self.seen[feature], body)

    def of(self, feature, nth, body):
        once = {0: Fault.RATE_LIMIT, 1: Fault.OVERLOADED} | ({5: Fault.DROP} if self.lossy else {})
        if self.lossy and feature in (7, 17) and nth == 1:
            return Fault.HANG
        if nth == 1 and feature % 10 in once:
            return once[feature % 10]
        always = {2: Fault.REFUSAL, 3: Fault.TRUNCATION, 4: Fault.INVALID_JSON}
        if feature % 10 in always:
            return always[feature % 10]
        drawn = hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()
        words = [f"w{drawn[i : i + 3]}" for i in range(0, 12, 3)]
        fires = feature % 10 != 9 and int(drawn[-1], 16) % 3 == 0
        text = " ".join([*words, f"theme{feature}" if fires else "nothing", "said"])
        return json.dumps({"text": text})


@pytest.fixture
def root(tmp_path):
    return make_gap(tmp_path / "workspace", N_FEATURES, N_COVERED).root


@pytest.fixture
def job(start_python):
    def start(root, provider, stage="synthesize", **settings):
        return start_python(PROGRAM, root, provider, stage, json.dumps(settings))

    return start


def finished(child):
    output, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    return json.loads(output)


def rows_of(root, told):
    with open_workspace(root).reader() as reader:
        states = reader.rows("synthesis_features", synth_id=told["synth_id"])
        candidates = reader.rows("candidates", synth_id=told["synth_id"])
    return {row["feature_id"]: row["state"] for row in states}, candidates


def texts_by_id(root, told):
    return {c["candidate_id"]: (c["feature_id"], c["text"], c["accepted"]) for c in rows_of(root, told)[1]}


def test_killed_at_ten_random_moments_it_ends_as_if_it_never_was(root, provider, job, tmp_path):
    """Five moments a provider; no recorded reply is sent again, and a kill costs at most what was in flight."""
    moments = random.Random(20)
    with StubServer(Day(), delay_seconds=0.01, input_tokens=1000, output_tokens=50) as server:
        name, kept = provider(server), []
        for _ in range(5):
            child = job(root, name, budget_usd=BUDGET_USD)
            wait_for_requests(server, len(server.requests) + moments.randint(3 * CONCURRENCY, 60))
            child.kill()
            child.communicate()
            kept.append(recorded(root))
        told = finished(job(root, name, budget_usd=BUDGET_USD))
        n_sent = len(server.requests)
        assert finished(job(root, name, budget_usd=BUDGET_USD)) == told
        assert len(server.requests) == n_sent
        received = list(server.requests)
        whole = make_gap(tmp_path / "whole", N_FEATURES, N_COVERED).root
        unbroken = finished(job(whole, name, budget_usd=BUDGET_USD))

    assert texts_by_id(root, told) == texts_by_id(whole, unbroken)
    assert {k: v for k, v in told.items() if k != "usd"} == {k: v for k, v in unbroken.items() if k != "usd"}
    final = recorded(root)
    for before in kept:
        assert before
        assert before.items() <= final.items()
    sent = Counter(r.line if isinstance(r.line, Fault) else "text" for r in received)
    n_answers = sum(n for line, n in sent.items() if line == "text" or line in REPLIES)
    assert n_answers - len(final) <= 5 * CONCURRENCY
    assert most_committed(root) <= BUDGET_USD + 1e-9
    calls = call_rows(root)
    assert sum(c["usd"] for c in calls) == pytest.approx(told["usd"], abs=1e-6)
    ended_well = Counter(c["request_hash"] for c in calls if c["outcome"] not in ("failed", "unknown"))
    assert set(ended_well.values()) == {1}
    assert len(ended_well) == len(final)


def test_on_a_bad_day_every_feature_ends_in_a_typed_state_and_the_books_add_up(root, provider, job):
    day = Day(lossy=True)
    with StubServer(day, input_tokens=1000, output_tokens=50) as server:
        name = provider(server)
        day.next.append(Fault.DEAD_KEY)
        output, errors = (child := job(root, name, budget_usd=BUDGET_USD)).communicate(timeout=60)
        assert (child.returncode, output) == (1, ""), errors
        assert errors.startswith("LLMError: ")
        assert errors.count("\n") == 1
        assert "key" in errors
        assert os.environ["ANTHROPIC_API_KEY"] not in errors
        before = recorded(root)

        day.next.append(Fault.SPEND_LIMIT)
        limited = finished(job(root, name, budget_usd=BUDGET_USD))
        assert "limit" in limited["stopped"]
        assert limited["states"]["budget"] >= 30
        assert sum(limited["states"].values()) == limited["n_attempted"] == len(MISSING)

        told = finished(job(root, name, budget_usd=BUDGET_USD))

    assert told["stopped"] is None
    assert before.items() <= recorded(root).items()
    states, candidates = rows_of(root, told)
    assert sorted(states) == list(MISSING)
    lost = {c["feature_id"] for c in candidates if "sent twice" in json.loads(c["gates"]).get("detail", "")}
    assert len(lost) <= CONCURRENCY
    for feature in states.keys() - lost:
        expected = {2: {"refused"}, 3: {"exhausted"}, 4: {"exhausted"}, 9: {"exhausted"}}
        assert states[feature] in expected.get(feature % 10, {"filled", "exhausted"}), feature
    assert sum(state == "filled" for state in states.values()) >= 12
    assert {c["generator"].split("/")[0] for c in candidates} == {name}

    # Every candidate that was answered names its call, and the books add up to what was spent.
    calls = {c["call_id"]: c for c in call_rows(root)}
    assert {json.loads(c["gates"]).get("call_id", "") for c in candidates} <= {*calls, ""}
    assert sum(c["usd"] for c in calls.values()) == pytest.approx(told["usd"], abs=1e-6)
    assert most_committed(root) <= BUDGET_USD + 1e-9
    assert {c["outcome"] for c in calls.values()} >= {"ok", "refused", "truncated", "failed", "unknown"}

    # Every accepted sample fires again from the text that is exported, and nothing else is needed.
    encoder = WordEncoder(N_FEATURES)
    for c in (c for c in candidates if c["accepted"]):
        document = Document(tuple(Message(**m) for m in c["messages"]))
        assert document.text == c["text"]
        assert float(encoder.encode_alone(document).max_acts[0, c["feature_id"]]) > 1.05 * c["act_threshold"]


@pytest.mark.parametrize("provider", ["openai"], indirect=True)
def test_a_budget_for_a_model_nobody_priced_is_refused_before_anything_is_asked(root, provider, job):
    with StubServer(["text"], models=("unheard-of",)) as server:
        name = provider(server)
        output, errors = (child := job(root, name, budget_usd=1.0)).communicate(timeout=60)
    assert (child.returncode, output, server.requests) == (1, "", [])
    assert errors.startswith("BudgetError: Nobody has priced openai/unheard-of")


@pytest.mark.parametrize("provider", ["openai"], indirect=True)
def test_a_budget_ends_the_run_with_what_it_has_and_a_larger_one_goes_on(root, provider, job, tmp_path):
    with StubServer(Day(), input_tokens=1000, output_tokens=50) as server:
        name = provider(server)
        promised = finished(job(root, name, "estimate"))
        assert not server.requests
        assert promised["n_calls"] == len(MISSING) * (4 + 12)
        assert (promised["n_cached"], promised["n_features"]) == (0, len(MISSING))
        assert promised["usd"] > 0

        small = finished(job(root, name, budget_usd=0.03))
        n_sent = len(server.requests)
        assert 0 < small["usd"] <= 0.03
        assert "budget" in small["stopped"]
        assert most_committed(root) <= 0.03 + 1e-9
        states, _ = rows_of(root, small)
        assert sorted(states) == list(MISSING)
        assert small["states"]["budget"] == sum(state == "budget" for state in states.values()) > 10
        assert finished(job(root, name, budget_usd=0.03)) == small  # nothing more fits
        assert len(server.requests) == n_sent
        left = finished(job(root, name, "estimate"))
        assert 0 < left["n_cached"] < left["n_calls"]
        assert left["usd"] < promised["usd"]

        told = finished(job(root, name, budget_usd=BUDGET_USD))
        whole = make_gap(tmp_path / "whole", N_FEATURES, N_COVERED).root
        unbroken = finished(job(whole, name, budget_usd=BUDGET_USD))
    assert told == unbroken
    assert texts_by_id(root, told) == texts_by_id(whole, unbroken)
    assert "budget" not in told["states"]
