"""Every format holds exactly the verified text and where it comes from; nothing is invented to fill a field."""

from __future__ import annotations

import csv
import io

import pytest

from facviz.synthesis.export import (
    BUILDERS,
    EXPORTED,
    NO_ANSWER,
    NO_PAIR,
    PROVENANCE,
    SEVERAL_TURNS,
    flat_rows,
    format_rows,
    kept_samples,
    tsv_text,
)

TEXT = 'a "quoted" naïve\ttext\nof two lines'
SAMPLE = {
    "text": TEXT,
    "messages": [{"role": "user", "content": TEXT}],
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
    "theme": "",
    "weak_messages": None,
}


def turns(*contents, roles=("user", "assistant")):
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


ANSWERED = SAMPLE | {"messages": turns("why?", "because"), "weak_messages": turns("why?", "dunno")}


def test_a_row_holds_exactly_the_text_and_everything_it_is_traced_by():
    [row], left_out = format_rows("messages", [SAMPLE])
    assert left_out == {}
    assert {name: row[name] for name in EXPORTED} == {name: SAMPLE[name] for name in EXPORTED}
    assert row["label"] == "1"
    assert set(row["provenance"]) == set(PROVENANCE)
    assert (row["provenance"]["generator"], row["provenance"]["reviewer"]) == ("local/x", None)


def test_the_keys_promised_by_the_command_line_are_there():
    assert {"text", "messages", "feature_id", "act", "act_threshold", "candidate_id"} <= set(EXPORTED)


def test_the_theme_of_a_feature_is_the_label():
    [row], _ = format_rows("messages", [SAMPLE | {"theme": "trips"}])
    assert row["label"] == "trips"


def test_nothing_that_was_not_accepted_is_exported():
    with pytest.raises(ValueError, match="ab12 was not accepted"):
        kept_samples([SAMPLE, SAMPLE | {"accepted": False}])


def test_a_rejected_sample_is_left_out_and_approved_ones_can_be_asked_for_alone():
    samples = [SAMPLE | {"review": review} for review in ("unreviewed", "approved", "rejected")]
    assert [s["review"] for s in kept_samples(samples)] == ["unreviewed", "approved"]
    assert [s["review"] for s in kept_samples(samples, only_approved=True)] == ["approved"]


def test_an_answer_makes_a_prompt_and_a_completion():
    [row], _ = format_rows("prompt-completion", [ANSWERED])
    assert (row["prompt"], row["completion"]) == ("why?", "because")
    [row], _ = format_rows("alpaca", [ANSWERED])
    assert (row["instruction"], row["input"], row["output"], row["system"]) == ("why?", "", "because", "")
    [row], _ = format_rows("sharegpt", [ANSWERED])
    assert row["conversations"] == [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "because"}]


def test_a_system_text_is_kept_apart_from_the_question():
    messages = [{"role": "system", "content": "be brief"}, *ANSWERED["messages"]]
    [row], _ = format_rows("alpaca", [ANSWERED | {"messages": messages}])
    assert (row["system"], row["instruction"]) == ("be brief", "why?")


@pytest.mark.parametrize("name", ["prompt-completion", "alpaca"])
def test_what_has_no_single_answer_is_left_out_with_the_reason(name):
    long = SAMPLE | {"messages": turns("a", "b", "c", "d")}
    rows, left_out = format_rows(name, [SAMPLE, ANSWERED, long, SAMPLE])
    assert len(rows) == 1
    assert left_out == {NO_ANSWER: 2, SEVERAL_TURNS: 1}


def test_a_preference_needs_two_different_answers_to_one_prompt():
    other_prompt = ANSWERED | {"weak_messages": turns("how?", "dunno")}
    same_answer = ANSWERED | {"weak_messages": turns("why?", "because")}
    rows, left_out = format_rows("preference", [ANSWERED, other_prompt, same_answer, SAMPLE])
    assert [(r["prompt"], r["chosen"], r["rejected"]) for r in rows] == [
        (turns("why?"), [{"role": "assistant", "content": "because"}], [{"role": "assistant", "content": "dunno"}])
    ]
    assert left_out == {NO_PAIR: 3}


def test_a_tsv_line_survives_tabs_quotes_and_line_ends():
    header, row = list(csv.reader(io.StringIO(tsv_text([SAMPLE])), delimiter="\t"))
    assert header[:2] == ["text", "label"]
    assert row[:2] == [TEXT, "1"]
    assert header[2:] == list(PROVENANCE)
    told = dict(zip(header, row))
    assert (told["feature_id"], told["generator"], told["rng_seed"]) == ("12", "local/x", "7")


def test_flat_rows_have_the_provenance_as_columns():
    [row] = flat_rows([SAMPLE])
    assert set(row) == {"text", "messages", "label", *PROVENANCE}


@pytest.mark.parametrize("name", BUILDERS)
def test_no_samples_are_no_rows(name):
    assert format_rows(name, []) == ([], {})
