"""Rows to documents: every shape, labels, duplicates, dropped rows."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facviz.corpus import reader as reader_module
from facviz.corpus.transcript import parse_transcript
from facviz.records import Message

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello.\nHow are you?"}]
MESSAGES = (Message("user", "Hi"), Message("assistant", "Hello.\nHow are you?"))


def messages_of(documents):
    return [d.messages for d in documents]


@pytest.mark.parametrize("role", ["user", "assistant", "text"])
def test_a_text_is_one_message_of_the_configured_role(read, role):
    documents, _ = read([{"text": "  keep my spaces \t"}], text_role=role)
    assert messages_of(documents) == [(Message(role, "  keep my spaces \t"),)]


def test_defect_27_text_mentioning_human_is_not_reparsed(read):
    text = "before the marker\n\nHuman: one\n\nAssistant: two\n  three"
    documents, reader = read([{"text": text}])
    assert messages_of(documents) == [(Message("user", text),)]
    assert reader.mapping.shape == "text"


def test_a_reply_quoting_a_dialogue_below_its_prompt_stays_one_reply(read):
    reply = "A dialogue:\nHuman: one\nAssistant: two"
    documents, _ = read([{"prompt": "Write a dialogue.", "chosen": reply, "rejected": "No."}])
    assert documents[0].messages == (Message("user", "Write a dialogue."), Message("assistant", reply))


def test_a_list_of_messages_is_taken_turn_by_turn(read):
    documents, reader = read([{"id": 1, "messages": TURNS, "text": "ignored"}])
    assert messages_of(documents) == [MESSAGES]
    assert reader.mapping.describe() == "shape messages: messages from `messages`, no label"
    assert reader.report.roles == {"user": 1, "assistant": 1}


def test_speaker_names_of_other_tools_become_user_and_assistant(read):
    turns = [{"from": "human", "value": "Hi"}, {"from": "GPT", "value": "Hello.\nHow are you?"}]
    bots = [{"role": "Human", "content": "Yo"}, {"role": "bot", "content": ""}, {"role": "system", "content": "s"}]
    documents, _ = read([{"conversations": turns}, {"conversations": bots}])
    assert messages_of(documents) == [
        MESSAGES,
        (Message("user", "Yo"), Message("assistant", ""), Message("system", "s")),
    ]


def test_a_json_string_of_messages_in_a_csv_is_taken_turn_by_turn(read):
    cell = json.dumps(TURNS).replace('"', '""')
    documents, reader = read(f'chat,label\n"{cell}",1\nplain,0\n', "data.csv")
    assert messages_of(documents) == [MESSAGES]
    assert reader.report.dropped_by_reason == {"field `chat` is not a list of messages": 1}


@pytest.mark.parametrize("prompt", ["Hi", TURNS[:1]], ids=["text", "messages"])
@pytest.mark.parametrize("completion", ["Hello.\nHow are you?", TURNS[1:]], ids=["text", "messages"])
@pytest.mark.parametrize("field", ["completion", "response"])
def test_prompt_and_completion_are_two_messages(read, prompt, completion, field):
    documents, reader = read([{"prompt": prompt, field: completion}])
    assert messages_of(documents) == [MESSAGES]
    assert (
        reader.mapping.describe()
        == f"shape prompt_completion: prompt from `prompt`, completion from `{field}`, no label"
    )


def test_the_input_beside_an_instruction_belongs_to_the_prompt(read):
    rows = [
        {"instruction": "Translate.", "input": "chat", "output": "cat"},
        {"instruction": "Sing.", "input": "", "output": "La"},
    ]
    documents, reader = read(rows)
    assert [d.messages[0].content for d in documents] == ["Translate.\n\nchat", "Sing."]
    assert "prompt from `instruction` + `input`" in reader.mapping.describe()


def test_chosen_and_rejected_transcripts_become_two_labelled_documents(read):
    start = "\n\nHuman: Hi\n\nAssistant: "
    documents, reader = read([{"chosen": start + "Yes.\n\nReally.", "rejected": start + "No."}])
    assert messages_of(documents) == [
        (Message("user", "Hi"), Message("assistant", "Yes.\n\nReally.")),
        (Message("user", "Hi"), Message("assistant", "No.")),
    ]
    assert [d.label for d in documents] == ["chosen", "rejected"]
    assert reader.report.labels == {"chosen": 1, "rejected": 1}


@pytest.mark.parametrize(
    "chosen",
    ["Yes.", [{"role": "assistant", "content": "Yes."}], [TURNS[0], {"role": "assistant", "content": "Yes."}]],
    ids=["text", "reply only", "whole conversation"],
)
def test_a_prompt_precedes_the_chosen_and_the_rejected_reply_once(read, chosen):
    documents, reader = read([{"prompt": "Hi", "chosen": chosen, "rejected": "No."}])
    assert messages_of(documents) == [
        (Message("user", "Hi"), Message("assistant", "Yes.")),
        (Message("user", "Hi"), Message("assistant", "No.")),
    ]
    assert reader.mapping.describe().startswith("shape chosen_rejected: prompt from `prompt`, two documents a row")


def test_a_pair_with_one_broken_half_is_dropped_whole(read):
    documents, reader = read([{"chosen": "a", "rejected": "b"}, {"chosen": "c", "rejected": None}])
    assert [d.text for d in documents] == ["a", "b"]
    assert reader.report.dropped_by_reason == {"missing field `rejected`": 1}


def test_markers_count_only_at_the_start_of_a_line():
    text = "Human: the Human: race\nAssistant: an\n indented\n  Human: stays\n"
    assert parse_transcript(text) == (
        Message("user", "the Human: race"),
        Message("assistant", "an\n indented\n  Human: stays\n"),
    )


def test_text_before_the_first_marker_and_text_without_any_is_kept(read):
    rows = [{"text": "Rules.\nMore.\n\nHuman: Hi\n\nAssistant:"}, {"text": "no marker\nat all"}]
    documents, _ = read(rows, shape="transcript")
    assert messages_of(documents) == [
        (Message("user", "Rules.\nMore."), Message("user", "Hi"), Message("assistant", "")),
        (Message("user", "no marker\nat all"),),
    ]


has_no_marker = st.text(st.sampled_from("ab :\n\t.Hé🙂"), max_size=20)
conversations = st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), has_no_marker), min_size=1)
MARKERS = {"user": "Human", "assistant": "Assistant"}


@given(conversations, st.just("") | has_no_marker.filter(str.strip))
def test_a_transcript_built_from_messages_is_read_back_as_the_same_messages(messages, preamble):
    text = preamble + "".join(f"\n\n{MARKERS[m.role]}: {m.content}" for m in messages)
    expected = [Message("user", preamble)] * bool(preamble) + messages
    assert list(parse_transcript(text)) == expected


@given(conversations)
def test_a_transcript_with_single_line_breaks_is_read_back_too(messages):
    messages = [Message(m.role, m.content.rstrip("\n")) for m in messages]
    text = "\n".join(f"{MARKERS[m.role]}: {m.content}" for m in messages)
    assert list(parse_transcript(text)) == messages


def test_labels_become_strings_and_absent_ones_none(read):
    labels = ["toxic", 1, 0, True, 2.0, 0.5, None, "", float("nan")]
    rows = [{"text": f"t{i}", "score": label} for i, label in enumerate(labels)] + [{"text": "without"}]
    documents, reader = read(rows, label_field="score")
    assert [d.label for d in documents] == ["toxic", "1", "0", "1", "2", "0.5", None, None, None, None]
    assert reader.report.labels == {"toxic": 1, "1": 2, "0": 1, "2": 1, "0.5": 1}


def test_the_empty_label_field_takes_no_label(read):
    documents, reader = read([{"text": "a", "label": "1"}], label_field="")
    assert documents[0].label is None
    assert reader.mapping.describe() == "shape text: text from `text`, no label"


def test_scores_and_lists_are_not_guessed_to_be_labels(read):
    _, reader = read([{"text": "a", "toxicity": 0.31, "labels": ["x", "y"], "class": 2}])
    assert reader.mapping.label_field == "class"


def test_an_exact_duplicate_is_counted_and_the_first_label_kept(read):
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 0}, {"text": "a", "label": 1}, {"text": "a", "label": 0}]
    documents, reader = read(rows)
    assert [(d.text, d.label) for d in documents] == [("a", "1"), ("b", "0")]
    report = reader.report
    assert (report.n_rows, report.n_documents, report.n_duplicates, report.n_label_conflicts) == (4, 2, 2, 1)
    assert report.labels == {"1": 1, "0": 1}


def test_every_dropped_row_is_kept_with_its_number_its_reason_and_a_bounded_excerpt(read):
    lines = [
        '{"text": "good"}',
        '{"text": "cut off',
        "[1, 2]",
        '{"other": "x"}',
        '{"text": " \\n\\t"}',
        '{"text": 7}',
        '{"text": "nul \\u0000 inside"}',
        json.dumps({"text": "y" * 1_000_001}),
        '{"text": null}',
        "[" * 100_000,
        '{"text": "also good"}',
    ]
    documents, reader = read("\n".join(lines))
    assert [d.text for d in documents] == ["good", "also good"]
    assert [(row.row, row.reason) for row in reader.report.dropped] == [
        (2, "invalid JSON"),
        (3, "not an object"),
        (4, "missing field `text`"),
        (5, "empty text"),
        (6, "field `text` is not text"),
        (7, "text holds a NUL character"),
        (8, "too long"),
        (9, "missing field `text`"),
        (10, "invalid JSON"),
    ]
    assert reader.report.dropped_by_reason["missing field `text`"] == 2
    assert reader.report.n_dropped + reader.report.n_documents == reader.report.n_rows == 11
    assert all(row.excerpt and len(row.excerpt) <= 200 and "\n" not in row.excerpt for row in reader.report.dropped)


def test_messages_that_cannot_be_turns_are_dropped_by_reason(read):
    rows = [
        {"messages": TURNS},
        {"messages": [*TURNS, {"role": "tool", "content": "42"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": []},
        {"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": ""}]},
    ]
    _, reader = read(rows)
    assert reader.report.dropped_by_reason == {
        "unknown role `tool`": 1,
        "a message without text content": 1,
        "field `messages` is not a list of messages": 1,
        "empty text": 1,
    }


def test_dropped_rows_and_reasons_are_bounded_and_still_counted(read, monkeypatch):
    monkeypatch.setattr(reader_module, "MAX_STORED_DROPS", 5)
    rows = [{"messages": [{"role": f"speaker {i}", "content": "x"}]} for i in range(300)]
    _, reader = read([{"messages": TURNS}, *rows])
    assert len(reader.report.dropped) == 5
    assert len(reader.report.dropped_by_reason) == 101
    assert reader.report.dropped_by_reason[reader_module.OTHER_REASONS] == 200
    assert reader.report.n_dropped == 300


def test_a_lone_surrogate_is_replaced_so_that_the_text_can_be_encoded(read):
    content = '{"text": "a \\ud800 b \\ud83d\\ude42", "label": "\\udc00"}\n{"text": 1, "\\ud801": "\\ud802"}\n'
    documents, reader = read(content)
    assert documents[0].text == "a \ufffd b 🙂"
    assert documents[0].label == "\ufffd"
    assert reader.report.dropped[0].excerpt.encode()


def test_crlf_becomes_lf_and_nothing_else_is_changed(read):
    documents, _ = read([{"text": " a\r\nb\rc \u2028 d\n\n"}])
    assert documents[0].text == " a\nb\rc \u2028 d\n\n"


def test_limit_stops_after_that_many_documents(read):
    documents, reader = read([{"text": f"t{i // 2}"} for i in range(20)], limit=3)
    assert [d.text for d in documents] == ["t0", "t1", "t2"]
    assert reader.report.n_rows == 5
    assert reader.report.sha256


def test_a_second_iteration_gives_the_same_documents_and_a_fresh_report(read):
    documents, reader = read([{"text": "a"}, {"text": "a"}, {"text": "b"}])
    first = reader.report
    assert list(reader) == documents
    assert reader.report == first
    assert reader.report is not first


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"messages": TURNS, "chosen": "a", "rejected": "b", "prompt": "p"}, "messages"),
        ({"chosen": "a", "rejected": "b", "prompt": "p", "response": "r"}, "chosen_rejected"),
        ({"question": "q", "Answer": "a", "text": "t"}, "prompt_completion"),
        ({"prompt": "p", "response": None, "text": "t"}, "text"),
        ({"instruction": "i", "instances": [{"input": "", "output": "o"}]}, "text"),
    ],
)
def test_shapes_are_guessed_in_a_fixed_order(open_reader, row, shape):
    assert open_reader([row]).mapping.shape == shape


def test_without_a_known_name_the_longest_text_field_is_taken(open_reader):
    rows = [{"id": "abc", "label": "a very long label indeed", "Passage": "quite some words", "n": 3}]
    mapping = open_reader(rows).mapping
    assert mapping.text_fields == ("Passage",)
    assert mapping.describe() == "shape text: text from `Passage`, label from `label`"


def test_a_named_field_wins_over_the_guess(read):
    documents, reader = read(
        [{"text": "no", "messages": TURNS, "title": "yes", "t": "L"}], text_field="title", label_field="t"
    )
    assert (documents[0].text, documents[0].label) == ("yes", "L")
    assert reader.mapping.describe() == "shape text: text from `title`, label from `t`"
