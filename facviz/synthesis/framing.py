"""How one sample of a task format is asked for: as JSON by a schema, or in a plain layout that a small model keeps to.

A model without a schema continues a pattern far better than it obeys a description, so examples stand there as earlier
answers; a model with one is told the form first and the feature last, so that what all requests share can be reused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from facviz.prompts import render, template_text
from facviz.records import Candidate, Message
from facviz.synthesis.evidence import one_line
from facviz.synthesis.formats import Parsed, SampleFormat
from facviz.synthesis.formats.examples import examples_of
from facviz.synthesis.guided import CONTRAST_TEMPLATE, GUIDED_TEMPLATE, shown_spans, times_the_bar
from facviz.synthesis.pairs import WORDS_SHOWN
from facviz.synthesis.plan import FeatureBrief
from facviz.synthesis.safety import is_withheld

JSON_SYSTEM, JSON_ITEM, JSON_PAIR = "synthesize_json_system.v1", "synthesize_json_item.v1", "synthesize_json_pair.v1"
JSON_EVIDENCE = "synthesize_json_evidence.v1"
LAYOUT_SYSTEM, LAYOUT_ITEM = "synthesize_layout_system.v1", "synthesize_layout_item.v1"
_NO_EXPLANATION, _NO_WORDS, _NOTHING = "what the passages have in common", "those of the passages", "(none)"


@dataclass(frozen=True, slots=True)
class Framed:
    """A request for samples: the conversation, the texts it shows, and the room and schema of a reply."""

    messages: tuple[Message, ...]
    shown: tuple[str, ...]
    schema: Mapping[str, Any] | None
    max_tokens: int
    """Fewest tokens that leave room for a whole sample."""
    prompt: str
    """Template of the request, for the record."""


def framed(
    brief: FeatureBrief,
    pair: tuple[Candidate, Candidate] | None = None,
    *,
    has_schema: bool,
    is_guided: bool = False,
) -> Framed | None:
    """What to send for one sample of the brief's format; `pair` is the strong and the weak one of step 1.

    In step 2 (`is_guided`) without a pair a model that takes a schema is told which span was measured to fit best; one
    that does not has seen all of them and would copy one that is quoted again. None where the sample is one text and
    the model takes no schema: that is asked for without any frame.
    """
    form = brief.format
    if has_schema:
        return _with_schema(brief, form, pair, is_guided=is_guided)
    return _in_layout(brief, form, pair) if form.labels else None


def frame_templates(form: SampleFormat, *, has_schema: bool) -> list[str]:
    """Templates that the frame of a format adds; a changed text is another synthesis run."""
    if not has_schema and not form.labels:
        return []
    own = [form.rules_template, *([form.examples_template] if form.examples_template else [])]
    return own + ([JSON_SYSTEM, JSON_ITEM, JSON_PAIR, JSON_EVIDENCE] if has_schema else [LAYOUT_SYSTEM, LAYOUT_ITEM])


def _with_schema(
    brief: FeatureBrief, form: SampleFormat, pair: tuple[Candidate, Candidate] | None, *, is_guided: bool
) -> Framed:
    examples = [e.sample for e in examples_of(form)]
    written = [_json(form.as_json(e)) for e in examples]
    spans = _evidence(brief)
    system = render(
        JSON_SYSTEM,
        request=brief.task.sample_request,
        rules=template_text(form.rules_template),
        examples="\n".join(written) or _NOTHING,
        fields=", ".join(form.schema["required"]),
    )
    more, shown, template = [], [*spans, *(e.text for e in examples)], JSON_ITEM
    if pair:
        template = JSON_PAIR
        strong, weak = (_json(form.as_json(_sample(form, candidate))) for candidate in pair)
        more.append(render(JSON_PAIR, strong=strong, weak=weak))
        shown += [candidate.text for candidate in pair]
    elif is_guided and (strongest := shown_spans(brief)[-1:]):
        template = JSON_EVIDENCE
        best = json.dumps(one_line(strongest[0]), ensure_ascii=False)
        more.append(render(JSON_EVIDENCE, strong=best, times=times_the_bar(strongest[0], brief)))
    item = render(
        JSON_ITEM,
        explanation=brief.explanation or _NO_EXPLANATION,
        words=_words(brief),
        spans="\n".join(f"- {json.dumps(span, ensure_ascii=False)}" for span in spans) or _NOTHING,
        more="\n".join(more),
    )
    messages = (Message("system", system), Message("user", item))
    return Framed(messages, tuple(shown), form.schema, form.max_json_tokens, template)


def _in_layout(brief: FeatureBrief, form: SampleFormat, pair: tuple[Candidate, Candidate] | None) -> Framed:
    examples, spans = examples_of(form), _evidence(brief)
    system = render(
        LAYOUT_SYSTEM,
        request=brief.task.sample_request,
        rules=template_text(form.rules_template),
        labels=", ".join(f"{label}:" for label in form.labels),
        explanation=brief.explanation or _NO_EXPLANATION,
        spans=" / ".join(spans) or _NOTHING,
    )
    turns = [Message("system", system)]
    for example in examples:
        turns += [
            Message("user", render(LAYOUT_ITEM, words=example.words)),
            Message("assistant", form.layout(example.sample)),
        ]
    request = render(LAYOUT_ITEM, words=_words(brief))
    turns.append(Message("user", request))
    shown = [*spans, *(e.sample.text for e in examples)]
    if pair:
        strong, weak = pair
        turns += [
            Message("assistant", form.layout(_sample(form, weak))),
            Message("user", render(CONTRAST_TEMPLATE, request=request)),
            Message("assistant", form.layout(_sample(form, strong))),
            Message("user", render(GUIDED_TEMPLATE, request=request)),
        ]
        shown += [weak.text, strong.text]
    template = GUIDED_TEMPLATE if pair else LAYOUT_ITEM
    return Framed(tuple(turns), tuple(shown), None, form.max_tokens, template)


def _words(brief: FeatureBrief) -> str:
    return ", ".join(brief.words[:WORDS_SHOWN]) or _NO_WORDS


def _evidence(brief: FeatureBrief) -> list[str]:
    """Spans on one line each; those nobody should see are left out."""
    return [text for text in map(one_line, brief.spans) if not is_withheld(text)]


def _sample(form: SampleFormat, candidate: Candidate) -> Parsed:
    return form.restore(candidate.text, candidate.fields or {})


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
