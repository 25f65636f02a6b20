"""Who speaks: ShareGPT conversations, Alpaca rows, and tables in which every row names its role."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facviz.errors import InputError
from facviz.records import Message

TALK = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello."))
content = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20)
filled = content.filter(str.strip)


def messages_of(documents):
    return [d.messages for d in documents]


# ShareGPT --------------------------------------------------------------------------------------------------------

NAMES = {"system": ["system", "System"], "user": ["human", "user", "prompter"], "assistant": ["gpt", "assistant", "AI"]}
spoken = st.sampled_from([(role, name) for role, names in NAMES.items() for name in names])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.tuples(spoken, content), min_size=1, max_size=5),
    st.sampled_from(["conversations", "conversation", "messages", "Conversations"]),
    st.sampled_from(["from", "role"]),
    st.sampled_from(["value", "content", "text"]),
)
def test_a_conversation_is_read_turn_by_turn_under_every_spelling(read, turns, field, role_key, content_key):
    turns = [(("user", "human"), "first"), *turns]
    row = {"id": "x", field: [{role_key: name, content_key: text} for (_, name), text in turns]}
    documents, reader = read([row])
    assert messages_of(documents) == [tuple(Message(role, text) for (role, _), text in turns)]
    assert reader.mapping.describe() == f"shape messages: messages from `{field}`, no label"


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"from": "tool", "value": "42"}, "unknown role `tool`"),
        ({"from": "function_call", "value": "f()"}, "unknown role `function_call`"),
        ({"from": 3, "value": "x"}, "unknown role `3`"),
        ({"from": None, "value": "x"}, "a message without a speaker"),
        ({"role": "user", "from": "gpt", "value": "x"}, "a message with two speakers"),
        ({"role": "tool", "from": "gpt", "value": "x"}, "unknown role `tool`"),
        ({"from": "gpt", "value": ["x"]}, "a message without text content"),
        ({"from": "gpt"}, "a message without text content"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_conversation_with_a_turn_nobody_can_be_given_is_dropped_whole(read, turn, reason):
    good = [{"from": "human", "value": "Hi"}]
    documents, reader = read([{"conversations": good}, {"conversations": [*good, turn]}])
    assert messages_of(documents) == [(Message("user", "Hi"),)]
    assert [(row.row, row.reason) for row in reader.report.dropped] == [(2, reason)]


def test_keys_that_a_table_filled_up_with_nothing_are_passed_over(read):
    turn = {"role": None, "from": "human", "content": None, "value": "Hi", "weight": 0}
    documents, _ = read([{"conversations": [turn]}])
    assert messages_of(documents) == [(Message("user", "Hi"),)]


def test_a_sender_beside_the_role_is_no_second_speaker(read):
    documents, _ = read([{"messages": [{"role": "user", "from": "bob@example.org", "content": "Hi"}]}])
    assert messages_of(documents) == [(Message("user", "Hi"),)]


# Alpaca ----------------------------------------------------------------------------------------------------------


def test_an_alpaca_row_is_a_question_with_its_input_and_an_answer(read):
    rows = [
        {"instruction": "Translate.", "input": "chat", "output": "cat"},
        {"instruction": "Sing.", "input": "", "output": "La", "system": "You are a bird."},
        {"instruction": "Dance.", "output": "Hop"},
    ]
    documents, reader = read(rows)
    assert messages_of(documents) == [
        (Message("user", "Translate.\n\nchat"), Message("assistant", "cat")),
        (Message("system", "You are a bird."), Message("user", "Sing."), Message("assistant", "La")),
        (Message("user", "Dance."), Message("assistant", "Hop")),
    ]
    expected = "system from `system`, prompt from `instruction` + `input`, completion from `output`, no label"
    assert reader.mapping.describe() == f"shape alpaca: {expected}"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(filled, content, content, content), min_size=1, max_size=4))
def test_every_part_of_an_alpaca_row_that_is_given_stands_in_its_turn(read, parts):
    rows = [dict(zip(("instruction", "input", "output", "system"), part)) for part in parts]
    documents, reader = read(rows, limit=None)
    expected = []
    for instruction, extra, output, system in parts:
        asked = instruction + ("\n\n" + extra if extra.strip() else "")
        turns = [("system", system), ("user", asked), ("assistant", output)]
        expected.append(tuple(Message(role, text) for role, text in turns if text.strip()))
    assert messages_of(documents) == list(dict.fromkeys(expected))
    assert reader.report.n_dropped == 0


@pytest.mark.parametrize("nothing", ["", "  \n", None], ids=["empty", "blank", "null"])
def test_without_an_answer_the_question_alone_is_kept(read, nothing):
    documents, reader = read([{"instruction": "a", "output": nothing}, {"instruction": "b", "output": "B"}])
    assert messages_of(documents) == [(Message("user", "a"),), (Message("user", "b"), Message("assistant", "B"))]
    assert reader.report.roles == {"user": 2, "assistant": 1}


def test_an_alpaca_row_without_a_question_or_an_output_field_is_dropped_with_the_reason(read):
    rows = [
        {"instruction": "a", "output": "A"},
        {"instruction": " ", "input": None, "output": "A"},
        {"instruction": "b"},
        {"output": "B"},
        {"instruction": "c", "output": "C", "input": ["x"]},
    ]
    documents, reader = read(rows)
    assert len(documents) == 1
    assert reader.report.dropped_by_reason == {
        "no instruction and no input": 1,
        "missing field `output`": 1,
        "missing field `instruction`": 1,
        "field `input` is not text": 1,
    }


def test_an_input_without_an_instruction_is_the_question(read):
    documents, _ = read([{"instruction": "", "input": "2 + 2 =", "output": "4"}], shape="alpaca")
    assert messages_of(documents) == [(Message("user", "2 + 2 ="), Message("assistant", "4"))]


def test_the_alpaca_shape_can_be_overridden(read):
    documents, reader = read([{"instruction": "a", "output": "A"}], shape="text", text_field="output")
    assert messages_of(documents) == [(Message("user", "A"),)]
    assert reader.mapping.shape == "text"


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"Instruction": "i", "Output": "o"}, "alpaca"),
        ({"instruction": "i", "output": ""}, "alpaca"),
        ({"instruction": "i", "response": "r"}, "prompt_completion"),
        ({"instruction": "i", "output": [{"role": "assistant", "content": "o"}]}, "prompt_completion"),
        ({"instruction": "", "output": "o"}, "text"),
        ({"instruction": "i", "output": "o", "conversations": [{"from": "human", "value": "v"}]}, "messages"),
        ({"instruction": "i", "output": 3}, "text"),
    ],
)
def test_an_instruction_and_an_output_in_plain_text_are_alpaca(open_reader, row, shape):
    assert open_reader([row]).mapping.shape == shape


def test_one_odd_row_does_not_change_the_guess(read):
    rows = [{"instruction": "i", "output": 3}, {"instruction": "j", "output": ""}, {"instruction": "k", "output": "K"}]
    documents, reader = read(rows)
    assert reader.mapping.shape == "alpaca"
    assert messages_of(documents) == [(Message("user", "j"),), (Message("user", "k"), Message("assistant", "K"))]
    assert reader.report.dropped_by_reason == {"field `output` is not text": 1}


# A role in every row ---------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.tuples(spoken, filled), min_size=1, max_size=6),
    st.sampled_from(["role", "from", "Role"]),
    st.sampled_from(["content", "text", "value"]),
)
def test_every_row_is_one_message_of_the_role_it_names(read, rows, role_field, text_field):
    documents, reader = read([{"n": i, role_field: name, text_field: text} for i, ((_, name), text) in enumerate(rows)])
    assert messages_of(documents) == list(dict.fromkeys((Message(role, text),) for (role, _), text in rows))
    assert reader.mapping.describe() == f"shape text: text from `{text_field}`, role from `{role_field}`, no label"


def test_a_table_of_texts_can_name_its_speakers_in_any_column(read):
    table = "speaker,text,label\nuser,Hi,1\nassistant,Hello,0\nnarrator,Later,0\n,Nobody,0\n"
    documents, reader = read(table, "data.csv", role_field="speaker")
    assert [(d.messages, d.label) for d in documents] == [
        ((Message("user", "Hi"),), "1"),
        ((Message("assistant", "Hello"),), "0"),
    ]
    assert reader.report.dropped_by_reason == {"unknown role `narrator`": 1, "unknown role ``": 1}


def test_a_row_without_its_role_is_dropped_and_not_given_to_the_user(read):
    rows = [{"role": "user", "content": "a"}, {"role": None, "content": "b"}, {"content": "c"}]
    documents, reader = read(rows, text_role="assistant")
    assert messages_of(documents) == [(Message("user", "a"),)]
    assert reader.report.dropped_by_reason == {"missing field `role`": 2}


def test_a_column_of_other_roles_is_no_speaker(read):
    rows = [{"role": "admin", "text": "a"}, {"role": "user", "text": "b"}, {"role": "owner", "text": "c"}]
    documents, reader = read(rows)
    assert {d.messages[0].role for d in documents} == {"user"}
    assert reader.mapping.describe() == "shape text: text from `text`, no label"


def test_the_empty_role_field_takes_none(read):
    documents, reader = read([{"role": "assistant", "text": "a"}], role_field="")
    assert messages_of(documents) == [(Message("user", "a"),)]
    assert "role" not in reader.mapping.describe()


def test_a_named_role_field_makes_texts_of_rows_that_look_like_another_shape(read):
    row = {"who": "assistant", "prompt": "p", "response": "r"}
    documents, _ = read([row], role_field="who", text_field="response")
    assert messages_of(documents) == [(Message("assistant", "r"),)]


@pytest.mark.parametrize(
    ("file_name", "settings", "expected"),
    [
        ("data.txt", {"role_field": "role"}, "remove `text_field`, `label_field` and `role_field`"),
        ("data.jsonl", {"role_field": "role", "shape": "messages"}, "`role_field` is for rows of the shape text"),
        ("data.jsonl", {"shape": "alpaca"}, "no field for an instruction and an output among `role`, `text`"),
        ("data.jsonl", {"shape": "alpaca", "text_field": "text"}, "remove `text_field`"),
        ("data.jsonl", {"role_field": "rolle"}, "missing field `rolle`: 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_sentence(open_reader, file_name, settings, expected):
    with pytest.raises(InputError) as caught:
        list(open_reader(json.dumps({"role": "user", "text": "a"}) + "\n", file_name, **settings))
    message = str(caught.value)
    assert expected in message
    assert message.endswith(".")
    assert "\n" not in message
