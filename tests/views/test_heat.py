"""Token heat as HTML: whatever the tokens are, they come back as text, bounded, readable, and nothing is injected."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facviz.errors import InputError
from facviz.views.format import visible
from facviz.views.heat import (
    MAX_TOKENS,
    NEAR_TOKENS,
    SpanRow,
    cell_colours,
    heat_opacity,
    heat_style,
    pill,
    span_html,
    spans_html,
    visible_token,
    word_diff_html,
)
from facviz.views.palette import MIN_CONTRAST, contrast

MODES = ("light", "dark")
SPAN_ATTRIBUTES = {"class", "style", "title", "data-act", "data-try", "tabindex", "role"}
ELEMENTS = {"div": {"class", "dir", "lang", "title", "style", "tabindex"}, "span": SPAN_ATTRIBUTES}
STYLES = {"background", "color", "white-space", "text-decoration", "font-weight", "margin-right"}
NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</span></div></style>",
    "&lt;b&gt; &amp; &#60;",
    "-->",
    "\x00\x1b\r\n\t",
    "\u202egnp.exe",
    "👩\u200d🔬",
    "e\u0301\u0301\u0301",
    "שלום",
    "\ud800",
    " ",
    "",
)
TOKENS = st.lists(st.sampled_from(NASTY) | st.text(max_size=8), min_size=1, max_size=12)


class Reader(HTMLParser):
    """What a browser would find: text outside styles, elements with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.seen, self.styles, self._depth = "", [], "", []
        self.feed(html)
        self.close()
        assert self._depth == [], "an element is not closed"

    def handle_starttag(self, tag, attrs):
        self._depth.append(tag)
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._depth.pop() == tag

    def handle_data(self, data):
        if self._depth and self._depth[-1] == "style":
            self.styles += data
        else:
            self.text += data

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data!r}")

    handle_decl = handle_pi = unknown_decl = handle_comment

    def cells(self) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.seen if tag == "span" and "title" in attributes]


def read_safely(html: str) -> Reader:
    """Parses and checks that only known elements, attributes and style properties occur."""
    html.encode()
    reader = Reader(html)
    for tag, attributes in reader.seen:
        if tag == "style":
            assert attributes == {}
            continue
        assert attributes.keys() <= ELEMENTS[tag], (tag, attributes)
        for name in re.findall(r"([^:;]+):[^;]*", attributes.get("style", "")):
            assert name in STYLES
        assert re.fullmatch(r"(fv-[a-z]+ ?)*", attributes.get("class", ""))
    return reader


def draw(tokens, acts=None, *, peak=0, mode="light", **rest) -> str:
    values = acts if acts is not None else [float(i) for i in range(len(tokens))]
    return span_html(tokens, values, feature_max=5.0, peak=peak, mode=mode, **rest)


def heats(html: str) -> list[bool]:
    return ["style" in cell for cell in read_safely(html).cells()]


@given(TOKENS, st.sampled_from(MODES), st.data())
def test_a_span_read_back_is_its_visible_text_and_nothing_is_injected(tokens, mode, data):
    acts = data.draw(st.lists(st.floats(allow_nan=True), min_size=len(tokens), max_size=len(tokens)))
    peak = data.draw(st.none() | st.integers(0, len(tokens) - 1))
    reader = read_safely(draw(tokens, acts, peak=peak, mode=mode))
    assert reader.text == "".join(map(visible_token, tokens))
    assert len(reader.cells()) == len(tokens)


@given(TOKENS, st.text(max_size=40), st.sampled_from(NASTY), st.booleans())
def test_rows_with_any_note_and_surroundings_inject_nothing(tokens, around, note, warn):
    row = SpanRow(tokens, [1.0] * len(tokens), 2.0, 0, before=around, after=around, note=note)
    reader = read_safely(spans_html([row, row], mode="dark", context="full", warn=warn))
    assert reader.text.count(visible(note)) >= 2 * bool(note)
    assert "".join(map(visible_token, tokens)).replace("↵", "") in reader.text.replace("↵", "").replace("\n", "")


@given(st.sampled_from(NASTY) | st.text(max_size=300), st.floats())
def test_a_pill_with_any_token_injects_nothing(token, act):
    assert read_safely(pill(token, act)).text


@given(st.sampled_from(NASTY) | st.text(), st.sampled_from(NASTY) | st.text())
def test_a_diff_read_without_its_removals_is_the_new_text_and_without_its_additions_the_old(old, new):
    html = word_diff_html(old, new)
    assert read_safely(html).text or not (old or new)
    for dropped, kept in (("removed", new), ("added", old)):
        rest = re.sub(rf'<span style="[^"]*" title="{dropped}">.*?</span>', "", html)
        assert Reader(rest).text == visible(kept)


def test_a_diff_marks_only_the_changed_words():
    html = word_diff_html("words about cats and dogs", "words about birds and dogs")
    assert re.findall(r'title="removed">([^<]*)<', html) == ["cats"]
    assert re.findall(r'title="added">([^<]*)<', html) == ["birds"]
    assert "line-through" in html
    assert "underline" in html


def test_the_heat_follows_the_formula():
    assert heat_opacity(5, 5) == pytest.approx(1)
    assert heat_opacity(1, 10) == pytest.approx(0.05 + 0.95 * 0.2787536)
    assert heat_opacity(1e-9, 5) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(("act", "feature_max"), [(0, 5), (-1, 5), (float("nan"), 5), (1, 0), (1, float("nan"))])
def test_a_silent_feature_has_no_heat(act, feature_max):
    assert heat_opacity(act, feature_max) == 0


def test_an_activation_above_the_known_maximum_is_full_heat():
    assert heat_opacity(50, 5) == heat_opacity(5, 5)


@pytest.mark.parametrize("mode", MODES)
def test_text_on_every_heat_keeps_its_contrast(mode):
    for step in range(1001):
        background, ink = cell_colours(step / 1000, mode)
        assert contrast(ink, background) >= MIN_CONTRAST, step


@pytest.mark.parametrize("mode", MODES)
def test_the_drawn_cells_hold_that_contrast_and_grow_with_the_activation(mode):
    html = draw(list("abcdef"), [0, 1, 2, 3, 4, 5], peak=5, mode=mode)
    found = re.findall(r"background:(#\w{6});color:(#\w{6})", html)
    assert all(contrast(ink, background) >= MIN_CONTRAST for background, ink in found)
    assert len({background for background, _ in found}) == 5


def test_only_active_tokens_are_coloured_and_only_the_peak_is_outlined():
    html = draw(["a", "b", "c"], [0.0, 2.0, -1.0], peak=1)
    assert heats(html) == [False, True, False]
    assert [cell.get("class") for cell in read_safely(html).cells()] == [None, "fv-peak", None]
    style = re.search(r"\n\.fv-peak\{([^}]*)\}", heat_style("light")).group(1)
    assert "font-weight:700" in style
    assert "1.5px" in style


def test_without_a_peak_nothing_is_outlined():
    assert "fv-peak" not in draw(["a", "b"], peak=None)


def test_the_tooltip_names_the_token_and_its_activation_to_three_digits():
    cells = read_safely(draw([" kill", "\n", ""], [3.14159, 0.0, 2.0])).cells()
    assert [cell["title"] for cell in cells] == ["␣kill · 3.14", "↵ · 0", "(part of a character) · 2.00"]


def test_blank_tokens_keep_their_width():
    assert visible_token("   ") == "\u00a0" * 3
    assert visible_token(" a") == " a"


def test_a_token_beyond_200_characters_is_cut_visibly():
    assert visible_token("x" * 10_000) == "x" * 200 + "…"
    assert len(draw(["x" * 10_000])) < 1000


def test_near_shows_five_tokens_either_side_of_the_peak_and_says_that_it_cut():
    tokens = [chr(ord("a") + i) for i in range(26)]
    reader = read_safely(draw(tokens, peak=10, context="near"))
    assert len(reader.cells()) == 2 * NEAR_TOKENS + 1
    assert reader.text == "…" + "".join(tokens[5:16]) + "…"


def test_a_window_shows_all_tokens_and_leaves_the_surroundings_out():
    assert read_safely(draw(["a", "b"], before="earlier ", after=" later")).text == "ab"


def test_full_shows_the_document_around_with_its_line_ends():
    reader = read_safely(draw(["a", "\n", "b"], context="full", before="one\ntwo ", after=" end"))
    assert reader.text == "one↵\ntwo a↵\nb end"


def test_a_huge_span_and_its_surroundings_are_bounded_around_the_peak():
    tokens = [f"t{i} " for i in range(50_000)]
    html = draw(tokens, peak=40_000, context="full", before="b" * 10**6, after="a" * 10**6)
    reader = read_safely(html)
    assert len(reader.cells()) == MAX_TOKENS + 1
    assert "t40000 " in reader.text
    assert len(html) < 200_000


def test_a_row_has_its_pill_with_the_peak_token_over_its_value():
    html = spans_html([SpanRow([" a", " kill"], [0.1, 4.0], 5.0, 1)], mode="light")
    assert re.search(r'<div class="fv-pill"[^>]*>␣kill<div class="fv-value">4.00</div>', html)
    assert "fv-pill" not in spans_html([SpanRow(["a"], [0.0], 5.0, None)], mode="light").split("</style>")[1]


def test_a_warned_row_is_blurred_until_hovered_or_focused_by_the_keyboard():
    row = SpanRow(["a"], [1.0], 1.0, 0)
    warned, open_ = spans_html([row], mode="light", warn=True), spans_html([row], mode="light")
    assert 'class="fv-spans fv-warn"' in warned
    assert 'tabindex="0"' in warned
    assert "fv-warn" not in open_.split("</style>")[1]
    assert '<div class="fv-row">' in open_
    css = heat_style("light")
    assert re.search(r"\.fv-warn \.fv-row>div\{[^}]*blur", css)
    assert re.search(r"\.fv-warn \.fv-row:hover>div,\.fv-warn \.fv-row:focus>div\{filter:none", css)


@pytest.mark.parametrize("mode", MODES)
def test_the_style_touches_only_its_own_classes_and_holds_no_tag(mode):
    css = Reader(heat_style(mode)).styles
    assert "<" not in css
    for selector in re.findall(r"([^{}]+)\{", css):
        assert all(part.strip().startswith(".fv-") for part in selector.split(","))


def test_tokens_without_their_activations_are_refused():
    with pytest.raises(InputError, match="2 tokens but 1 activations"):
        draw(["a", "b"], [1.0])


@pytest.mark.parametrize("peak", [-1, 2])
def test_a_peak_outside_the_span_is_refused(peak):
    with pytest.raises(InputError, match=f"peak {peak} is none of the span's 2 tokens"):
        draw(["a", "b"], peak=peak)


def test_only_tokens_that_fire_can_be_marked_and_only_the_peak_stops_the_tab_key():
    cells = read_safely(draw(["a", "b", "c"], [0.0, 2.5, 1.0], peak=1)).cells()
    assert [(cell.get("data-act"), cell.get("tabindex")) for cell in cells] == [(None, None), ("2.5", "0"), ("1", "-1")]
    assert float(read_safely(draw(["x"], [12345.678])).cells()[0]["data-act"]) == pytest.approx(12345.678, rel=1e-5)


def test_a_row_that_can_be_tried_carries_its_text_and_another_does_not():
    row = SpanRow([" a", ' "<b>"'], [0.1, 4.0], 5.0, 1, can_try=True)
    [button] = [a for _, a in read_safely(spans_html([row], mode="light")).seen if a.get("class") == "fv-try"]
    assert (button["data-try"], button["role"], button["tabindex"]) == ('a "<b>"', "button", "0")
    assert "data-try" not in spans_html([SpanRow(["a"], [1.0], 1.0, 0)], mode="light")


def test_where_something_else_fires_is_ringed_and_says_that_this_feature_is_silent():
    row = SpanRow(["a", "b", "c"], [0.0, 0.0, 0.0], 5.0, None, act=0.0, ring=2)
    reader = read_safely(spans_html([row], mode="light"))
    assert [cell.get("class") for cell in reader.cells()] == [None, None, "fv-ring"]
    assert reader.cells()[2]["title"] == "c · 0"
    assert '<div class="fv-pill" title="activation 0">0</div>' in spans_html([row], mode="light")
