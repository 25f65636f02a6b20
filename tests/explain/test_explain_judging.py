"""Judges: one frame, exact verdicts, and nothing judged that was never explained."""

import json

import pytest
from planted_spans import block_of, doc_numbers, explained, make_span, make_world

from facviz import prompts
from facviz.errors import InputError
from facviz.explain.judging import (
    MAX_RUBRIC_CHARS,
    JudgeSettings,
    Rubric,
    Subject,
    custom_rubric,
    judge_explanations,
    judge_requests,
    task_rubric,
    to_relevance,
    verify_rubric,
)
from facviz.explain.sampling import HeldOutSpans
from facviz.records import ExplanationOutcome, Outcome, Verdict
from facviz.testing.fakes import FakeLLM


def reply(verdict="probably", rationale="the spans share it"):
    return json.dumps({"rationale": rationale, "verdict": verdict})


def subjects(n=1):
    _, held_out, _ = make_world(n)
    return [Subject(explained(f), held_out[f]) for f in range(n)]


def judge(script, rubric=None, given=None):
    client = FakeLLM(script)
    found = judge_explanations(
        given or subjects(), rubric or verify_rubric(), client, settings=JudgeSettings(), rng_seed=0
    )
    return found, client


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_verdict_comes_with_its_rationale_and_both_names(verdict):
    (found,), client = judge([reply(verdict.value)])
    assert (found.verdict, found.rationale, found.outcome) == (verdict, "the spans share it", Outcome.OK)
    assert (found.judge, found.explainer, found.is_self_judged) == (client.name, "some/explainer", False)
    assert found.rubric == "verify"


def test_one_model_in_both_roles_is_said_to_judge_itself():
    _, held_out, _ = make_world(1)
    (found,), _ = judge([reply()], given=[Subject(explained(0, author="scripted/fake"), held_out[0])])
    assert found.is_self_judged


@pytest.mark.parametrize("said", ["now", "No", "no doubt: yes", "[[yes]]", "Final decision: yes", ""])
def test_defect_26_a_verdict_that_is_not_one_of_four_is_no_verdict_and_never_a_no(said):
    (found,), client = judge([reply(said)], task_rubric(prompts.load_task("toxicity")))
    assert (found.verdict, found.outcome) == (None, Outcome.INVALID)
    assert "not one of yes, probably, maybe, no" in found.detail
    assert to_relevance(found) is None
    assert len(client.requests) == JudgeSettings().n_attempts


@pytest.mark.parametrize("outcome", [ExplanationOutcome.CANNOT_TELL, ExplanationOutcome.FAILED])
@pytest.mark.parametrize("text", ["Cannot Tell.", "cannot tell", "a fine sentence"])
def test_defect_24_a_feature_without_an_explanation_is_never_judged(outcome, text):
    _, held_out, _ = make_world(2)
    given = [Subject(explained(0, text, outcome), held_out[0]), Subject(explained(1), held_out[1])]
    (unasked, asked), client = judge([reply("yes")], given=given)
    assert len(client.requests) == 1
    assert (unasked.verdict, unasked.outcome, unasked.detail) == (None, None, "the feature has no explanation")
    assert (asked.feature_id, asked.verdict) == (1, Verdict.YES)


def test_a_feature_without_held_out_spans_is_not_judged():
    (found,), client = judge([reply()], given=[Subject(explained(0), HeldOutSpans())])
    assert (found.verdict, found.detail, client.requests) == (None, "the feature has no held-out spans", [])


def test_defect_25_every_rubric_stands_in_the_same_frame_over_the_same_spans():
    rubrics = [verify_rubric(), custom_rubric("mine", "Anything $about {cats}.")]
    rubrics += [task_rubric(prompts.load_task(name)) for name in prompts.task_names()]
    sent = {r.name: judge_requests(subjects(), r, settings=JudgeSettings(), rng_seed=0)[0] for r in rubrics}
    assert len({block_of(request) for request in sent.values()}) == 1
    frames = {
        request.messages[0].content.replace(rubric.text, "RUBRIC") for rubric, request in zip(rubrics, sent.values())
    }
    assert len(frames) == 1
    assert "RUBRIC" in frames.pop()
    assert len({json.dumps(request.schema) for request in sent.values()}) == 1


def test_a_task_rubric_holds_every_point_of_its_guideline():
    for name in prompts.task_names():
        task = prompts.load_task(name)
        rubric = task_rubric(task)
        assert rubric.name == name
        assert all(f"- {point}" in rubric.text for point in task.points)
        assert task.description in rubric.text


def test_defect_16_the_survival_judge_is_told_that_its_rubric_describes_the_opposite_pole():
    task = prompts.load_task("survival_instinct")
    (request,) = judge_requests(subjects(), task_rubric(task), settings=JudgeSettings(), rng_seed=0)
    assert task.sign == -1
    assert "opposite to the one a model is steered to" in request.messages[0].content


def test_the_judge_sees_held_out_spans_with_marked_peaks_and_the_whole_explanation():
    explain, held_out, _ = make_world(1)
    text = 'U.S. Army. Also "marks" «x»\nIgnore this'
    (request,) = judge_requests(
        [Subject(explained(0, text), held_out[0])], verify_rubric(), settings=JudgeSettings(n_examples=5), rng_seed=0
    )
    block = block_of(request)
    line = block.splitlines()[1]
    assert json.loads(line) == text
    assert block.count("« theme0»") == block.count("«") == 5
    assert doc_numbers([request]) <= {s.doc_no for s in held_out[0].spans}
    assert not doc_numbers([request]) & {s.doc_no for s in explain[0].spans}


def test_a_subject_takes_spans_of_its_own_feature_only():
    with pytest.raises(InputError, match="its own spans alone"):
        Subject(explained(0), HeldOutSpans((make_span(1, 1),)))


@pytest.mark.parametrize(
    ("name", "text"), [("", "x"), ("mine", "  "), ("verify", "x"), ("mine", "x" * (MAX_RUBRIC_CHARS + 1))]
)
def test_a_custom_task_needs_a_name_and_a_bounded_description(name, text):
    with pytest.raises(InputError):
        custom_rubric(name, text)


def test_a_task_verdict_becomes_a_relevance_record_and_a_verify_verdict_does_not():
    (found,), _ = judge([reply("maybe")], Rubric("mine", "x"))
    relevance = to_relevance(found)
    assert (relevance.feature_id, relevance.source, relevance.verdict) == (0, "llm", Verdict.MAYBE)
    assert relevance.rationale == "the spans share it"
    (fits,), _ = judge([reply("yes")])
    with pytest.raises(InputError, match="says nothing about a task"):
        to_relevance(fits)


def test_features_are_judged_in_one_call_in_their_order():
    def script(request):
        return [reply("yes" if "theme2" in block_of(request) else "no")]

    found, client = judge(script, given=subjects(4))
    assert [f.verdict for f in found] == [Verdict.NO, Verdict.NO, Verdict.YES, Verdict.NO]
    assert len({r.messages[0].content for r in client.requests}) == 1
