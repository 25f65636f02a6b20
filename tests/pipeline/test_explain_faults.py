"""A 200-feature explain job against a server on a bad day, killed twice: all features end typed, none is paid twice."""

from __future__ import annotations

import json
import os
import re
import threading
from collections import Counter

import pytest
from books import most_committed, recorded

from facviz.llm.ledger import call_rows
from facviz.store.workspace import open_workspace
from facviz.testing.llm_server import Fault, StubServer, wait_for_requests
from facviz.testing.many_features import DATASET, SAE_ID, make_many_features

N_FEATURES, CONCURRENCY, BUDGET_USD = 200, 8, 0.4
LETTERS = """
import numpy as np, facviz.embeddings
class Embedder:
    name = "letters"
    def embed(self, texts):
        vectors = np.array([[t.count(c) + 1e-3 for c in "abcdefghijklmnopqrstuvwxyz0123456789"] for t in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
facviz.embeddings.SentenceTransformerEmbedder = Embedder
"""
PROGRAM = f"""
import sys
{LETTERS}
from facviz.cli import main
sys.exit(main(["explain", "--dataset", "{DATASET}", "--json", "--quiet", "--concurrency", "{CONCURRENCY}",
               "--budget-usd", "{BUDGET_USD}", *sys.argv[1:]]))
"""
REPLIES = {Fault.REFUSAL, Fault.TRUNCATION, Fault.INVALID_JSON}
"""Faults that are replies, paid for and recorded; the others are none."""


def feature_of(body) -> int:
    """The feature a request is about: the one whose word is marked."""
    return int(re.search(r"«\s*theme(\d+)»", body["messages"][-1]["content"])[1])


class BadDay:
    """What every feature meets, and what the next request of all meets once."""

    def __init__(self):
        self.seen, self.next, self.lock = Counter(), [], threading.Lock()

    def __call__(self, number, body):
        with self.lock:
            feature = feature_of(body)
            self.seen[feature] += 1
            if self.next:
                return self.next.pop()
            return self.of(feature, self.seen[feature])

    def of(self, feature, nth):
        good = json.dumps(
            {"reasoning": "r", "outcome": "explained", "text": f"the word theme{feature}", "confidence": 0.9}
        )
        cannot = json.dumps({"reasoning": "r", "outcome": "cannot_tell", "text": "", "confidence": 0.1})
        once = {0: Fault.RATE_LIMIT, 1: Fault.OVERLOADED, 4: Fault.INVALID_JSON, 5: Fault.DROP}
        always = {2: Fault.REFUSAL, 3: Fault.TRUNCATION, 6: cannot}
        if feature in (7, 107) and nth == 1:
            return Fault.HANG
        if feature % 10 in always:
            return always[feature % 10]
        return once.get(feature % 10, good) if nth == 1 else good


@pytest.fixture
def root(tmp_path):
    return make_many_features(tmp_path / "workspace", N_FEATURES).root


def test_a_job_of_200_features_survives_every_fault_and_two_kills(root, provider, start_python):
    day = BadDay()
    with StubServer(day, delay_seconds=0.02, input_tokens=1000, output_tokens=50) as server:
        name = provider(server)

        def job():
            return start_python(PROGRAM, "--provider", name, "--workspace", root)

        kept = []
        for n_more in (50, 50):
            child = job()
            wait_for_requests(server, len(server.requests) + n_more)
            child.kill()
            child.communicate()
            kept.append((recorded(root), len(server.requests)))
        for fault, words in ((Fault.SPEND_LIMIT, "limit"), (Fault.DEAD_KEY, "key")):
            day.next.append(fault)
            output, errors = (child := job()).communicate(timeout=60)
            assert (child.returncode, output) == (2, ""), errors
            assert errors.count("\n") == 1
            assert words in errors
            assert os.environ["ANTHROPIC_API_KEY"] not in errors
            kept.append((recorded(root), len(server.requests)))
        output, errors = (child := job()).communicate(timeout=120)
        assert child.returncode == 0, errors
        told, n_sent = json.loads(output), len(server.requests)
        again, _ = job().communicate(timeout=60)
        assert json.loads(again) == told
        assert len(server.requests) == n_sent
        received = list(server.requests)

    # Every feature is in a typed state, and the ones that can be explained are.
    with open_workspace(root).reader() as reader:
        rows = {r["feature_id"]: r for r in reader.rows("explanations_by", sae_id=SAE_ID, wrote_by="llm")}
    assert sorted(rows) == list(range(N_FEATURES))
    lost = {f for f, row in rows.items() if "sent twice without an answer" in row["text"]}
    assert len(lost) <= CONCURRENCY
    for feature in rows.keys() - lost:
        expected = {2: "failed", 3: "failed", 6: "cannot_tell"}.get(feature % 10, "explained")
        assert rows[feature]["outcome"] == expected, rows[feature]
    assert all("refused" in rows[f]["text"] for f in range(2, 200, 10) if f not in lost)
    assert all("truncated" in rows[f]["text"] for f in range(3, 200, 10) if f not in lost)
    assert (told["n_features"], told["n_explained"] + told["n_cannot_tell"] + told["n_failed"]) == (200, 200)

    # No recorded reply was asked for again, and a kill cost at most what was in flight.
    final = recorded(root)
    for before, _ in kept:
        assert before
        assert before.items() <= final.items()
    answered = Counter(json.dumps(r.body, sort_keys=True) for r in received if _is_reply(r.line))
    assert max(answered.values()) <= 2
    assert sum(n - 1 for n in answered.values()) <= 2 * CONCURRENCY
    calls = call_rows(root)
    ended_well = Counter(c["request_hash"] for c in calls if c["outcome"] not in ("failed", "unknown"))
    assert set(ended_well.values()) == {1}
    assert len(ended_well) == len(final)

    # The books.
    assert sum(c["usd"] for c in calls) == pytest.approx(told["usd"], abs=1e-6)
    assert most_committed(root) <= BUDGET_USD + 1e-9
    price = {"anthropic": (0.1, 0.5), "openai": (0.1, 4.0)}[name]
    billed = sum(answered.values()) * (1000 * price[0] + 50 * price[1]) / 1e6
    assert billed <= told["usd"] + 1e-9
    assert {c["outcome"] for c in calls} >= {"ok", "refused", "truncated", "invalid", "failed", "unknown"}


def _is_reply(line):
    return not isinstance(line, Fault) or line in REPLIES
