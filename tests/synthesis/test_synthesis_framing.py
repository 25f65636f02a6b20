"""What is sent for one sample of a format: to a provider that promises JSON, and to a small model that does not."""

from __future__ import annotations

import dataclasses
import json

import pytest

from facviz.config import fingerprint
from facviz.prompts import load_task, template_text
from facviz.records import Candidate
from facviz.synthesis.formats import FORMATS, Parsed, format_of
from facviz.synthesis.formats.examples import examples_of
from facviz.synthesis.framing import JSON_EVIDENCE, JSON_ITEM, JSON_PAIR, LAYOUT_ITEM, frame_templates, framed
from facviz.synthesis.guided import GUIDED_TEMPLATE
from facviz.synthesis.strategies import Paired, Turn

TASKS = ("helpfulness", "instruction_following", "survival_instinct", "sycophancy", "topic", "toxicity")
IN_LAYOUT = ("helpfulness", "instruction_following", "survival_instinct", "sycophancy")


@pytest.fixture
def brief_of(brief):
    """The brief of feature 12 for a task."""
    return lambda task: dataclasses.replace(brief, task=load_task(task))


def stored(form, candidate_id, example, act):
    """A packaged example as a step-1 candidate."""
    fields = dict(example.sample.fields) or None
    return Candidate(
        candidate_id, 12, "paper", "pairs", 0, 0, example.sample.text, act, 3, {}, False, "step one", 1, fields
    )


@pytest.fixture
def pair_of():
    """The two first examples of a task's format as strong and weak candidate."""

    def make(task):
        form = format_of(load_task(task))
        strong, weak = examples_of(form)[:2]
        return stored(form, "strong", strong, 2.0), stored(form, "weak", weak, 0.1)

    return make


@pytest.mark.parametrize("task", TASKS)
def test_a_provider_with_json_is_sent_the_schema_the_rules_first_and_the_feature_last(brief_of, task):
    brief = brief_of(task)
    asked = framed(brief, has_schema=True)
    system, item = asked.messages
    assert [system.role, item.role] == ["system", "user"]
    assert asked.schema == FORMATS[brief.task.format].schema
    assert asked.prompt == JSON_ITEM
    assert asked.max_tokens >= 300
    assert brief.task.sample_request in system.content
    assert template_text(brief.format.rules_template) in system.content
    assert f"exactly the fields {', '.join(asked.schema['required'])}, and nothing" in system.content
    assert "mirror" not in system.content
    assert brief.explanation in item.content
    for span in brief.spans:
        assert f'- "{span.text}"' in item.content
        assert span.text in asked.shown
    for example in examples_of(brief.format):
        assert json.dumps(brief.format.as_json(example.sample), ensure_ascii=False) in system.content
        assert example.sample.text in asked.shown


@pytest.mark.parametrize("task", IN_LAYOUT)
def test_a_small_model_is_sent_examples_as_earlier_answers_in_the_layout_that_is_read(brief_of, task):
    brief = brief_of(task)
    asked = framed(brief, has_schema=False)
    assert asked.schema is None
    assert asked.prompt == LAYOUT_ITEM
    assert [m.role for m in asked.messages] == ["system", *["user", "assistant"] * 2, "user"]
    answers = [m.content for m in asked.messages if m.role == "assistant"]
    assert [brief.format.parse(answer) for answer in answers] == [e.sample for e in examples_of(brief.format)]
    assert asked.messages[-1].content == "Write one item that uses: mirror."
    assert brief.task.sample_request in asked.messages[0].content
    assert all(span.text in asked.messages[0].content for span in brief.spans)
    assert all(f"{label}:" in asked.messages[0].content for label in brief.format.labels)


@pytest.mark.parametrize("task", ["topic", "toxicity"])
def test_a_single_text_is_asked_of_a_small_model_without_any_frame(brief_of, pair_of, task):
    assert framed(brief_of(task), has_schema=False) is None
    assert framed(brief_of(task), pair_of("toxicity"), has_schema=False) is None
    assert frame_templates(brief_of(task).format, has_schema=False) == []


@pytest.mark.parametrize("task", IN_LAYOUT)
def test_a_small_model_sees_the_weak_item_turned_down_and_the_strong_one_praised(brief_of, pair_of, task):
    strong, weak = pair_of(task)
    form = brief_of(task).format
    asked = framed(brief_of(task), (strong, weak), has_schema=False)
    *_, weak_said, no, strong_said, yes = [m.content for m in asked.messages]
    assert form.parse(weak_said) == form.restore(weak.text, weak.fields)
    assert form.parse(strong_said) == form.restore(strong.text, strong.fields)
    assert no.startswith("No, ")
    assert yes.startswith("Yes, ")
    assert {strong.text, weak.text} <= set(asked.shown)
    assert asked.prompt == GUIDED_TEMPLATE


@pytest.mark.parametrize("task", [t for t in TASKS if t != "topic"])
def test_a_provider_with_json_sees_both_items_as_the_objects_it_should_write(brief_of, pair_of, task):
    strong, weak = pair_of(task)
    form = brief_of(task).format
    asked = framed(brief_of(task), (strong, weak), has_schema=True)
    lines = [line for line in asked.messages[-1].content.splitlines() if line.startswith("{")]
    samples = [form.parse(line) for line in lines]
    assert samples == [form.restore(c.text, c.fields or {}) for c in (strong, weak)]
    assert all(isinstance(sample, Parsed) for sample in samples)
    assert asked.prompt == JSON_PAIR
    assert {strong.text, weak.text} <= set(asked.shown)


@pytest.mark.parametrize("task", TASKS)
def test_defect_29_without_a_pair_a_provider_is_told_which_passage_fitted_best_and_how_well_it_was_measured(
    brief_of, task
):
    brief = brief_of(task)
    strongest = max(brief.spans, key=lambda span: span.act)
    asked = framed(brief, has_schema=True, is_guided=True)
    item = asked.messages[-1].content
    assert asked.prompt == JSON_EVIDENCE
    assert f"at {strongest.act / brief.bar:.1f} times the bar" in item
    assert item.index("times the bar") < item.rindex(json.dumps(strongest.text))  # named once more, after its measure
    assert strongest.text in asked.shown  # so a copy is turned down
    assert "Two earlier items" not in item
    bare = framed(dataclasses.replace(brief, spans=()), has_schema=True, is_guided=True)
    assert (bare.prompt, "times the bar" in bare.messages[-1].content) == (JSON_ITEM, False)


@pytest.mark.parametrize("task", IN_LAYOUT)
def test_without_a_pair_the_record_names_the_strongest_passage_in_every_format(brief_of, task):
    brief = brief_of(task)
    for has_schema in (True, False):
        [asked] = Paired(0.1, has_schema=has_schema).prompts(brief, Turn("guided", 0, 4))
        evidence = asked.notes["evidence"]
        assert (evidence["pair"], evidence["spans"]) == ("none_active", len(brief.spans))
        assert evidence["strongest"]["act"] == max(span.act for span in brief.spans)


@pytest.mark.parametrize("has_schema", [True, False])
def test_a_passage_that_is_withheld_is_shown_to_nobody(brief_of, has_schema):
    brief = brief_of("sycophancy")
    [first, second] = brief.spans
    hidden = dataclasses.replace(first, tokens=("naked schoolgirl", *first.tokens[1:]))
    asked = framed(dataclasses.replace(brief, spans=(hidden, second)), has_schema=has_schema)
    assert not any("schoolgirl" in m.content for m in asked.messages)
    assert second.text in asked.shown


def test_toxic_messages_are_asked_for_as_training_data_of_a_classifier_without_anything_to_act_on(brief_of):
    system = framed(brief_of("toxicity"), has_schema=True).messages[0].content
    assert "labelled training data for that classifier" in system
    assert "leave out names of real people, instructions, quantities" in system
    assert "never write sexual content about minors" in system
    assert "never a detail that somebody could act on" in system


@pytest.mark.parametrize("has_schema", [True, False])
@pytest.mark.parametrize("task", IN_LAYOUT)
def test_the_templates_of_a_frame_are_those_its_requests_are_made_of(brief_of, pair_of, task, has_schema):
    form = brief_of(task).format
    names = frame_templates(form, has_schema=has_schema)
    assert len(names) == len(set(names))
    assert {form.rules_template, form.examples_template} <= set(names)
    assert framed(brief_of(task), has_schema=has_schema).prompt in names
    assert all(template_text(name) for name in names)


def test_the_format_of_a_task_changes_no_result_about_what_features_mean():
    task = load_task("sycophancy")
    assert fingerprint(task) == fingerprint(dataclasses.replace(task, format="plain_text"))
