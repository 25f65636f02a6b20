"""Token heat: a feature's activations on the tokens of a span as escaped HTML, and the word diff of explanations.

Everything that comes out has passed `html.escape`; the only elements are div, span and style, so that a sanitiser
has nothing to remove. Colours are computed opaque, so that the text on each cell can be chosen for its contrast.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from typing import Literal

from facviz.errors import InputError
from facviz.views.format import number, visible
from facviz.views.palette import Mode, blend, ink_on, palette

Context = Literal["near", "window", "full"]

NEAR_TOKENS = 5
MAX_TOKENS = 1000
MAX_TOKEN_CHARS = 200
MAX_AROUND_CHARS = 2000
MAX_DIFF_CHARS = 4000

_NO_BREAK_SPACE = "\u00a0"
_ELLIPSIS = '<span class="fv-quiet">…</span>'

_CSS = """
.fv-row{{display:flex;gap:16px;align-items:baseline;padding:8px 0;border-bottom:1px solid {hairline};overflow:hidden}}
.fv-row:last-child{{border-bottom:0}}
.fv-pill{{flex:none;width:96px;font:600 13px/1.4 {mono};overflow:hidden;text-overflow:ellipsis;white-space:pre;
border:1px solid {hairline};border-radius:8px;padding:4px 8px;color:{ink}}}
.fv-value,.fv-note,.fv-quiet{{color:{muted};font-weight:400}}
.fv-value,.fv-note{{font-size:12px}}
.fv-body{{flex:1;min-width:0}}
.fv-group{{display:flex;gap:12px;align-items:center;margin-top:20px;padding-bottom:4px;font-size:.85rem;
border-bottom:1px solid {hairline};color:{muted};font-variant-numeric:tabular-nums}}
.fv-group b{{flex:none;color:{ink};font-weight:600}}
.fv-bar{{flex:none;width:96px;height:6px;border-radius:3px;background:{hairline};overflow:hidden}}
.fv-bar>div{{height:6px;background:{covered}}}
.fv-try{{flex:none;cursor:pointer;font-size:12px;padding:2px 8px;border-radius:8px;color:{muted};
border:1px solid {hairline}}}
.fv-try:hover,.fv-try:focus-visible{{color:{ink};border-color:{muted}}}
.fv-span{{font:14px/1.75 {mono};white-space:pre-wrap;overflow-wrap:anywhere;color:{ink};padding:2px}}
.fv-on,.fv-peak{{border-radius:2px;padding:1px 0}}
.fv-part{{padding:1px 3px}}
.fv-peak{{font-weight:700;outline:1.5px solid {ink}}}
.fv-ring{{border-radius:2px;outline:1.5px dashed {muted}}}
.fv-on:focus-visible,.fv-peak:focus-visible{{outline:2.5px solid {ink};outline-offset:1px}}
.fv-warn .fv-row>div{{filter:blur(7px);transition:filter .15s}}
.fv-warn .fv-row:focus-within>div,.fv-warn .fv-row:hover>div,.fv-warn .fv-row:focus>div{{filter:none}}
"""
_MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"


@dataclass(frozen=True, slots=True)
class SpanRow:
    """One span to draw; `peak` is an index into `tokens` (None: nowhere), `feature_max` the feature's own maximum.

    `before` and `after` are the document's text around the window, shown in the context `full`; `note` stands below.
    Without a peak, `act` is what the pill says and `ring` a token to outline: where something else fires. With
    `can_try` the row offers its text to the test box.
    """

    tokens: Sequence[str]
    acts: Sequence[float]
    feature_max: float
    peak: int | None
    before: str = ""
    after: str = ""
    note: str = ""
    act: float | None = None
    ring: int | None = None
    can_try: bool = False

    @property
    def text(self) -> str:
        """The window as it stands in the text."""
        return "".join(self.tokens).strip()


def heat_opacity(act: float, feature_max: float) -> float:
    """0 where the feature is silent, else 0.05 + 0.95·log10(1 + 9·r) of the share r of the feature's own maximum."""
    if not (act > 0 and feature_max > 0):
        return 0.0
    return 0.05 + 0.95 * math.log10(1 + 9 * min(act / feature_max, 1.0))


def cell_colours(opacity: float, mode: Mode) -> tuple[str, str]:
    """Background and text of a heat cell, `#RRGGBB` each, with a contrast of at least 4.5."""
    colours = palette(mode)
    background = blend(colours.heat, opacity, colours.paper)
    return background, ink_on(background)


def visible_token(token: str) -> str:
    """What a reader sees of a token: at most 200 characters, signs for line ends and tabs, blanks of full width."""
    cut = token if len(token) <= MAX_TOKEN_CHARS else token[:MAX_TOKEN_CHARS] + "…"
    return visible(cut) if cut.strip(" ") else _NO_BREAK_SPACE * len(cut)


def span_html(
    tokens: Sequence[str],
    acts: Sequence[float],
    *,
    feature_max: float,
    peak: int | None,
    mode: Mode,
    context: Context = "window",
    before: str = "",
    after: str = "",
    ring: int | None = None,
) -> str:
    """One span as a `<div>`; `near` shows ±5 tokens of the peak, `full` adds the text around. Needs `heat_style` once.

    A token that fires carries its value in `data-act`, for whoever marks it on a histogram, and takes the focus.

    Raises:
        InputError: tokens and activations differ in number, or the peak lies outside.
    """
    _check(tokens, acts, peak)
    start, end = _window(len(tokens), ring if peak is None else peak, context)
    cells = [
        _ringed(tokens[i], acts[i]) if i == ring else _cell(tokens[i], acts[i], feature_max, i == peak, mode)
        for i in range(start, end)
    ]
    left, right = _ELLIPSIS * (start > 0), _ELLIPSIS * (end < len(tokens))
    inner = left + "".join(cells) + right
    if context == "full":
        around = _around(before, after)
        inner = around[0] + inner.replace("↵</span>", "↵</span>\n") + around[1]
    return f'<div class="fv-span" dir="auto" lang="">{inner}</div>'


def pill(peak_token: str, act: float) -> str:
    """The mark at the left of a row: the peak token over its activation."""
    token = _name(peak_token)
    title = escape(f"peak token {token} · {number(act)}")
    value = f'<div class="fv-value">{number(act)}</div>'
    return f'<div class="fv-pill" dir="auto" title="{title}">{escape(token)}{value}</div>'


def value_pill(act: float) -> str:
    """The pill of a text whose peak token is not known, or that has none."""
    return f'<div class="fv-pill" title="{escape(f"activation {number(act)}")}">{number(act)}</div>'


def spans_html(
    rows: Iterable[SpanRow], *, mode: Mode, context: Context = "window", warn: bool = False, has_pills: bool = True
) -> str:
    """Rows of pill and span as one block with its style; `warn` blurs each row until it is hovered or focused."""
    body = "".join(_row(row, mode, context, warn, has_pills) for row in rows)
    return f'<div class="fv-spans{" fv-warn" * warn}">{heat_style(mode)}{body}</div>'


def heat_style(mode: Mode) -> str:
    """The `<style>` that span, pill and row need, once a page or block."""
    colours = palette(mode)
    css = _CSS.format(
        ink=colours.ink, muted=colours.muted, hairline=colours.hairline, covered=colours.covered, mono=_MONO
    )
    return f"<style>{css}</style>"


def word_diff_html(old: str, new: str) -> str:
    """What changed between two versions of a text, word by word: struck out and underlined, so without any colour."""
    before, after = (_words(text[:MAX_DIFF_CHARS]) for text in (old, new))
    parts: list[str] = []
    for operation, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if operation == "equal":
            parts.append(_marked("".join(before[i:j]), "", "unchanged"))
            continue
        parts.append(_marked("".join(before[i:j]), "text-decoration:line-through;margin-right:.3em", "removed"))
        parts.append(_marked("".join(after[k:m]), "text-decoration:underline;font-weight:600", "added"))
    return f'<div class="fv-diff" dir="auto" lang="" style="white-space:pre-wrap">{"".join(parts)}</div>'


def _check(tokens: Sequence[str], acts: Sequence[float], peak: int | None) -> None:
    if len(tokens) != len(acts):
        raise InputError(f"A span has {len(tokens)} tokens but {len(acts)} activations; give one for each token.")
    if peak is not None and not 0 <= peak < len(tokens):
        raise InputError(f"The peak {peak} is none of the span's {len(tokens)} tokens; count it from the span's start.")


def _window(n_tokens: int, peak: int | None, context: Context) -> tuple[int, int]:
    """The tokens to show, as a half-open range around the peak."""
    centre = peak if peak is not None else n_tokens // 2
    reach = NEAR_TOKENS if context == "near" else MAX_TOKENS // 2
    return max(0, centre - reach), min(n_tokens, centre + reach + 1)


def _cell(token: str, act: float, feature_max: float, is_peak: bool, mode: Mode) -> str:
    shown, title = visible_token(token), escape(f"{_name(token)} · {number(act)}")
    word = shown.lstrip(" ")
    blanks, shown = " " * (len(shown) - len(word)), escape(word)
    opacity = heat_opacity(act, feature_max)
    name = "fv-peak" if is_peak else "fv-on" if opacity else ""
    if not name:
        return f'{blanks}<span title="{title}">{shown}</span>'
    background, ink = cell_colours(opacity, mode)
    part = "" if token else " fv-part"
    style = f"background:{background};color:{ink}"
    value = f' data-act="{act:.6g}" tabindex="{0 if is_peak else -1}"' if opacity else ""
    return f'{blanks}<span class="{name}{part}" style="{style}" title="{title}"{value}>{shown}</span>'


def _ringed(token: str, act: float) -> str:
    shown = visible_token(token)
    word = shown.lstrip(" ")
    title = escape(f"{_name(token)} · {number(act)}")
    return f'{" " * (len(shown) - len(word))}<span class="fv-ring" title="{title}">{escape(word)}</span>'


def _name(token: str) -> str:
    """A token in words where there is nothing to see; empty slices come from characters of several tokens."""
    if not token:
        return "(part of a character)"
    word = token.lstrip(" ")
    return "␣" * min(len(token) - len(word), MAX_TOKEN_CHARS) + (visible_token(word) if word else "")


def _around(before: str, after: str) -> tuple[str, str]:
    left = before if len(before) <= MAX_AROUND_CHARS else "…" + before[-MAX_AROUND_CHARS:]
    right = after if len(after) <= MAX_AROUND_CHARS else after[:MAX_AROUND_CHARS] + "…"
    return _quiet(left), _quiet(right)


def _quiet(text: str) -> str:
    lines = escape(visible(text)).replace("↵", "↵\n")
    return f'<span class="fv-quiet">{lines}</span>' if text else ""


def _row(row: SpanRow, mode: Mode, context: Context, warn: bool, has_pill: bool) -> str:
    span = span_html(
        row.tokens,
        row.acts,
        feature_max=row.feature_max,
        peak=row.peak,
        mode=mode,
        context=context,
        before=row.before,
        after=row.after,
        ring=row.ring,
    )
    left = "" if row.act is None else value_pill(row.act)
    left = left if row.peak is None else pill(row.tokens[row.peak], row.acts[row.peak])
    left = left if has_pill else ""
    note = f'<div class="fv-note" dir="auto">{escape(visible(row.note))}</div>' if row.note else ""
    focus = ' tabindex="0"' if warn else ""
    right = _try_button(row.text) if row.can_try else ""
    return f'<div class="fv-row"{focus}>{left}<div class="fv-body">{span}{note}</div>{right}</div>'


def _try_button(text: str) -> str:
    """Carries the text as an attribute; what listens to the click hands it to the test box."""
    what = escape(text[:MAX_AROUND_CHARS])
    title = "Put this text into the test box"
    return f'<span class="fv-try" role="button" tabindex="0" title="{title}" data-try="{what}">Try</span>'


def _words(text: str) -> list[str]:
    return re.findall(r"\s+|\S+", text)


def _marked(text: str, style: str, title: str) -> str:
    if not text:
        return ""
    attributes = f' style="{style}" title="{title}"' if style else ""
    return f"<span{attributes}>{escape(visible(text))}</span>"
