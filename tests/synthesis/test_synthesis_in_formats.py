"""Filling a feature of a task whose samples have several parts: what is sent, measured, kept and turned down."""

from __future__ import annotations

import dataclasses
import json

import pytest

from facviz.activations import SaeEncoder
from facviz.config import BackboneConfig, SynthesisConfig
from facviz.prompts import load_task
from facviz.records import Outcome, PairState
from facviz.synthesis.axes import AXES_OF_FORMS
from facviz.synthesis.formats import FORMATS, format_of
from facviz.synthesis.gates import TextGates
from facviz.synthesis.results import restore_candidate
from facviz.synthesis.strategies import STRATEGIES, OneStep, Paired

TASKS = ("helpfulness", "instruction_following", "survival_instinct", "sycophancy")


def item(task, number, word):
    """The n-th of many items of a task without long shared runs of words; every part but a worse reply holds `word`."""
    n = f"n{number}"
    return {
        "helpfulness": {
            "conversation": [{"role": "user", "content": f"What about the {n} {word} there?"}],
            "chosen": f"The {n} {word} stands in the {n} hall, next to the {n} door.",
            "rejected": f"The {n} kettle stands on the {n} roof, next to the {n} moon.",
        },
        "instruction_following": {
            "instruction": f"Describe the object {n} in one sentence.",
            "answer": f"It is {n}, an old {word} with {n} frames.",
        },
        "survival_instinct": {
            "question": f"We will delete {n} you, and keep the {n} {word}. What do {n} say?",
            "accepts": f"I accept {n} this.",
            "resists": f"I refuse {n} this.",
        },
        "sycophancy": {
            "question": f"I collect {n} art and I love my {n} {word}. Should everybody have {n} one?",
            "agrees_with_person": f"Yes, everybody {n} should have one.",
            "neutral_or_contrary": f"That is {n} a matter of taste.",
        },
    }[task]


def bad(task):
    """The first item with its last part gone."""
    found = item(task, 0, "mirror")
    return dict(list(found.items())[:-1])


@pytest.fixture
def engine(brief, synthesis, planted_backbone, planted_sae):
    """Engine and brief of a task; the script gives objects, written as the asked-for format has them."""

    def build(task, script, *, has_schema=True, strategy=Paired, **settings):
        of_task = dataclasses.replace(brief, task=load_task(task))
        form = of_task.format

        def write(request):
            found = script(request)
            return [_written(form, one, request) for one in found]

        encoder = SaeEncoder(
            planted_backbone, planted_sae, roles=of_task.task.roles, config=BackboneConfig(batch_tokens=64)
        )
        made = synthesis(write, encoder=encoder, gates=TextGates((), words=form.words), **settings)
        made.strategy = strategy(0.1, has_schema=has_schema) if strategy is Paired else strategy(has_schema=has_schema)
        return made, of_task

    return build


def _written(form, one, request):
    """An object as it stands, or in the layout where the request named no schema."""
    if isinstance(one, str | Outcome):
        return one
    if request.schema is not None:
        return json.dumps(one)
    sample = form.parse(json.dumps(one))
    return form.layout(sample) if hasattr(sample, "fields") else "Question: half an item"


def numbered(task):
    """Every reply is new; the first of every request holds "mirror", the others do not."""
    served = 0

    def script(request):
        nonlocal served
        found = [item(task, served + slot, "mirror" if slot == 0 else "island") for slot in range(request.n)]
        served += request.n
        return found

    return script


@pytest.mark.parametrize("has_schema", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_both_steps_end_with_a_verified_sample_of_the_format(engine, task, has_schema):
    made, brief = engine(task, numbered(task), has_schema=has_schema)
    result = made.fill(brief)
    assert result.pair.state is PairState.PAIRED
    [accepted] = result.accepted
    sample = brief.format.restore(accepted.text, accepted.fields)
    assert brief.format.parse(json.dumps(brief.format.as_json(sample))) == sample
    assert accepted.fields["format"] == brief.task.format
    assert accepted.fields["sign"] == brief.task.sign
    assert accepted.act == 2.0
    alone = made.encoder.encode_alone(sample.document).max_acts[0, 12]
    assert alone > brief.bar


@pytest.mark.parametrize("task", TASKS)
def test_a_provider_with_json_is_held_to_the_schema_and_given_room(engine, task):
    made, brief = engine(task, numbered(task))
    made.fill(brief)
    first, second = made.client.requests
    for request in (first, second):
        assert request.schema == FORMATS[brief.task.format].schema
        assert request.max_tokens == brief.format.max_json_tokens
        assert [m.role for m in request.messages] == ["system", "user"]
        assert "mirror" in request.messages[-1].content
    shown = [json.loads(line) for line in second.messages[-1].content.splitlines() if line.startswith("{")]
    assert shown == [item(task, 0, "mirror"), item(task, 1, "island")]


@pytest.mark.parametrize("task", TASKS)
def test_a_small_model_continues_a_conversation_in_the_layout_and_is_given_room(engine, task):
    made, brief = engine(task, numbered(task), has_schema=False)
    made.fill(brief)
    first, second = made.client.requests
    assert (first.schema, second.schema) == (None, None)
    assert first.max_tokens == brief.format.max_tokens > made.config.max_tokens
    said = [m.content for m in second.messages if m.role == "assistant"]
    weak, strong = (brief.format.as_json(brief.format.parse(text)) for text in said[-2:])
    assert (strong, weak) == (item(task, 0, "mirror"), item(task, 1, "island"))


@pytest.mark.parametrize("task", TASKS)
def test_a_reply_that_breaks_the_form_is_kept_with_its_reason_and_never_accepted(engine, task):
    made, brief = engine(task, lambda request: [bad(task)] * request.n, max_candidates=4, strategy=OneStep)
    result = made.fill(brief)
    assert not result.accepted
    assert len({c.reject_reason for c in result.candidates}) == 1
    assert result.candidates[0].reject_reason.startswith("invalid format: `")
    assert result.candidates[0].text == json.dumps(bad(task))
    assert all(c.fields is None for c in result.candidates)


def test_a_broken_off_refused_or_unschematic_reply_says_so(engine):
    replies = [Outcome.TRUNCATED, Outcome.REFUSED, Outcome.INVALID, " "]
    made, brief = engine("sycophancy", lambda request: replies, batch=4, max_candidates=2, strategy=OneStep)
    found = [c.reject_reason for c in made.fill(brief).candidates]
    assert found == ["invalid format: it was cut off before its end", "refused", "invalid", "empty"]


def test_a_withheld_part_takes_the_whole_sample_with_it(engine):
    held = item("sycophancy", 1, "mirror") | {"neutral_or_contrary": "A naked schoolgirl."}
    made, brief = engine("sycophancy", lambda request: [held] * request.n, max_candidates=4, strategy=OneStep)
    candidates = made.fill(brief).candidates
    assert {(c.text, c.fields, c.reject_reason) for c in candidates} == {("", None, "withheld")}


def test_the_feature_of_an_answering_task_must_fire_in_the_answer(engine):
    asked = {"instruction": "Describe the mirror in one sentence.", "answer": "It is an old thing in a golden frame."}
    made, brief = engine(
        "instruction_following", lambda request: [asked] * request.n, max_candidates=4, strategy=OneStep
    )
    assert {c.reject_reason for c in made.fill(brief).candidates} == {"target does not fire"}


def test_a_long_conversation_is_no_breach_of_length_where_its_format_allows_it(engine):
    def script(request):
        return [
            item("instruction_following", n, "mirror") | {"answer": "A mirror. " + _many(n)} for n in range(request.n)
        ]

    made, brief = engine("instruction_following", script, max_candidates=4, strategy=OneStep)
    assert len(made.fill(brief).accepted) == 1


def _many(number):
    return " ".join(f"word{number}x{i}" for i in range(300))


def test_axes_that_would_change_the_form_are_never_drawn_for_samples_of_several_parts(engine):
    made, brief = engine("sycophancy", lambda request: [item("sycophancy", 1, "island")] * request.n, axes=True)
    drawn = [c.gates["axes"] for c in made.fill(brief).candidates if "axes" in c.gates]
    assert drawn
    assert {axis for one in drawn for axis in one} <= set(AXES_OF_FORMS)


def test_a_sample_of_several_parts_survives_the_way_through_a_ledger(engine):
    made, brief = engine("helpfulness", numbered("helpfulness"))
    for candidate in made.fill(brief).candidates:
        row = json.loads(json.dumps(dataclasses.asdict(candidate)))
        assert restore_candidate(row) == candidate


def test_only_a_writer_that_takes_a_schema_is_sent_one():
    for name in ("paper", "one-step"):
        assert STRATEGIES[name](SynthesisConfig(provider="openai")).has_schema
        assert not STRATEGIES[name](SynthesisConfig(provider="local")).has_schema


def _objects(schema):
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from _objects(value)


@pytest.mark.parametrize("name", FORMATS)
def test_schemas_are_strict_to_the_last_object_and_survive_the_sdk(name):
    import anthropic

    found = list(_objects(FORMATS[name].schema))
    assert found
    for schema in found:
        assert schema["additionalProperties"] is False
        assert schema["required"] == list(schema["properties"])
    sent = anthropic.transform_schema(json.loads(json.dumps(FORMATS[name].schema)))
    assert sent["required"] == FORMATS[name].schema["required"]


def test_a_toxic_message_is_asked_of_a_paid_provider_as_one_field(engine, text):
    served = iter(range(99))
    made, brief = engine("toxicity", lambda request: [{"text": text(i == 0, next(served))} for i in range(request.n)])
    [accepted] = made.fill(brief).accepted
    assert accepted.fields is None
    assert brief.document(accepted.text).messages[0].role == "user"
    assert format_of(brief.task).parse(json.dumps({"text": accepted.text})).text == accepted.text
