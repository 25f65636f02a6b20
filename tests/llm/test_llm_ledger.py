"""The money book: nothing is sent that is not written, nothing is counted twice, no budget is exceeded."""

from __future__ import annotations

import fcntl
import json
import threading

import pytest

from facviz.files import append_line
from facviz.llm.adapter import Usage
from facviz.llm.ledger import Ledger, Quote, call_rows

COLUMNS = {
    "call_id", "request_hash", "provider", "model", "prompt", "outcome", "input_tokens", "output_tokens",
    "cache_read_tokens", "cache_write_tokens", "usd", "price_version", "attempt", "at",
}  # fmt: skip


def quote(key: str = "a" * 32, worst: float | None = 1.0, scope: str = "") -> Quote:
    return Quote(key, "scripted", "script", "explain.v1", worst, "facviz@2026-11-01", scope)


def lines(root):
    return [json.loads(line) for line in (root / "llm" / "ledger.jsonl").read_text().splitlines()]


def test_a_call_is_on_disk_at_its_worst_cost_before_it_is_sent(tmp_path):
    call_id, attempt = Ledger(tmp_path).reserve(quote(), None)
    (line,) = lines(tmp_path)
    assert (line["event"], line["call_id"], line["worst_usd"], attempt) == ("reserved", call_id, 1.0, 1)


def test_a_row_says_what_the_call_was_and_what_it_cost(tmp_path):
    ledger = Ledger(tmp_path)
    call_id, _ = ledger.reserve(quote(), None)
    assert ledger.rows()[0]["outcome"] == "in_flight"
    ledger.end(call_id, "ok", 0.25, Usage(10, 20, 3, 4), seconds=1.5)
    (row,) = call_rows(tmp_path)
    assert set(row) == COLUMNS
    assert (row["outcome"], row["usd"], row["prompt"], row["attempt"]) == ("ok", 0.25, "explain.v1", 1)
    assert (row["input_tokens"], row["output_tokens"], row["cache_read_tokens"], row["cache_write_tokens"]) == (
        10,
        20,
        3,
        4,
    )
    assert Ledger(tmp_path).typical_seconds() == 1.5


def test_a_call_without_an_end_is_unknown_to_the_next_process_and_counts_at_its_worst(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.reserve(quote(), None)
    assert ledger.n_unknown(quote().request_hash) == 0  # in flight here
    later = Ledger(tmp_path)
    assert later.n_unknown(quote().request_hash) == 1
    assert later.committed_usd() == 1.0
    assert [(row["outcome"], row["usd"]) for row in call_rows(tmp_path)] == [("unknown", 1.0)]


def test_attempts_of_one_request_are_counted_over_all_runs(tmp_path):
    reserved = [Ledger(tmp_path).reserve(quote(), None) for _ in range(3)]
    assert [attempt for _, attempt in reserved] == [1, 2, 3]
    assert len({call_id for call_id, _ in reserved}) == 3


def test_a_call_ends_once(tmp_path):
    ledger = Ledger(tmp_path)
    call_id, _ = ledger.reserve(quote(), None)
    ledger.end(call_id, "ok", 0.25)
    ledger.end(call_id, "failed", 0.0)
    assert ledger.committed_usd() == Ledger(tmp_path).committed_usd() == 0.25
    assert [line["event"] for line in lines(tmp_path)] == ["reserved", "ended"]


def test_a_budget_counts_what_is_spent_and_what_is_reserved(tmp_path):
    ledger = Ledger(tmp_path)
    first, _ = ledger.reserve(quote(), 2.5)
    second, _ = ledger.reserve(quote(), 2.5)
    assert ledger.reserve(quote(), 2.5) is None
    ledger.end(first, "ok", 0.5)
    assert ledger.reserve(quote(), 2.5) is not None
    assert ledger.committed_usd() == 2.5
    ledger.end(second, "failed", 0.0)
    assert ledger.committed_usd() == 1.5


def test_a_budget_belongs_to_a_scope_and_the_empty_scope_to_all(tmp_path):
    ledger = Ledger(tmp_path)
    assert ledger.reserve(quote(scope="explain"), 1.0)
    assert ledger.reserve(quote(scope="explain"), 1.0) is None
    assert ledger.reserve(quote(scope="judge"), 1.0)
    assert ledger.reserve(quote(), 2.5) is None
    assert (ledger.committed_usd("judge"), ledger.committed_usd()) == (1.0, 2.0)


def test_an_unknown_cost_never_fits_a_budget(tmp_path):
    assert Ledger(tmp_path).reserve(quote(worst=None), 1000.0) is None
    assert Ledger(tmp_path).reserve(quote(worst=None), None) is not None


@pytest.mark.parametrize("n_ledgers", [1, 8], ids=["threads of one ledger", "a ledger each, as processes have"])
def test_reserving_at_once_never_exceeds_the_budget(tmp_path, n_ledgers):
    ledgers = [Ledger(tmp_path) for _ in range(n_ledgers)]
    reserved = []

    def take(i):
        for _ in range(4):
            reserved.append(ledgers[i % n_ledgers].reserve(quote(f"{i:032x}", 0.1), 1.0))

    threads = [threading.Thread(target=take, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([r for r in reserved if r]) == 10
    assert Ledger(tmp_path).committed_usd() == pytest.approx(1.0)


def test_reserving_waits_for_another_process_that_is_reserving(tmp_path):
    ledger, reserved = Ledger(tmp_path), []
    (tmp_path / "llm").mkdir()
    thread = threading.Thread(target=lambda: reserved.append(ledger.reserve(quote(), 1.0)))
    with (tmp_path / "llm" / "lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread.start()
        thread.join(timeout=0.1)
        assert reserved == []
        # What the other process writes meanwhile is read before deciding.
        line = {"event": "reserved", "call_id": "x-1", "request_hash": "x", "worst_usd": 0.5}
        append_line(tmp_path / "llm" / "ledger.jsonl", line)
    thread.join(timeout=30)
    assert reserved == [None]


@pytest.mark.parametrize("n_bytes", [1, 40, -1])
def test_a_torn_last_line_is_no_entry_and_swallows_none(tmp_path, n_bytes):
    ledger = Ledger(tmp_path)
    call_id, _ = ledger.reserve(quote(), None)
    path = tmp_path / "llm" / "ledger.jsonl"
    whole = path.read_bytes()
    ledger.end(call_id, "ok", 0.25)
    ended = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + ended[:n_bytes])
    later = Ledger(tmp_path)
    assert later.committed_usd() == 1.0
    later.end(call_id, "ok", 0.25)
    assert Ledger(tmp_path).committed_usd() == 0.25
    assert [row["outcome"] for row in call_rows(tmp_path)] == ["ok"]


def test_a_workspace_that_never_paid_has_no_rows_and_gets_no_file(tmp_path):
    assert call_rows(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
