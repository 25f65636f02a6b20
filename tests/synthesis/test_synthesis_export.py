"""The exported lines: the verified text, its origin, and nothing that was not accepted."""

from __future__ import annotations

import json

import pytest

from facviz.synthesis.export import EXPORTED, sample_lines

SAMPLE = {
    "text": 'a "quoted" naïve text\nof two lines',
    "messages": [{"role": "user", "content": 'a "quoted" naïve text\nof two lines'}],
    "feature_id": 12,
    "act": 2.0,
    "act_threshold": 0.5,
    "candidate_id": "ab12",
    "synth_id": "cd34",
    "strategy": "paper",
    "generator": "local/x",
    "rng_seed": 7,
    "accepted": True,
    "gates": "{}",
    "review": "unreviewed",
}


def test_a_line_holds_exactly_the_text_and_everything_it_is_traced_by():
    [line] = sample_lines([SAMPLE])
    assert "\n" not in line
    assert json.loads(line) == {name: SAMPLE[name] for name in EXPORTED}
    assert "naïve" in line


def test_the_keys_promised_by_the_command_line_are_there():
    assert {"text", "messages", "feature_id", "act", "act_threshold", "candidate_id"} <= set(EXPORTED)


def test_nothing_that_was_not_accepted_is_exported():
    with pytest.raises(ValueError, match="ab12 was not accepted"):
        sample_lines([SAMPLE, SAMPLE | {"accepted": False}])


def test_a_rejected_sample_is_left_out_and_approved_ones_can_be_asked_for_alone():
    samples = [SAMPLE | {"candidate_id": review, "review": review} for review in ("unreviewed", "approved", "rejected")]
    assert [json.loads(line)["review"] for line in sample_lines(samples)] == ["unreviewed", "approved"]
    assert [json.loads(line)["candidate_id"] for line in sample_lines(samples, only_approved=True)] == ["approved"]


def test_no_samples_are_no_lines():
    assert sample_lines([]) == []
