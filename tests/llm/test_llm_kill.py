"""Kill -9 in the middle of a paid job, twice: what the server saw is what the books say, and nothing is paid twice."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from facviz.llm.ledger import call_rows
from facviz.testing.llm_server import StubServer, wait_for_requests

N_REQUESTS, CONCURRENCY = 60, 4
BUDGET_USD = 0.25
PROGRAM = f"""
import sys
from pathlib import Path
from facviz.llm.providers import open_client
from facviz.records import LLMRequest, Message
requests = [LLMRequest((Message("user", f"item {{i}}."),), max_tokens=100) for i in range({N_REQUESTS})]
with open_client("anthropic", "claude-haiku-5-5", Path(sys.argv[1]), base_url=sys.argv[2],
                 concurrency={CONCURRENCY}, budget_usd={BUDGET_USD}) as client:
    print(*(group[0].outcome.value for group in client.complete(requests)))
"""


def item_of(prompt: str) -> str:
    return re.search(r"item \d+\.", prompt).group()


def recorded(root) -> set[str]:
    """Items whose reply is on disk; the server's replies repeat the item."""
    return {item_of(json.loads(path.read_text())["text"]) for path in (root / "llm" / "replies").glob("*/*.json")}


@pytest.fixture
def environment(monkeypatch, tmp_path):
    for name in ("ANTHROPIC_AUTH_TOKEN", "FACVIZ_PRICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789abcdefghij")
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_job_killed_twice_pays_for_nothing_twice_and_its_books_add_up(tmp_path, environment, start_python):
    def answer(number, body):
        return f"about {item_of(body['messages'][-1]['content'])}"

    with StubServer(answer, delay_seconds=0.03, input_tokens=1000, output_tokens=500) as server:
        sent_before, kept_before = [0], [set()]
        for n_more in (17, 19):
            child = start_python(PROGRAM, tmp_path, server.url)
            wait_for_requests(server, len(server.requests) + n_more)
            child.kill()
            child.communicate()
            sent_before.append(len(server.requests))
            kept_before.append(recorded(tmp_path))
        child = start_python(PROGRAM, tmp_path, server.url)
        output, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
        items = [item_of(received.prompt) for received in server.requests]
        most_at_once = server.n_most_at_once

    for n_sent, kept in zip(sent_before[1:], kept_before[1:], strict=True):
        assert len(kept) >= 10
        assert kept.isdisjoint(items[n_sent:])
    repeats = Counter(items)
    assert max(repeats.values()) <= 2
    assert sum(n - 1 for n in repeats.values()) <= 2 * CONCURRENCY
    # A kill can come between writing a call down and sending it, so the books may hold calls the server never saw.
    rows = call_rows(tmp_path)
    n_ok, n_unknown = (sum(row["outcome"] == state for row in rows) for state in ("ok", "unknown"))
    assert n_ok + n_unknown == len(rows) >= len(items)
    assert n_unknown <= 2 * CONCURRENCY
    outcomes = Counter(output.split())
    assert sum(outcomes.values()) == N_REQUESTS
    assert outcomes["ok"] == n_ok == len(recorded(tmp_path))
    assert outcomes["invalid"] <= CONCURRENCY  # lost in both kills, so not sent a third time

    billed = len(items) * (1000 * 0.10 + 500 * 0.50) / 1e6
    booked = sum(row["usd"] for row in rows)
    assert billed <= booked <= BUDGET_USD
    assert sum(row["usd"] for row in rows if row["outcome"] == "ok") == pytest.approx(n_ok * 350e-6)
    assert most_at_once <= 2 * CONCURRENCY  # what a killed child left behind, and its successor's


def test_a_budget_holds_over_kills_and_restarts(tmp_path, environment, start_python):
    """Each run stops at the same budget, however often the job is killed and started again."""
    budget = 0.02
    program = PROGRAM.replace(f"budget_usd={BUDGET_USD}", f"budget_usd={budget}")
    with StubServer(["fine"], delay_seconds=0.02, input_tokens=1000, output_tokens=500) as server:
        child = start_python(program, tmp_path, server.url)
        wait_for_requests(server, 6)
        child.kill()
        child.communicate()
        for _ in range(2):
            child = start_python(program, tmp_path, server.url)
            _, errors = child.communicate(timeout=60)
            assert child.returncode == 1
            assert "BudgetError: The budget of $0.0200 is reached" in errors
        billed = len(server.requests) * 350e-6
    assert billed <= sum(row["usd"] for row in call_rows(tmp_path)) <= budget
