"""Features whose theme word is known, and a judge that reads prompts as a model would and knows the truth."""

from __future__ import annotations

import json
import re

from facviz.explain.sampling import split_spans
from facviz.records import Document, Explanation, ExplanationOutcome, Span, Split, split_of


def make_span(feature_id, doc_no, *, act=1.0, split=Split.SCORE, tokens=None, acts=None, peak=None):
    """A span around its feature's theme word, in a document that is named in the text."""
    tokens = tuple(tokens or (f"doc{doc_no}", " some", " words", " before", f" theme{feature_id}", " and", " after"))
    peak = tokens.index(f" theme{feature_id}") if peak is None else peak
    acts = tuple(acts or (act if i == peak else 0.0 for i in range(len(tokens))))
    text = "".join(tokens)
    return Span(feature_id, 0, 1.0, split, doc_no, 0, len(tokens), 0, len(text), peak, act, tokens, acts)


def split_of_number(doc_no):
    """The half of the document with this number."""
    return split_of(Document.from_text(f"document {doc_no}").doc_id)


def make_world(n_features, per_feature=40):
    """Both halves of every feature's spans; each feature fires in documents of its own, at falling strength."""
    explain, held_out, fires_in = {}, {}, {}
    for f in range(n_features):
        numbers = [1000 * f + i for i in range(per_feature)]
        spans = [
            make_span(f, n, act=10.0 * (i + 1) / per_feature, split=split_of_number(n)) for i, n in enumerate(numbers)
        ]
        explain[f], held_out[f] = split_spans(spans)
        fires_in[f] = set(numbers)
    return explain, held_out, fires_in


def explained(feature_id, text=None, outcome=ExplanationOutcome.EXPLAINED, author="some/explainer"):
    return Explanation(feature_id, text or f"the word theme{feature_id}", outcome, "llm", author)


def block_of(request):
    return request.messages[-1].content


def items_of(request):
    """The numbered lines of a prompt, as the JSON strings they are."""
    return re.findall(r'^\d+\. (?:\d+% )?(".*")$', block_of(request), flags=re.MULTILINE)


def doc_numbers(requests):
    """Every document whose name was sent."""
    return {int(n) for request in requests for n in re.findall(r"doc(\d+)", block_of(request))}


def flags(request, values):
    name = "active" if request.prompt.startswith("score_detection") else "right"
    return [json.dumps({"answers": [{"item": i, name: v} for i, v in enumerate(values, 1)]})]


def knowing_judge(request):
    """Right about everything, by looking for the theme the description names."""
    items = items_of(request)
    if request.prompt.startswith("score_intruder"):
        marked = [re.search("« ?(.*?)»", item)[1] for item in items]
        odd = next(i for i, word in enumerate(marked, 1) if marked.count(word) == 1)
        return [json.dumps({"reasoning": "the others share a word", "odd_one_out": odd})]
    theme = re.search(r'Description\n".*?(theme\d+)"', block_of(request))[1]
    sought = rf"« {theme}»" if request.prompt.startswith("score_fuzzing") else rf"\b{theme}\b"
    return flags(request, [bool(re.search(sought, item)) for item in items])
