"""The explainer's question in a form that a small model can answer: a few short texts, worked examples, one line back.

Models of some hundred million parameters write no valid JSON and copy what they were shown. So they are asked for one
line, and a line that repeats itself or one of the texts is no description.
"""

from __future__ import annotations

from collections.abc import Sequence

from facviz import prompts
from facviz.explain.asking import BadReply, clean
from facviz.explain.prompting import listed, quote
from facviz.explain.said import Said, is_sentinel
from facviz.explain.sampling import ExplainSpans, sample_intervals
from facviz.records import LLMRequest, Message, Span

PLAIN_TEMPLATE = "explain_plain.v1"

N_TEXTS, N_WORDS = 6, 6
MAX_LINE_CHARS = 160
MAX_TOKENS = 24
"""Of a reply; a description has far fewer, and what rambles on is cut off."""

_BEFORE, _AFTER = 14, 8  # tokens shown around the peak
_TURN = "\n---\n"  # between the turns of the template; what is pasted in has no line breaks
_COPY_WORDS = 4  # a line of so many words that stands in one of the texts was copied
_LABELS = ("words:", "texts:", "what do these")
_SPOKEN = ("i", "im", "ive", "my", "we", "can you", "could you", "please")  # how texts begin, and no description


def plain_request(spans: ExplainSpans, *, temperature: float, rng_seed: int, n_texts: int = N_TEXTS) -> LLMRequest:
    """One question about one feature, its worked examples as earlier turns of the conversation."""
    sample = sample_intervals(spans, n_texts, rng_seed=rng_seed)
    marked = dict.fromkeys(span.tokens[span.peak_token - span.start_token].strip() for span in sample)
    words = [word for word in marked if word][:N_WORDS]
    text = prompts.render(PLAIN_TEMPLATE, marked=listed(words), active="\n".join(quote(_cut(span)) for span in sample))
    system, *turns = text.split(_TURN)
    messages = [Message("system", system)]
    messages += [Message("assistant" if i % 2 else "user", turn) for i, turn in enumerate(turns)]
    return LLMRequest(
        messages=tuple(messages),
        max_tokens=MAX_TOKENS,
        temperature=temperature,
        rng_seed=rng_seed,
        prompt=PLAIN_TEMPLATE,
    )


def _cut(span: Span) -> str:
    peak = span.peak_token - span.start_token
    return "".join(span.tokens[max(0, peak - _BEFORE) : peak + _AFTER]).strip()


def read_plain(line: str, shown: Sequence[str]) -> Said:
    """A description from its line; `shown` are the texts the question held.

    Raises:
        BadReply: it is empty, too long, goes round in circles, or copies what it should describe.
    """
    text = clean(line).strip("\"'“”.-–*• ")
    if len(text) > MAX_LINE_CHARS:
        raise BadReply(f"it was longer than {MAX_LINE_CHARS} characters")
    if not any(map(str.isalnum, text)):
        raise BadReply("it was empty")
    if is_sentinel(text):
        return Said("")
    words = _words(text)
    if text.casefold().startswith(_LABELS):
        raise BadReply("it continued the question")
    if len(words) - len(set(words)) > len(words) // 3:
        raise BadReply("it went round in circles")
    copied = " ".join(words)
    if text.endswith("?") or f"{copied} ".startswith(tuple(f"{start} " for start in _SPOKEN)):
        raise BadReply("it spoke like one of the texts")
    if len(words) >= _COPY_WORDS and any(copied in " ".join(_words(other)) for other in shown):
        raise BadReply("it copied one of the texts")
    return Said(text)


def shown_texts(spans: ExplainSpans) -> list[str]:
    """All that a question about these spans may have shown."""
    return [span.text for span in spans.spans]


def _words(text: str) -> list[str]:
    bare = text.casefold().replace("'", "").replace("’", "")
    return "".join(c if c.isalnum() else " " for c in bare).split()
