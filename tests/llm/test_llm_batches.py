"""Message batches: half the price by the same books, found again by id after a kill, never handed in twice."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from facviz.errors import BudgetError, InputError, LLMError
from facviz.llm import batches
from facviz.llm.batches import BatchedLLM
from facviz.llm.ledger import call_rows
from facviz.llm.providers import open_client
from facviz.records import LLMRequest, Message, Outcome
from facviz.testing.llm_server import BATCHES, Fault, StubServer, wait_for_requests

MODEL = "claude-haiku-5-5"
REQUESTS = [LLMRequest((Message("user", f"item {i}."),), max_tokens=100) for i in range(12)]


def says_item(number, body):
    return f"about {body['messages'][-1]['content']}"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("ANTHROPIC_AUTH_TOKEN", "FACVIZ_PRICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789abcdefghij")
    monkeypatch.setattr(batches, "FIRST_POLL_SECONDS", 0.01)


@pytest.fixture
def client(tmp_path):
    def make(server, **more):
        return open_client("anthropic", MODEL, tmp_path, base_url=server.url, batch=True, **more)

    return make


def handed_in(server):
    """Requests by id, of all batches."""
    return [r.headers["custom-id"] for r in server.requests if r.path == BATCHES]


def test_replies_come_back_in_order_at_half_the_price_and_are_not_asked_for_again(client, tmp_path):
    with StubServer(says_item, input_tokens=1000, output_tokens=500) as server, client(server) as llm:
        assert isinstance(llm, BatchedLLM)
        replies = llm.complete(REQUESTS)
        assert [group[0].text for group in replies] == [f"about item {i}." for i in range(12)]
        assert llm.complete(REQUESTS) == replies
        assert llm.estimate(REQUESTS).n_cached == 12
        assert (len(server.batches), len(handed_in(server))) == (1, 12)
    rows = call_rows(tmp_path)
    assert {row["outcome"] for row in rows} == {"ok"}
    assert sum(row["usd"] for row in rows) == pytest.approx(12 * 350e-6 / 2)
    assert {row["price_version"].split("@")[0] for row in rows} == {"facviz batch"}


def test_a_reply_of_a_single_call_serves_a_batch_too(client, tmp_path):
    with StubServer(says_item) as server:
        with open_client("anthropic", MODEL, tmp_path, base_url=server.url) as single:
            single.complete(REQUESTS[:5])
        with client(server) as llm:
            llm.complete(REQUESTS)
        assert len(handed_in(server)) == 7


def test_refused_truncated_errored_and_expired_requests_end_typed(client, tmp_path):
    faults = {0: Fault.REFUSAL, 1: Fault.TRUNCATION, 2: Fault.BAD_REQUEST, 3: Fault.SERVER_ERROR, 4: Fault.HANG}
    seen = Counter()

    def script(number, body):
        item = int(body["messages"][-1]["content"].split()[1].rstrip("."))
        seen[item] += 1
        once = item in (3, 4)
        return faults[item] if item in faults and not (once and seen[item] > 1) else says_item(number, body)

    with StubServer(script) as server, client(server) as llm:
        replies = [group[0] for group in llm.complete(REQUESTS)]
        assert len(server.batches) == 2
    assert [r.outcome for r in replies[:3]] == [Outcome.REFUSED, Outcome.TRUNCATED, Outcome.INVALID]
    assert [r.outcome for r in replies[3:]] == [Outcome.OK] * 9
    assert "does not understand" in replies[2].detail
    assert seen == Counter({i: 2 if i in (3, 4) else 1 for i in range(12)})
    failed = [row for row in call_rows(tmp_path) if row["outcome"] == "failed"]
    assert [row["usd"] for row in failed] == [0.0] * 3


def test_a_request_that_no_batch_answers_ends_after_a_number_of_them(client):
    with StubServer([Fault.HANG]) as server, client(server) as llm:
        (reply,) = llm.complete(REQUESTS[:1])[0]
        assert len(server.batches) == batches.MAX_SENDINGS
    assert (reply.outcome, "expired" in reply.detail) == (Outcome.INVALID, True)


def test_a_batch_holds_what_the_budget_can_bear_and_the_rest_follows(client, tmp_path):
    with StubServer(says_item, input_tokens=1000, output_tokens=500) as server:
        with client(server) as llm:
            budget = llm.estimate(REQUESTS).usd / 2
        with client(server, budget_usd=budget) as llm:
            replies = llm.complete(REQUESTS)
        assert [group[0].outcome for group in replies] == [Outcome.OK] * 12
        assert len(server.batches) >= 2
        assert max(Counter(handed_in(server)).values()) == 1
        with client(server, budget_usd=budget / 20) as llm, pytest.raises(BudgetError, match="budget"):
            llm.complete([LLMRequest((Message("user", "one more"),), max_tokens=100)])
        assert len(handed_in(server)) == 12
    assert sum(row["usd"] for row in call_rows(tmp_path)) <= budget


@pytest.mark.parametrize(
    ("fault", "words"), [(Fault.SPEND_LIMIT, "limit"), (Fault.DEAD_KEY, "key"), (Fault.UNKNOWN_MODEL, "no model")]
)
def test_a_batch_nobody_takes_costs_nothing_and_says_why(client, tmp_path, fault, words):
    with StubServer(says_item, batch_fault=fault) as server:
        with client(server) as llm, pytest.raises(LLMError, match=words):
            llm.complete(REQUESTS)
        assert sum(row["usd"] for row in call_rows(tmp_path)) == 0
        server.batch_fault = None
        with client(server) as llm:
            assert len(llm.complete(REQUESTS)) == 12
        assert len(server.batches) == 1


def test_a_batch_whose_answer_was_lost_is_found_again_by_its_requests(client, tmp_path):
    with StubServer(says_item, batch_fault=Fault.DROP) as server:
        with client(server) as llm, pytest.raises(LLMError, match="could not be handed in"):
            llm.complete(REQUESTS)
        assert sum(row["usd"] for row in call_rows(tmp_path)) > 0  # it may have been taken, and it was
        server.batch_fault = None
        server.take_batch(
            {"requests": [{"custom_id": f"x{i}", "params": {"messages": [{"content": "z"}]}} for i in range(12)]}
        )
        with client(server) as llm:
            assert [group[0].outcome for group in llm.complete(REQUESTS)] == [Outcome.OK] * 12
        assert max(Counter(handed_in(server)).values()) == 1
        assert len(server.batches) == 2  # ours, and somebody else's of the same size
    assert {row["outcome"] for row in call_rows(tmp_path)} == {"ok"}


def test_a_batch_of_several_jobs_is_fetched_by_each_for_its_own_part(client, tmp_path):
    def script(number, body):
        is_first = number < 4
        return Fault.SERVER_ERROR if is_first and "item 0." in str(body["messages"]) else says_item(number, body)

    with StubServer(script, n_polls=10**9) as server:
        with client(server) as llm:
            llm.pause = lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt)
            with pytest.raises(KeyboardInterrupt):
                llm.complete(REQUESTS[:4])
        server.n_polls = 0
        with client(server) as llm:
            assert [group[0].outcome for group in llm.complete(REQUESTS[:2])] == [Outcome.OK] * 2
            assert [group[0].outcome for group in llm.complete(REQUESTS[2:4])] == [Outcome.OK] * 2
        assert Counter(handed_in(server)).most_common(1)[0][1] == 2  # only the one that had no answer
        assert len(handed_in(server)) == 5
    assert Counter(row["outcome"] for row in call_rows(tmp_path)) == {"ok": 4, "failed": 1}


PROGRAM = f"""
import sys
from pathlib import Path
from facviz.llm import batches
batches.FIRST_POLL_SECONDS = 0.05
from facviz.llm.providers import open_client
from facviz.records import LLMRequest, Message
requests = [LLMRequest((Message("user", f"item {{i}}."),), max_tokens=100) for i in range(12)]
with open_client("anthropic", "{MODEL}", Path(sys.argv[1]), base_url=sys.argv[2], batch=True, budget_usd=0.1) as client:
    print(*(group[0].outcome.value for group in client.complete(requests)))
"""


def test_a_job_killed_while_it_waits_finds_its_batch_by_id(tmp_path, start_python):
    with StubServer(says_item, n_polls=10**9) as server:
        for _ in range(2):
            child = start_python(PROGRAM, tmp_path, server.url)
            wait_for_requests(server, 12)
            while not any(json.loads(p.read_text())["batch_id"] for p in (tmp_path / "llm" / "batches").glob("*.json")):
                assert child.poll() is None
            child.kill()
            child.communicate()
        server.n_polls = 0
        child = start_python(PROGRAM, tmp_path, server.url)
        output, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
        assert output.split() == ["ok"] * 12
        assert (len(server.batches), len(handed_in(server))) == (1, 12)


def test_only_a_provider_of_batches_is_asked_for_one(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    with pytest.raises(InputError, match="anthropic alone"):
        open_client("openai", "m", tmp_path, base_url="http://127.0.0.1:9/v1", batch=True)
