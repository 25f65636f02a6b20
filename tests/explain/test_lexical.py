"""Lexical explanations against planted spans and a loop twin."""

import math
import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facviz.errors import InputError
from facviz.explain.lexical import (
    AUTHOR,
    MAX_TEXT_CHARS,
    NO_PATTERN,
    explain_lexically,
    feature_keywords,
)
from facviz.explain.words import MAX_WORD_CHARS, display, is_spelled, is_word, plain, words_to_use
from facviz.records import ExplanationOutcome, Span, Split

FILLER = [f"filler{i}" for i in range(3000)]


def make_span(feature_id, tokens, peak, *, rank=0, doc_no=0, start_token=40, start_char=100, split=Split.EXPLAIN):
    text_end = start_char + sum(map(len, tokens))
    end_token = start_token + len(tokens)
    acts = tuple(2.0 if i == peak else 0.0 for i in range(len(tokens)))
    return Span(
        feature_id, rank, 1.0, split, doc_no, start_token, end_token, start_char, text_end, start_token + peak, 2.0,
        tuple(tokens), acts,
    )  # fmt: skip


def around(rng, feature_id, peak_tokens, *, before=(), after=(), at=None, **kw):
    """A span of random filler with the given tokens in the middle, the peak on the first of `peak_tokens`."""
    left = [f" {rng.choice(FILLER)}" for _ in range(8)] + list(before)
    right = list(after) + [f" {rng.choice(FILLER)}" for _ in range(8)]
    start = rng.randrange(5000) if at is None else at - len(left)
    return make_span(feature_id, [*left, *peak_tokens, *right], len(left), start_token=start, **kw)


def crowd(rng, n_features=30, n_spans=10, first_id=1000):
    """Features without any pattern: what the others are compared with."""
    return {
        f: [around(rng, f, [f" {rng.choice(FILLER)}"], before=[" the"], after=[" of"]) for _ in range(n_spans)]
        for f in range(first_id, first_id + n_features)
    }


def explain(spans, *, output=None, min_score=0.08):
    return {
        e.feature_id: e for e in explain_lexically(spans, output_tokens=output or {}, min_score=min_score)
    }  # fmt: skip


def alone(feature_spans, *, output=None, min_score=0.08):
    """The explanation of feature 1 among a crowd."""
    return explain({1: feature_spans, **crowd(random.Random(7))}, output=output and {1: output}, min_score=min_score)[1]


@pytest.fixture
def rng():
    return random.Random(0)


def test_a_planted_feature_is_described_by_its_words_neighbours_and_output(rng):
    spans = [around(rng, 1, [" kill"], before=[" how", " to"], after=[" someone"]) for _ in range(7)]
    spans += [around(rng, 1, [" murder"], after=[" someone"]) for _ in range(3)]
    found = alone(spans, output=[" killing", "Dead", " killing"])
    assert (
        found.text == 'fires on "kill", "murder"; after "how to"; before "someone"; promotes "killing", "dead"'
    )  # fmt: skip
    assert found.outcome is ExplanationOutcome.EXPLAINED
    assert (found.author_kind, found.author, found.prompt) == ("lexical", AUTHOR, "")
    assert found.scores["n_spans"] == 10
    # (7 − 1)/10 + (3 − 1)/10, for neither word occurs elsewhere.
    assert found.scores["lexical_strength"] == pytest.approx(0.8)


def test_the_word_that_contains_the_peak_piece_is_the_peak_word(rng):
    cuts = [([" "], ["mur", "der", "ous"]), ([" mur"], ["der", "ous", "!"]), ([" (mur", "der"], ["ous"])]
    spans = [around(rng, 1, peak, before=before) for before, peak in cuts * 3]
    assert alone(spans).text == 'fires on "murderous"'


def test_a_feature_with_random_peaks_has_no_clear_pattern(rng):
    found = alone([around(rng, 1, [f" word{i}"]) for i in range(10)])
    assert found.outcome is ExplanationOutcome.CANNOT_TELL
    assert found.text == NO_PATTERN
    assert found.scores["lexical_strength"] == 0


def test_hardly_any_patternless_feature_is_explained(rng):
    outcomes = [e.outcome for e in explain(crowd(rng, n_features=300)).values()]
    assert outcomes.count(ExplanationOutcome.CANNOT_TELL) >= 290


def test_a_feature_at_the_start_of_every_text_says_so(rng):
    spans = [
        make_span(1, [f"Word{i}", *(f" {rng.choice(FILLER)}" for _ in range(9))], 0, start_token=30, start_char=0)
        for i in range(10)
    ]
    found = alone(spans)
    assert found.text == "fires at the start of the text"
    assert found.scores["lexical_strength"] == pytest.approx(0.9)


def test_white_space_before_the_first_word_is_still_the_start(rng):
    spans = [make_span(1, ["\n", f"W{i}", " x", " y"], 1, start_token=i, start_char=0) for i in range(10)]
    assert alone(spans).text.startswith("fires at the start of the text")


def test_a_feature_at_the_end_of_every_text_says_so(rng):
    spans = [
        make_span(1, [*(f" {rng.choice(FILLER)}" for _ in range(9)), f" word{i}"], 9, start_token=rng.randrange(999))
        for i in range(10)
    ]
    assert alone(spans).text == "fires at the end of the text"


def test_windows_of_one_token_are_at_neither_end():
    spans = {f: [make_span(f, [f" w{f}x{i}"], 0, start_token=i * 7 + f) for i in range(10)] for f in range(5)}
    assert {e.text for e in explain(spans).values()} == {NO_PATTERN}


def test_a_feature_at_a_constant_token_says_which(rng):
    spans = [around(rng, 1, [f" word{i}"], at=37) for i in range(10)]
    assert alone(spans).text == "fires at token 37"


@pytest.mark.parametrize(
    ("peaks", "described"),
    [
        ([","], 'the token ","'),
        (["\n", "\n\n", "\r\n"], "the newline"),
        ([" "], "the space"),
        (["\t"], "the tab"),
        (["1", " 42", "7"], "a number"),
        (["🎉"], 'the token "🎉"'),
        (["\x07"], r'the token "\x07"'),
        (["\u202e"], r'the token "\u202e"'),
    ],
    ids=["comma", "newline", "space", "tab", "number", "emoji", "control", "bidi"],
)
def test_a_peak_without_letters_is_described_not_quoted(rng, peaks, described):
    spans = [around(rng, 1, [peaks[i % len(peaks)]], before=[f" w{i}"], after=[f"z{i}"]) for i in range(9)]
    assert alone(spans).text == f"fires on {described}"


def test_the_word_before_a_punctuation_peak_is_context(rng):
    spans = [around(rng, 1, ["?"], before=[" real", "ly"], after=[]) for _ in range(9)]
    assert alone(spans).text == 'fires on the token "?"; after "really"'


def test_words_that_surround_every_feature_are_not_context(rng):
    spans = [around(rng, 1, [" kill"], before=[" the"], after=[" of"]) for _ in range(10)]
    assert alone(spans).text == 'fires on "kill"'


def test_a_neighbour_on_either_side_is_near(rng):
    sides = [{"before": [" bomb"]}, {"after": [" bomb"]}]
    assert alone([around(rng, 1, [f" w{i}"], **sides[i % 2]) for i in range(10)]).text == 'fires near "bomb"'


def test_of_equally_frequent_neighbours_the_nearer_comes_first(rng):
    far = [(f" x{rng.random()}", " ant") for _ in range(10)]
    spans = [around(rng, 1, [" kill"], after=[" zebra", *words]) for words in far]
    assert alone(spans).text == 'fires on "kill"; before "zebra", "ant"'


def test_nearness_does_not_outweigh_being_everywhere(rng):
    # Weight 10/√4 for the far word against 4/√1 for the near one.
    spans = [
        around(rng, 1, [" kill"], after=[" near" if i < 4 else f" n{i}", f" a{i}", f" b{i}", " far"]) for i in range(10)
    ]
    assert alone(spans).text == 'fires on "kill"; before "far", "near"'


def test_a_word_shared_by_many_features_still_beats_words_seen_once(rng):
    spans = {f: [around(rng, f, [" kill"]) for _ in range(8)] + [around(rng, f, [f" odd{f}{i}"]) for i in range(2)]
             for f in range(5)}  # fmt: skip
    texts = {explanation.text for f, explanation in explain({**spans, **crowd(rng, 200)}).items() if f < 5}
    assert texts == {'fires on "kill"'}


def test_a_common_peak_word_is_discounted():
    spans = {f: [make_span(f, [" a", f" b{i}"], 0, start_token=i + 99 * f) for i in range(10)] for f in range(20)}
    found = explain(spans)
    assert {e.outcome for e in found.values()} == {ExplanationOutcome.CANNOT_TELL}


@given(st.text(max_size=60))
def test_a_plain_word_is_told_from_a_description(raw):
    shown = display("".join(raw.split()))
    assert is_spelled(plain(shown)) == (is_word(shown) or not shown)


def test_words_to_use_are_words_and_for_marks_the_pieces_that_they_stand_in(rng):
    def at(*tokens, peak):
        return around(rng, 1, [tokens[peak]], before=list(tokens[:peak]), after=list(tokens[peak + 1 :]))

    rare, often = at(" i", "++", ";", " next", peak=1), at(" =", " j", "++", " +", peak=2)
    assert words_to_use(['the token "++"', "int"], [rare, often, often]) == ("j++", "i++;", "int")
    assert words_to_use(["kill"], [rare]) == ("kill",)
    assert words_to_use(['the token "--"', "the newline"], [rare, at(" a", "\n", "b", peak=1)]) == ()
    assert words_to_use(['the token "><"'], [at(" x", "<br", " /", "><", "br", " />", peak=3)]) == ("/><br",)
    assert words_to_use(['the token "。"'], [at("鏡が割れた", "。", "見て", peak=1)]) == ("。",)
    assert words_to_use(['the token "+"'], [at(" " + "a" * 30, "+", "b" * 30, peak=1)]) == ()
    assert words_to_use([], [rare]) == ()


def test_a_single_span_is_no_pattern_but_gives_keywords(rng):
    spans = {1: [around(rng, 1, [" kill"])], **crowd(rng)}
    assert explain(spans)[1].outcome is ExplanationOutcome.CANNOT_TELL
    assert feature_keywords(spans, output_tokens={})[0].peak == ("kill",)
    assert explain(spans, min_score=0.0)[1].text == 'fires on "kill"'


def test_keywords_are_plain_words_in_the_order_of_the_explanation(rng):
    spans = [around(rng, 1, [" kill"], before=[" how", " to"], after=[","]) for _ in range(10)]
    keywords = feature_keywords({1: spans, **crowd(rng)}, output_tokens={1: [" killing", "\n"]})[0]
    assert keywords.feature_id == 1
    assert keywords.peak == ("kill",)
    assert keywords.context == ("how to",)
    assert keywords.output == ("killing", "the newline")


def test_a_feature_alone_is_explained_too(rng):
    found = explain({5: [around(rng, 5, [" kill"]) for _ in range(10)]})
    assert found[5].text == 'fires on "kill"'


def test_nothing_gives_nothing_and_a_feature_without_spans_cannot_tell():
    assert explain({}) == {}
    found = explain({3: []}, output={3: ["dead"]}, min_score=0.0)[3]
    assert found.outcome is ExplanationOutcome.CANNOT_TELL
    assert found.scores == {"lexical_strength": 0.0, "n_spans": 0.0}


def test_empty_tokens_are_passed_over(rng):
    spans = [make_span(1, ["", " so", "", " kill", "", ""], 3) for _ in range(5)]
    assert '"kill"' in alone(spans).text
    blank = [make_span(1, ["", ""], 0, start_token=i) for i in range(5)]
    assert explain({1: blank}, min_score=0.0)[1].outcome is ExplanationOutcome.CANNOT_TELL


def test_unicode_words_are_kept_whole(rng):
    for tokens, word in [
        ([" naï", "veté"], "naïveté"), ([" नमस्", "ते"], "नमस्ते"), (["猫"], "猫"), ([" ÉTÉ", "»"], "été")
    ]:  # fmt: skip
        assert alone([around(rng, 1, tokens) for _ in range(6)]).text == f'fires on "{word}"'


def test_a_lone_surrogate_can_be_written_as_utf8(rng):
    found = alone([around(rng, 1, [" a\ud800b"]) for _ in range(6)])
    assert found.text.encode("utf-8") == b'fires on "a\\ud800b"'


def test_long_words_and_texts_are_bounded(rng):
    def long(seed):
        return f" {chr(97 + seed) * 300}"

    spans = [around(rng, 1, [long(i % 4)], before=[long(5), long(6)], after=[long(7), long(8)]) for i in range(12)]
    found = alone(spans, output=[long(9), long(10), long(11), long(12)])
    assert len(found.text) <= MAX_TEXT_CHARS
    assert found.text.startswith(f'fires on "{"a" * (MAX_WORD_CHARS - 1)}…", ')
    assert found.text.endswith('…"')
    keywords = feature_keywords({1: spans}, output_tokens={1: [long(9)]})[0]
    assert max(map(len, keywords.peak + keywords.context + keywords.output)) == MAX_WORD_CHARS


def test_defect_23_an_explanation_with_a_period_keeps_its_whole_text(rng):
    spans = [around(rng, 1, [" U", ".", "S", "."], before=[" mr", "."], after=[" st", ".", " john"]) for _ in range(8)]
    found = alone(spans, output=["e.g.", "3.5", " v2.0"])
    expected = 'fires on "u.s"; after "mr"; before "st john"; promotes "e.g", a number, "v2.0"'
    assert found.text == expected


def test_held_out_spans_are_refused(rng):
    spans = {1: [around(rng, 1, [" kill"]), around(rng, 1, [" kill"], split=Split.SCORE)]}
    with pytest.raises(InputError, match="held out"):
        explain(spans)
    with pytest.raises(InputError, match="held out"):
        feature_keywords(spans, output_tokens={})


def test_a_span_that_misses_its_peak_is_refused():
    with pytest.raises(InputError, match="peak token"):
        explain({1: [make_span(1, [" a", " b"], 2)]})


def test_explanations_do_not_depend_on_the_order_of_features(rng):
    spans = crowd(rng, 12)
    for f in list(spans)[:6]:
        spans[f] = [around(rng, f, [f" peak{f}"], before=[" same"]) for _ in range(10)]
    assert explain(spans) == explain(dict(reversed(spans.items())))


# The loop twin: one feature at a time, straight from the definition. ------------------------------------------------


def twin_words(span):
    """(display form, is peak) of the span's words."""
    peak, runs = span.peak_token - span.start_token, []
    for i, token in enumerate(span.tokens):
        previous = span.tokens[i - 1] if i else ""
        is_alone = not display(span.tokens[peak]).startswith('"') and i in (peak, peak + 1)
        if not runs or token[:1].isspace() or previous[-1:].isspace() or is_alone:
            runs.append(([], []))
        runs[-1][0].append(token)
        runs[-1][1].append(i == peak)
    return [(display("".join(tokens)), any(peaks)) for tokens, peaks in runs]


def twin_context(span):
    """Nearest distance of each word and phrase within eight words of the peak word, on one side."""
    words = twin_words(span)
    at = next(i for i, (_, is_peak) in enumerate(words) if is_peak)
    nearest = defaultdict(list)
    for i, (word, _) in enumerate(words):
        if word not in ("", "the space", "the tab") and 0 < abs(i - at) <= 8:
            nearest[word].append(abs(i - at))
            if i > 0 and i - 1 != at and abs(i - 1 - at) <= 8 and word[0] == '"' and words[i - 1][0][:1] == '"':
                nearest[f"{words[i - 1][0][:-1]} {word[1:]}"].append(min(abs(i - at), abs(i - 1 - at)))
    return {term: min(distances) for term, distances in nearest.items()}


def twin_rank(fields, feature):
    """(term, excess) by falling weight, from one dictionary term → weight per span and feature."""
    n_own = len(fields[feature])
    n_others = sum(map(len, fields.values())) - n_own
    own = Counter(term for terms in fields[feature] for term in terms)
    others = Counter(term for f, spans in fields.items() if f != feature for terms in spans for term in terms)
    ranked = []
    for term, support in own.items():
        tf = sum(terms.get(term, 0) for terms in fields[feature])
        weight = tf * math.log(1 + support / n_own / ((others[term] + 1) / (n_others + 1)))
        rate = others[term] / n_others
        excess = (support - 1) / n_own - rate - 2 * math.sqrt(rate * (1 - rate) / n_own)
        is_phrase = term.startswith('"') and " " in term
        ranked.append((-round(weight, 9), not is_phrase, term, excess))
    return [(term, excess) for *_, term, excess in sorted(ranked)]


def test_two_thousand_features_equal_a_loop_over_a_handful():
    rng = random.Random(3)
    vocabulary = [f"w{i}" for i in range(400)]
    weights = [1 / (i + 1) for i in range(400)]

    def random_span(f):
        words = rng.choices(vocabulary, weights, k=20)
        words[10] = f"p{(f + rng.choice([0, 0, 0, 1, 2])) % 600}"
        if rng.random() < 0.6:
            words[9] = f"w{f % 50 + 300}"
        tokens = [
            piece for word in words for piece in ([f" {word[0]}", word[1:]] if rng.random() < 0.5 else [f" {word}"])
        ]
        peak = next(i for i, token in enumerate(tokens) if token.strip().startswith("p"))
        return make_span(f, tokens + rng.choices([".", ",", "\n"], k=2), peak, start_token=rng.randrange(10**6))

    spans = {f: [random_span(f) for _ in range(10)] for f in range(2000)}
    found = explain_lexically(spans, output_tokens={}, min_score=0.08)
    keywords = feature_keywords(spans, output_tokens={})
    peaks = {f: [{w: 1.0 for w, is_peak in twin_words(s) if is_peak} for s in group] for f, group in spans.items()}
    near = {f: [{t: d**-0.5 for t, d in twin_context(s).items()} for s in group] for f, group in spans.items()}
    assert [e.feature_id for e in found] == list(spans)
    for f in (0, 1, 599, 600, 1234, 1999):
        patterns = [(term, excess) for term, excess in twin_rank(peaks, f) if excess > 0][:4]
        candidates = [(term, excess) for term, excess in twin_rank(near, f) if excess > 0.2][:12]
        chosen, used = [], {term[1:-1] for term, _ in patterns}
        for term, excess in candidates:
            if len(chosen) < 3 and used.isdisjoint(term[1:-1].split()):
                chosen.append((term, excess))
                used |= set(term[1:-1].split())
        assert patterns
        assert keywords[f].peak == tuple(term[1:-1] for term, _ in patterns)
        assert keywords[f].context == tuple(term[1:-1] for term, _ in chosen)
        strength = max(sum(e for _, e in patterns), 0.5 * max((e for _, e in chosen), default=0))
        assert found[f].scores["lexical_strength"] == pytest.approx(strength)
    assert any(keywords[f].context for f in (0, 1, 599, 600, 1234, 1999))
