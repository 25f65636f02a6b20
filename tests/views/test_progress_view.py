"""A synthesis while it writes: the ledger is read on as it grows, torn lines are waited for, dollars are projected."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime

from facviz.views.progress import MOST_ROWS, Tail, Tally, lines_html, live_lines, spent_words


def batch(feature_id, *candidates):
    rows = [{"feature_id": feature_id, "act": act, "accepted": accepted} for act, accepted in candidates]
    return json.dumps({"feature_id": feature_id, "step": "guided", "round": 0, "candidates": rows})


def test_the_ledger_is_read_on_as_it_grows_and_a_torn_line_only_once_it_is_whole(tmp_path):
    path = tmp_path / "abc.jsonl"
    path.write_text(batch(12, (1.0, False), (3.0, True)) + "\n", encoding="utf-8")
    tail = Tail(tmp_path, time.time() - 60)
    tail.read_on()
    assert (tail.tallies[12].n_tried, tail.tallies[12].n_accepted, tail.tallies[12].best_act) == (2, 1, 3.0)
    whole = batch(13, (0.5, False)) + "\n"
    with path.open("a", encoding="utf-8") as file:
        file.write(whole[:20])
    tail.read_on()
    assert 13 not in tail.tallies
    with path.open("a", encoding="utf-8") as file:
        file.write(whole[20:] + "no json\n[1]\n")
    tail.read_on()
    tail.read_on()
    assert tail.tallies[13].n_tried == 1
    assert tail.tallies[12].n_tried == 2


def test_a_ledger_that_nobody_wrote_to_since_the_job_began_is_not_its_own(tmp_path):
    path = tmp_path / "old.jsonl"
    path.write_text(batch(12, (1.0, False)) + "\n", encoding="utf-8")
    os.utime(path, (1000, 1000))
    tail = Tail(tmp_path, time.time() - 60)
    tail.read_on()
    assert tail.tallies == {}
    Tail(tmp_path / "none", 0.0).read_on()  # before the first batch there is no folder


def test_what_is_being_written_stands_first_then_what_ended_last_then_what_waits():
    tallies = {f: Tally(16, int(f == 1), 0.5 * f) for f in (1, 2, 3)}
    lines = live_lines(
        tallies, range(1, 30), {1: "filled", 3: "exhausted"}, {2: "words"}, dict.fromkeys(range(30), 2.0)
    )
    assert [line.feature_id for line in lines[:5]] == [2, 3, 1, 4, 5]
    assert len(lines) == MOST_ROWS
    assert [line.state for line in lines[:4]] == ["writing", "exhausted", "filled", "waiting"]
    assert (lines[0].best, lines[0].share) == ("0.500 × δ", 0.5)
    assert (lines[3].best, lines[3].share) == ("–", None)


def test_the_live_list_escapes_what_a_model_said():
    lines = live_lines({1: Tally(1)}, [1], {}, {1: "<img src=x>"}, {1: 1.0})
    assert "<img" not in lines_html(lines)
    assert "&lt;img" in lines_html(lines)


def test_dollars_since_the_start_are_summed_and_projected():
    at = datetime(2026, 1, 2, tzinfo=UTC)
    calls = [{"at": "2026-01-01T00:00:00.000+00:00", "usd": 5.0}]
    assert spent_words(calls, at.timestamp(), 0.5) == ""
    calls += [
        {"at": "2026-01-02T00:00:01.000+00:00", "usd": 0.25},
        {"at": "2026-01-02T00:00:02.000+00:00", "usd": 0.25},
    ]
    assert spent_words(calls, at.timestamp(), 0.5) == "$0.50 spent · about $1.00 in all at this pace"
    assert spent_words(calls, at.timestamp(), 0.0) == "$0.50 spent"
    calls.append({"at": "2026-01-02T00:00:03.000+00:00", "usd": None})
    assert "nobody has priced" in spent_words(calls, at.timestamp(), 0.0)
