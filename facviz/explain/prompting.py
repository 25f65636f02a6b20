"""Evidence as text inside a prompt: every span one bounded line that cannot end itself, its tokens marked with « ».

A span is shown as a JSON string, so quotes and line breaks in it are escaped; so are the marks themselves and every
character that would not be seen. What a model reads as structure was therefore written here.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from itertools import accumulate, takewhile

from facviz.records import LLMRequest, Message, Span

OPEN, CLOSE = "«", "»"

MAX_SIDE_CHARS = 400
"""Characters shown on each side of the peak token."""

MAX_TOKEN_CHARS = 80
"""Characters shown of one token; real ones are far shorter."""

_JOINERS = "\u200c\u200d"  # invisible, but spelling in Persian, Hindi and emoji needs them
_NOTHING = "(none)"


def quote(text: str) -> str:
    r"""One line in double quotes; marks, control, invisible and unpaired characters as \u escapes."""
    return f'"{_escape(text)}"'


def _escape(text: str) -> str:
    line = json.dumps(text, ensure_ascii=False)[1:-1]
    if line.isprintable() and OPEN not in line and CLOSE not in line:
        return line
    return "".join(c if _is_plain(c) else json.dumps(c)[1:-1] for c in line)


def _is_plain(c: str) -> bool:
    return c not in (OPEN, CLOSE) and (c.isprintable() or c in _JOINERS)


def show(span: Span, marked: Collection[int] | None = None) -> str:
    """A span in quotes with the tokens at these positions of its window marked; None marks the peak, () nothing."""
    marks = {span.peak_token - span.start_token} if marked is None else marked
    shown = visible(span)
    body = "".join(_piece(_bounded(span.tokens[i]), is_marked=i in marks) for i in shown)
    before, after = ("…" if cut else "" for cut in (shown.start > 0, shown.stop < len(span.tokens)))
    return f'"{before}{body}{after}"'


def _piece(token: str, *, is_marked: bool) -> str:
    return f"{OPEN}{_escape(token)}{CLOSE}" if is_marked else _escape(token)


def visible(span: Span) -> range:
    """Positions of the window's tokens that are shown: the peak and what fits beside it."""
    peak = span.peak_token - span.start_token
    n_left = _n_fitting(span.tokens[:peak][::-1])
    return range(peak - n_left, peak + 1 + _n_fitting(span.tokens[peak + 1 :]))


def _n_fitting(tokens: Iterable[str]) -> int:
    """How many tokens, nearest to the peak first, fit one side."""
    lengths = accumulate(min(len(token), MAX_TOKEN_CHARS) for token in tokens)
    return sum(1 for _ in takewhile(lambda length: length <= MAX_SIDE_CHARS, lengths))


def _bounded(token: str) -> str:
    return token if len(token) <= MAX_TOKEN_CHARS else token[: MAX_TOKEN_CHARS - 1] + "…"


def numbered(lines: Iterable[str]) -> str:
    """Lines counted from 1; a word in place of none."""
    return "\n".join(f"{i}. {line}" for i, line in enumerate(lines, 1)) or _NOTHING


def listed(texts: Iterable[str]) -> str:
    """Texts in quotes, separated by commas."""
    return ", ".join(quote(_bounded(text)) for text in texts) or _NOTHING


def make_request(
    template: str,
    instructions: str,
    block: str,
    *,
    schema: Mapping[str, object],
    max_tokens: int,
    temperature: float = 0.0,
    rng_seed: int = 0,
) -> LLMRequest:
    """Instructions first and the feature last, so that a provider can reuse what all requests begin with."""
    return LLMRequest(
        messages=(Message("system", instructions), Message("user", block)),
        max_tokens=max_tokens,
        temperature=temperature,
        rng_seed=rng_seed,
        schema=schema,
        prompt=template,
    )


def object_schema(**properties: Mapping[str, object]) -> dict[str, object]:
    """A JSON schema of an object whose fields are all required, in this order."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
