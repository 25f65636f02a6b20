"""The paid caller on a scripted model: cache, budget, retries and concurrency, without any network."""

from __future__ import annotations

import dataclasses
import json
import threading
import time

import numpy as np
import pytest

from facviz.errors import BudgetError, LLMError
from facviz.llm.adapter import Answer, Failure, FailureKind, Usage
from facviz.llm.cache import ReplyStore
from facviz.llm.calls import PaidLLM
from facviz.llm.ledger import Ledger, call_rows
from facviz.llm.prices import load_prices
from facviz.llm.scripted import ScriptedAdapter
from facviz.llm.throttle import Throttle
from facviz.protocols import LLMClient
from facviz.records import LLMRequest, Message, Outcome, SteeringVector

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
PRICES = """
[[price]]
provider = "scripted"
model = "script"
effective_from = 2026-01-01
input = 1
output = 10
"""
RETRY = Failure(FailureKind.RETRY, "HTTP 500: oops", 0.0)
THROTTLED = Failure(FailureKind.THROTTLED, "HTTP 429: slow down", 0.0)
UNKNOWN = Failure(FailureKind.UNKNOWN, "no answer came", 0.0)
FATAL = Failure(FailureKind.FATAL, "The key is dead; set another.")
REJECTED = Failure(FailureKind.REJECTED, "Too long; show fewer spans.")


def ask(i: int = 0, **changes) -> LLMRequest:
    return dataclasses.replace(LLMRequest((Message("user", f"item {i}"),), max_tokens=100, prompt="test.v1"), **changes)


@pytest.fixture
def open_script(tmp_path):
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICES)

    def open_(script, *, model="script", **options):
        adapter = ScriptedAdapter(script, model=model)
        root = tmp_path / "workspace"
        store = ReplyStore(root / "llm" / "replies")
        options = {"backoff_seconds": 0.001} | options
        return PaidLLM(adapter, Ledger(root), store, load_prices(prices), **options)

    open_.root = tmp_path / "workspace"
    return open_


def outcomes(root):
    return [row["outcome"] for row in call_rows(root)]


def test_it_is_an_llm_client(open_script):
    client: LLMClient = open_script(["hello"])
    assert client.name == "scripted/script"
    assert client.complete([]) == []


def test_replies_come_in_the_order_of_the_requests(open_script):
    client = open_script(lambda n, request: request.messages[0].content, concurrency=3)
    replies = client.complete([ask(i) for i in range(12)])
    assert [[r.text for r in group] for group in replies] == [[f"item {i}"] for i in range(12)]


def test_each_of_n_replies_is_a_call_of_its_own(open_script):
    client = open_script(lambda n, request: f"reply {n}")
    (group,) = client.complete([ask(n=3)])
    assert {r.text for r in group} == {"reply 0", "reply 1", "reply 2"}
    assert len({r.call_id for r in group}) == 3
    (again,) = client.complete([ask(n=4)])
    assert again[:3] == group


def test_a_recorded_reply_is_never_requested_again_also_after_a_restart(open_script):
    first = open_script(["one", "two"]).complete([ask(0), ask(1)])
    later = open_script(["other"])
    assert later.complete([ask(0), ask(1)]) == first
    assert later.adapter.requests == []


def test_equal_requests_are_sent_once(open_script):
    client = open_script(["same"])
    assert [g[0].text for g in client.complete([ask(), ask(), ask()])] == ["same"] * 3
    assert len(client.adapter.requests) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (Message("user", "other"),)},
        {"messages": (Message("system", "item 0"),)},
        {"max_tokens": 101},
        {"temperature": 0.1},
        {"top_p": 0.5},
        {"rng_seed": 1},
        {"schema": SCHEMA},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_a_reply_follows_from_makes_another_request(open_script, change):
    client = open_script(['{"text": "x"}'])
    client.complete([ask(), ask(**change)])
    assert len(client.adapter.requests) == 2


def test_the_name_of_the_prompt_does_not(open_script):
    client = open_script(["x"])
    client.complete([ask(), ask(prompt="renamed.v2")])
    assert len(client.adapter.requests) == 1


def test_each_reply_is_seen_as_it_arrives(open_script):
    seen = []
    with pytest.raises(LLMError, match="dead"):
        open_script(["a", "b", FATAL], concurrency=1).complete(
            [ask(i) for i in range(5)], lambda i, k, reply: seen.append((i, k, reply.text))
        )
    assert seen == [(0, 0, "a"), (1, 0, "b")]


def test_a_fatal_failure_stops_the_job_and_keeps_what_was_finished(open_script):
    client = open_script(["a", "b", FATAL], concurrency=1)
    with pytest.raises(LLMError, match=r"^The key is dead; set another\.$"):
        client.complete([ask(i) for i in range(9)])
    assert len(client.adapter.requests) == 3
    later = open_script(["late"])
    assert [g[0].text for g in later.complete([ask(i) for i in range(3)])] == ["a", "b", "late"]


def test_a_failure_that_may_pass_is_tried_again_and_every_attempt_is_on_record(open_script):
    client = open_script([RETRY, THROTTLED, "fine"])
    assert client.complete([ask()])[0][0].text == "fine"
    rows = call_rows(open_script.root)
    assert [(r["attempt"], r["outcome"]) for r in rows] == [(1, "failed"), (2, "failed"), (3, "ok")]
    assert [r["usd"] for r in rows[:2]] == [0.0, 0.0]


def test_attempts_are_capped(open_script):
    client = open_script([RETRY], max_attempts=4)
    with pytest.raises(LLMError, match=r"still gives no answer after 4 tries \(HTTP 500: oops\)"):
        client.complete([ask()])
    assert len(client.adapter.requests) == 4


def test_a_wait_nobody_should_sit_through_stops_the_job(open_script):
    with pytest.raises(LLMError, match="asks to wait 3600 s"):
        open_script([Failure(FailureKind.RETRY, "later", 3600.0)]).complete([ask()])


def test_a_provider_that_cannot_be_reached_at_all_stops_the_job_at_once(open_script):
    gone = Failure(FailureKind.UNREACHABLE, "Cannot reach it; start the server.", 0.0)
    client = open_script([gone])
    with pytest.raises(LLMError, match=r"^Cannot reach it"):
        client.complete([ask()])
    assert len(client.adapter.requests) == 1
    later = open_script(["a", gone, "b"], concurrency=1)
    assert [g[0].text for g in later.complete([ask(0), ask(1)])] == ["a", "b"]


def test_an_unknown_outcome_counts_as_spent_and_is_sent_once_more_at_most(open_script):
    client = open_script([UNKNOWN])
    ((reply,),) = client.complete([ask()])
    assert (reply.outcome, reply.text) == (Outcome.INVALID, "")
    assert "sent twice" in reply.detail
    assert len(client.adapter.requests) == 2
    worst = [row["usd"] for row in call_rows(open_script.root)]
    assert outcomes(open_script.root) == ["unknown", "unknown"]
    assert worst[0] == worst[1] > 0
    assert client.ledger.committed_usd() == pytest.approx(sum(worst))
    later = open_script(["never asked"])
    assert later.complete([ask()])[0][0].outcome is Outcome.INVALID
    assert later.adapter.requests == []


def test_a_request_the_provider_cannot_take_is_invalid_and_the_others_go_on(open_script):
    client = open_script(["a", REJECTED, "c"], concurrency=1)
    replies = [group[0] for group in client.complete([ask(i) for i in range(3)])]
    assert [r.outcome for r in replies] == [Outcome.OK, Outcome.INVALID, Outcome.OK]
    assert replies[1].detail == REJECTED.sentence


def test_when_every_request_is_rejected_the_job_stops(open_script):
    client = open_script([REJECTED], concurrency=1)
    with pytest.raises(LLMError, match="Too long"):
        client.complete([ask(i) for i in range(50)])
    assert len(client.adapter.requests) == 3


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.TRUNCATED])
def test_what_was_paid_for_is_kept_whatever_its_outcome(open_script, outcome):
    paid = Answer("half", outcome, Usage(100, 7), "script", "why")
    ((reply,),) = open_script([paid]).complete([ask(schema=SCHEMA)])
    assert (reply.outcome, reply.n_tokens, reply.detail) == (outcome, 7, "why")
    assert open_script(["x"]).complete([ask(schema=SCHEMA)]) == [[reply]]


@pytest.mark.parametrize(
    ("text", "outcome", "kept"),
    [
        ('{"text": "x"}', Outcome.OK, '{"text": "x"}'),
        ('Sure!\n```json\n{"text": "x"}\n```', Outcome.OK, '{"text": "x"}'),
        ('{"text": "x', Outcome.INVALID, '{"text": "x'),
        ("[1, 2]", Outcome.INVALID, "[1, 2]"),
        ("", Outcome.INVALID, ""),
        ('{"a":' * 100_00 + "1" + "}" * 100_00, Outcome.INVALID, None),
        ("x" * 300_000, Outcome.INVALID, "x" * 200_000),
    ],
    ids=["object", "fenced", "cut", "list", "empty", "deep", "long"],
)
def test_where_json_was_asked_for_only_an_object_is_ok(open_script, text, outcome, kept):
    ((reply,),) = open_script([text]).complete([ask(schema=SCHEMA)])
    assert reply.outcome is outcome
    assert kept is None or reply.text == kept


def test_the_ledger_adds_up(open_script):
    script = [Answer("x", Outcome.OK, Usage(1000, 50), "script"), RETRY, Answer("y", Outcome.OK, Usage(2000, 5), "s")]
    client = open_script(script, concurrency=1)
    client.complete([ask(0), ask(1)])
    assert client.ledger.committed_usd() == pytest.approx((1000 + 500 + 2000 + 50) / 1e6)
    assert sum(row["usd"] for row in call_rows(open_script.root)) == pytest.approx(client.ledger.committed_usd())
    assert {row["price_version"] for row in call_rows(open_script.root)} == {"user@2026-01-01"}


def test_a_server_that_hides_its_usage_is_counted_at_the_worst(open_script):
    client = open_script([Answer("x", Outcome.OK, None, "script")])
    client.complete([ask()])
    (row,) = call_rows(open_script.root)
    assert row["usd"] > 100 * 10 / 1e6
    assert row["output_tokens"] is None


def test_a_budget_stops_before_the_call_that_might_exceed_it(open_script):
    used = Answer("x", Outcome.OK, Usage(1000, 100), "script")  # $0.002; worst cost slightly above it
    client = open_script([used], budget_usd=0.0085, concurrency=3)
    with pytest.raises(BudgetError, match="The budget of") as caught:
        client.complete([ask(i) for i in range(20)])
    n_sent = len(client.adapter.requests)
    assert n_sent == 4
    assert caught.value.spent_usd == pytest.approx(0.008) == client.ledger.committed_usd()
    finished = open_script([used], budget_usd=caught.value.needed_usd, concurrency=3)
    assert len(finished.complete([ask(i) for i in range(20)])) == 20
    assert len(finished.adapter.requests) == 16


def test_a_reservation_that_comes_back_lets_the_next_call_go(open_script):
    used = Answer("x", Outcome.OK, Usage(10, 1), "script")

    def slow(number, request):
        time.sleep(0.02)
        return used

    client = open_script(slow, budget_usd=0.0045, concurrency=4)  # room for two at their worst
    assert len(client.complete([ask(i) for i in range(12)])) == 12


def test_no_budget_can_be_kept_for_a_model_nobody_priced(open_script):
    client = open_script(["x"], model="mystery", budget_usd=100.0)
    with pytest.raises(LLMError, match=r"Nobody has priced scripted/mystery.*FACVIZ_PRICES"):
        client.complete([ask()])
    assert client.adapter.requests == []
    free = open_script(["x"], model="mystery")
    assert free.complete([ask()])[0][0].text == "x"
    assert call_rows(open_script.root)[0]["usd"] is None


def test_a_kill_between_the_reply_and_the_ledger_costs_nothing_twice(open_script, monkeypatch):
    class KilledError(BaseException):
        pass

    client = open_script([Answer("x", Outcome.OK, Usage(1000, 50), "script")])

    def kill(*args, **kwargs):
        raise KilledError

    monkeypatch.setattr(client.ledger, "end", kill)
    with pytest.raises(KilledError):
        client.complete([ask()])
    later = open_script(["never asked"])
    assert later.complete([ask()])[0][0].text == "x"
    assert later.adapter.requests == []
    assert later.ledger.committed_usd() == pytest.approx(0.0015)
    assert outcomes(open_script.root) == ["ok"]


def test_closing_early_keeps_what_was_in_flight_and_sends_no_more(open_script):
    client = open_script(lambda n, request: time.sleep(0.01) or f"r{n}", concurrency=2)
    arriving = client.as_completed([ask(i) for i in range(40)])
    next(arriving)
    arriving.close()
    assert len(client.adapter.requests) < 40
    assert outcomes(open_script.root) == ["ok"] * len(client.adapter.requests)


def test_no_more_calls_run_at_once_than_allowed(open_script):
    running, most, lock, together = 0, 0, threading.Lock(), threading.Barrier(3)

    def count(number, request):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if number < 3:
            together.wait(timeout=30)
        time.sleep(0.002)
        with lock:
            running -= 1
        return "x"

    open_script(count, concurrency=3).complete([ask(i) for i in range(15)])
    assert most == 3


def test_a_dry_run_sends_and_writes_nothing(open_script):
    client = open_script(["x"])
    estimate = client.estimate([ask(0, n=2), ask(1, schema=SCHEMA), ask(1, schema=SCHEMA)])
    n_schema = len(json.dumps(SCHEMA))
    n_input = 2 * 2 + -(-(6 + n_schema) * 2 // 7)
    assert (estimate.n_calls, estimate.n_cached) == (3, 0)
    assert (estimate.n_input_tokens, estimate.n_output_tokens) == (n_input, 300)
    assert estimate.usd == pytest.approx((n_input + 3000) / 1e6)
    assert estimate.seconds > 0
    assert client.adapter.requests == []
    assert call_rows(open_script.root) == []


def test_a_dry_run_counts_what_is_already_paid_for(open_script):
    client = open_script(["x"])
    client.complete([ask(0)])
    estimate = client.estimate([ask(0), ask(1)])
    assert (estimate.n_calls, estimate.n_cached, estimate.n_output_tokens) == (2, 1, 100)
    assert client.estimate([ask(0)]).usd == 0
    assert open_script(["x"], model="mystery").estimate([ask(0)]).usd is None


def test_the_worst_cost_holds_for_text_of_many_tokens_a_character(open_script):
    rare = "𒀀" * 2000  # four bytes each, up to four tokens each
    client = open_script([Answer("x", Outcome.OK, Usage(8000, 100), "script")])
    client.complete([ask(messages=(Message("user", rare),))])
    line = json.loads((open_script.root / "llm" / "ledger.jsonl").read_text().splitlines()[0])
    assert line["worst_usd"] >= (8000 + 1000) / 1e6


def test_the_throttle_shrinks_once_a_burst_and_grows_one_at_a_time():
    throttle, stopped = Throttle(8), threading.Event()
    entered = [throttle.enter(stopped) for _ in range(8)]
    for moment in entered:
        throttle.slow_down(moment)
    assert throttle.limit == 6
    for _ in entered:
        throttle.leave()
    for _ in range(6):
        throttle.speed_up()
    assert throttle.limit == 7
    for _ in range(100):
        throttle.slow_down(time.monotonic())
    assert throttle.limit == 1
    for _ in range(100):
        throttle.speed_up()
    assert throttle.limit == 8


def test_a_providers_wait_holds_every_caller_back():
    throttle, stopped = Throttle(2), threading.Event()
    before = throttle.enter(stopped)
    throttle.slow_down(before, 0.05)
    throttle.leave()
    assert throttle.enter(stopped) - before >= 0.05
    stopped.set()
    assert throttle.enter(stopped) is None


def test_a_push_is_refused_before_anything_is_sent_or_reserved(open_script):
    steered = ask(1, steering=SteeringVector(1, np.ones(4, np.float32), 1.0))
    with open_script(["fine"]) as client:
        for use in (client.complete, client.estimate):
            with pytest.raises(LLMError, match="scripted/script runs elsewhere and cannot be steered; let the local"):
                use([ask(0), steered])
        assert client.adapter.requests == []
        assert client.complete([ask(0)])[0][0].text == "fine"
    assert outcomes(open_script.root) == ["ok"]
