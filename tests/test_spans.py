"""Spans: the streaming collector against twins that look at every document at once with plain loops."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from facviz import spans
from facviz.backbone import Renderer
from facviz.records import Document, Message, Split, TokenCodes, TokenizedDocument, split_of
from facviz.spans import SPLITS, SpanCollector, SpanRows, merge_rows, pool_maxima, span_columns, spans_by_feature
from facviz.store.schema import to_arrow
from facviz.testing.planted import STRENGTHS, WORDS

D_SAE = 4


@dataclass(frozen=True)
class Planned:
    """A document of a test: its tokens as (id, is content, feature activations) and its half."""

    doc_no: int
    tokens: tuple[tuple[int, bool, dict[int, float]], ...]
    split: Split


def tokenized(planned: Planned) -> TokenizedDocument:
    n = len(planned.tokens)
    return TokenizedDocument(
        doc_no=planned.doc_no,
        token_ids=np.array([t[0] for t in planned.tokens], np.int32).reshape(n),
        is_content=np.array([t[1] for t in planned.tokens], bool).reshape(n),
        char_start=np.full(n, -1, np.int32),
        char_end=np.full(n, -1, np.int32),
    )


def codes_of(batch: list[Planned]) -> TokenCodes:
    doc_index, position, offsets, feature_id, act = [], [], [0], [], []
    for i, planned in enumerate(batch):
        for p, (_, is_content, acts) in enumerate(planned.tokens):
            if not is_content:
                continue
            doc_index.append(i)
            position.append(p)
            feature_id += sorted(acts)
            act += [acts[f] for f in sorted(acts)]
            offsets.append(len(act))
    return TokenCodes(
        documents=tuple(map(tokenized, batch)),
        doc_index=np.array(doc_index, np.int64),
        position=np.array(position, np.int32),
        offsets=np.array(offsets, np.int64),
        feature_id=np.array(feature_id, np.int64),
        act=np.array(act, np.float32),
    )


def loop_maxima(planned: Planned) -> dict[int, tuple[float, int]]:
    """Twin of `pool_maxima` for one document: feature to (maximum, first position of it)."""
    best: dict[int, tuple[float, int]] = {}
    for position, (_, is_content, acts) in enumerate(planned.tokens):
        for feature, act in acts.items() if is_content else ():
            if feature not in best or act > best[feature][0]:
                best[feature] = (act, position)
    return best


def loop_spans(corpus: list[Planned], per_split: int, before: int, after: int) -> list[tuple]:
    """Twin of the collector: every window of every document, then the strongest distinct ones of each half."""
    windows: dict[tuple, dict[tuple, tuple]] = {}
    for planned in corpus:
        for feature, (act, peak) in loop_maxima(planned).items():
            start, end = peak, peak + 1
            while start > 0 and peak - start < before and planned.tokens[start - 1][1]:
                start -= 1
            while end < len(planned.tokens) and end - peak <= after and planned.tokens[end][1]:
                end += 1
            shape = (tuple(t[0] for t in planned.tokens[start:end]), peak - start)
            acts = tuple(t[2].get(feature, 0.0) for t in planned.tokens[start:end])
            span = (-act, planned.doc_no, peak, start, end, acts)
            of_group = windows.setdefault((feature, SPLITS.index(planned.split)), {})
            of_group[shape] = min(span, of_group.get(shape, span), key=lambda s: s[:2])
    return [
        (feature, split, -act, *rest)
        for (feature, split), found in sorted(windows.items())
        for act, *rest in sorted(found.values(), key=lambda s: s[:2])[:per_split]
    ]


def listed(rows: SpanRows) -> list[tuple]:
    """Rows in the twin's form."""
    return [
        (
            int(rows.feature_id[i]),
            int(rows.split[i]),
            float(rows.act[i]),
            int(rows.doc_no[i]),
            int(rows.peak_token[i]),
            int(rows.start_token[i]),
            int(rows.end_token[i]),
            tuple(rows.acts[i, : rows.end_token[i] - rows.start_token[i]].astype(float).tolist()),
        )
        for i in range(len(rows))
    ]


def feed(collector: SpanCollector, batch: list[Planned]) -> None:
    codes = codes_of(batch)
    collector.add(codes, pool_maxima(codes), [p.split for p in batch])


def batches(corpus: list[Planned], size: int) -> list[list[Planned]]:
    return [corpus[i : i + size] for i in range(0, len(corpus), size)]


acts_of_token = st.dictionaries(st.integers(0, D_SAE - 1), st.sampled_from([0.5, 1.0, 2.0]), max_size=3)
tokens = st.lists(st.tuples(st.integers(0, 2), st.booleans(), acts_of_token), max_size=7)


@st.composite
def corpora(draw, max_docs: int = 12) -> list[Planned]:
    contents = draw(st.lists(st.tuples(tokens, st.sampled_from(SPLITS)), max_size=max_docs))
    numbers = draw(st.permutations(range(len(contents))))
    return [Planned(n, tuple(tokens), split) for n, (tokens, split) in zip(numbers, contents)]


def random_corpus(rng_seed: int, n_docs: int = 120, d_sae: int = 12) -> list[Planned]:
    rng = np.random.default_rng(rng_seed)
    corpus = []
    for doc_no in range(n_docs):
        tokens = [
            (
                int(rng.integers(5)),
                bool(rng.random() < 0.85),
                {int(f): float(rng.integers(1, 9)) / 4 for f in rng.integers(0, d_sae, rng.integers(4))},
            )
            for _ in range(rng.integers(1, 30))
        ]
        corpus.append(Planned(doc_no, tuple(tokens), SPLITS[int(rng.integers(2))]))
    return corpus


@given(corpora())
def test_maxima_equal_a_loop_over_every_token_and_feature(corpus):
    maxima = pool_maxima(codes_of(corpus))
    expected = [
        (i, feature, *loop_maxima(planned)[feature])
        for i, planned in enumerate(corpus)
        for feature in sorted(loop_maxima(planned))
    ]
    found = zip(maxima.doc_index, maxima.feature_id, maxima.max_act, maxima.peak_token)
    assert [tuple(x.item() for x in row) for row in found] == expected


def test_maxima_of_no_documents_are_empty_and_typed():
    maxima = pool_maxima(codes_of([]))
    assert [len(getattr(maxima, f.name)) for f in dataclasses.fields(maxima)] == [0, 0, 0, 0]
    assert (maxima.doc_index.dtype, maxima.feature_id.dtype) == (np.int64, np.int32)


@settings(max_examples=200)
@given(corpora(), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), st.integers(1, 5), st.sampled_from([0, 5]))
def test_streamed_spans_equal_a_look_at_all_documents_at_once(corpus, per_split, before, after, size, compact_rows):
    with patch.object(spans, "COMPACT_ROWS", compact_rows):
        collector = SpanCollector(D_SAE, per_split=per_split, before=before, after=after)
        for batch in batches(corpus, size):
            feed(collector, batch)
        assert listed(collector.rows()) == loop_spans(corpus, per_split, before, after)


@pytest.mark.parametrize("rng_seed", range(4))
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_order_and_size_of_batches_change_nothing(rng_seed, size):
    corpus = random_corpus(rng_seed)
    expected = loop_spans(corpus, 3, 4, 3)
    shuffled = [corpus[i] for i in np.random.default_rng(rng_seed).permutation(len(corpus))]
    with patch.object(spans, "COMPACT_ROWS", 40):
        for order in (corpus, corpus[::-1], shuffled):
            collector = SpanCollector(12, per_split=3, before=4, after=3)
            for batch in batches(order, size):
                feed(collector, batch)
            assert listed(collector.rows()) == expected


positive = st.floats(0, exclude_min=True, width=32, allow_subnormal=True)
few = st.integers(0, 3)


@given(st.lists(st.tuples(few, few, positive | st.sampled_from([1.0, 2.0])), max_size=30), st.integers(1, 4))
def test_the_strongest_distinct_rows_equal_a_plain_sort_for_any_positive_activation(rows, per_group):
    group, window_hash, act = (np.array(c) for c in zip(*rows)) if rows else (np.empty(0),) * 3
    columns = group.astype(np.int64), act.astype(np.float32), np.arange(len(rows), dtype=np.int32)
    found = spans.strongest(*columns, window_hash.astype(np.uint64), per_group).tolist()
    expected: list[int] = []
    kept: list[tuple[int, int]] = []
    for i in sorted(range(len(rows)), key=lambda i: (rows[i][0], -rows[i][2], i)):
        if rows[i][:2] not in kept and sum(g == rows[i][0] for g, _ in kept) < per_group:
            kept.append(rows[i][:2])
            expected.append(i)
    assert found == expected


@given(corpora(), st.integers(1, 4), st.integers(1, 4))
def test_parts_collected_apart_and_merged_equal_one_pass(corpus, per_split, n_parts):
    parts = []
    for k in range(n_parts):
        collector = SpanCollector(D_SAE, per_split=per_split, before=2, after=2)
        feed(collector, corpus[k::n_parts])
        parts.append(collector.rows())
    assert listed(merge_rows(parts[::-1], per_split)) == loop_spans(corpus, per_split, 2, 2)


def test_looking_at_the_rows_midway_does_not_disturb_the_stream():
    corpus = random_corpus(7)
    collector = SpanCollector(12, per_split=2, before=3, after=3)
    for batch in batches(corpus, 10):
        feed(collector, batch)
        first = listed(collector.rows())
        assert listed(collector.rows()) == first
    assert first == loop_spans(corpus, 2, 3, 3)


def test_active_tokens_are_counted_over_the_whole_stream():
    corpus = random_corpus(3)
    collector = SpanCollector(12, per_split=1, before=0, after=0)
    for batch in batches(corpus, 9):
        feed(collector, batch)
    content = [acts for planned in corpus for _, is_content, acts in planned.tokens if is_content]
    assert collector.n_tokens == len(content)
    assert collector.n_active_tokens.tolist() == [sum(f in acts for acts in content) for f in range(12)]


def test_a_stream_without_activity_has_no_spans():
    collector = SpanCollector(D_SAE, per_split=2, before=1, after=1)
    feed(collector, [Planned(0, ((1, True, {}), (1, False, {})), Split.EXPLAIN)])
    feed(collector, [])
    assert listed(collector.rows()) == []
    assert collector.rows().acts.shape == (0, 3)
    assert collector.n_tokens == 1


@given(corpora(), st.integers(0, 3), st.integers(0, 3))
def test_windows_hold_their_peak_and_never_leave_its_run_of_content(corpus, before, after):
    collector = SpanCollector(D_SAE, per_split=3, before=before, after=after)
    feed(collector, corpus)
    by_number = {p.doc_no: p for p in corpus}
    for _, _, act, doc_no, peak, start, end, acts in listed(collector.rows()):
        assert 0 <= start <= peak < end <= len(by_number[doc_no].tokens)
        assert all(is_content for _, is_content, _ in by_number[doc_no].tokens[start:end])
        assert peak - start <= before
        assert end - peak - 1 <= after
        assert acts[peak - start] == act == max(acts)


def test_equal_windows_are_kept_once_and_the_smallest_document_number_stands_for_them():
    same = ((1, True, {0: 1.0}), (2, True, {}))
    other = ((1, True, {0: 1.0}), (3, True, {}))
    corpus = [Planned(n, same, Split.SCORE) for n in (5, 2, 9)] + [Planned(7, other, Split.SCORE)]
    collector = SpanCollector(D_SAE, per_split=3, before=1, after=1)
    feed(collector, corpus)
    assert collector.rows().doc_no.tolist() == [2, 7]


def test_the_same_tokens_around_another_peak_are_another_window():
    first = Planned(0, ((1, True, {0: 2.0}), (1, True, {})), Split.SCORE)
    second = Planned(1, ((1, True, {}), (1, True, {0: 2.0})), Split.SCORE)
    collector = SpanCollector(D_SAE, per_split=3, before=1, after=1)
    feed(collector, [first, second])
    assert collector.rows().doc_no.tolist() == [0, 1]


def test_a_tie_that_arrives_late_still_goes_to_the_smaller_document_number():
    corpus = [Planned(n, ((n, True, {0: 1.0}),), Split.SCORE) for n in range(10)]
    with patch.object(spans, "COMPACT_ROWS", 0):
        collector = SpanCollector(D_SAE, per_split=3, before=1, after=1)
        for planned in reversed(corpus):
            feed(collector, [planned])
    assert collector.rows().doc_no.tolist() == [0, 1, 2]


def test_activations_too_large_for_half_precision_are_capped_in_the_window_only():
    collector = SpanCollector(D_SAE, per_split=1, before=1, after=1)
    feed(collector, [Planned(0, ((1, True, {0: 1e6}), (2, True, {0: 1.0})), Split.SCORE)])
    rows = collector.rows()
    assert rows.act.tolist() == [1e6]
    assert rows.acts.tolist() == [[65504.0, 1.0, 0.0]]


def test_defect_21_the_span_contains_the_token_that_fires_also_at_position_zero_of_the_content(planted_encoder):
    documents = [Document.from_text("apple bread cloud"), Document.from_text("bread cloud apple")]
    found = spans_of(planted_encoder, documents, before=1, after=1)
    assert {(s.doc_no, s.tokens, s.peak, s.acts) for s in found[WORDS.index("apple")]} == {
        (0, ("apple", " bread"), "apple", (2.0, 0.0)),
        (1, (" cloud", " apple"), " apple", (0.0, 2.0)),
    }


def spans_of(encoder, documents, *, before=16, after=15, per_split=10):
    """The whole way from texts to span records, as a stage would walk it."""
    collector = SpanCollector(encoder.d_sae, per_split=per_split, before=before, after=after)
    rendered, n_docs = {}, np.zeros(encoder.d_sae, np.int64)
    for codes in encoder.stream(enumerate(documents)):
        maxima = pool_maxima(codes)
        n_docs += np.bincount(maxima.feature_id, minlength=encoder.d_sae)
        collector.add(codes, maxima, [split_of(documents[d.doc_no].doc_id) for d in codes.documents])
        rendered |= {d.doc_no: (d, documents[d.doc_no]) for d in codes.documents}
    return spans_by_feature(table_rows(collector.rows(), rendered, n_docs))


def table_rows(rows: SpanRows, rendered, n_docs) -> list[dict]:
    columns = span_columns(rows, rendered, n_docs) | {"sae_id": "s", "dataset_id": "d"}
    return to_arrow("span", columns, len(rows)).to_pylist()


def test_planted_spans_show_the_words_their_strengths_and_the_halves_of_their_documents(planted_encoder):
    rng = np.random.default_rng(0)
    documents = [Document.from_text(" ".join(rng.choice(WORDS, 12))) for _ in range(60)]
    found = spans_of(planted_encoder, documents, before=2, after=2, per_split=4)
    for i, word in enumerate(WORDS):
        halves: dict[Split, list] = {s: [x for x in found[i] if x.split is s] for s in SPLITS}
        assert [[s.rank for s in halves[h]] for h in SPLITS] == [[0, 1, 2, 3]] * 2
        for span in found[i]:
            assert (span.peak.strip(), span.act) == (word, STRENGTHS[word])
            assert span.acts == tuple(STRENGTHS[word] if t.strip() == word else 0.0 for t in span.tokens)
            assert span.text == documents[span.doc_no].text[span.start_char : span.end_char]
            assert split_of(documents[span.doc_no].doc_id) is span.split
        assert not {s.doc_no for s in halves[Split.EXPLAIN]} & {s.doc_no for s in halves[Split.SCORE]}


def test_quantiles_count_firing_documents_over_both_halves():
    acts = {0: 8.0, 1: 4.0, 2: 2.0, 3: 1.0}
    corpus = [Planned(n, ((n + 1, True, {0: a}),), SPLITS[n % 2]) for n, a in acts.items()]
    collector = SpanCollector(1, per_split=1, before=0, after=0)
    feed(collector, corpus)
    rendered = {p.doc_no: (tokenized(p), Document.from_text("x")) for p in corpus}
    rows = table_rows(collector.rows(), rendered, np.array([4]))
    assert [(r["doc_no"], r["quantile"], r["rank"]) for r in rows] == [(0, 1.0, 0), (1, 0.75, 0)]


def byte_tokenizer():
    """Every byte is a token, so one emoji is four of them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.fixture(scope="module")
def byte_renderer():
    return Renderer(byte_tokenizer(), max_tokens=64, roles=("text",))


@settings(max_examples=100)
@given(st.lists(st.text("aé😀🇫🇷 \n", max_size=12), min_size=1, max_size=4), st.integers(0, 5), st.integers(0, 5))
def test_token_pieces_join_to_the_text_of_the_span_even_inside_shared_characters(byte_renderer, texts, before, after):
    documents = [Document.from_text(text, role="text") for text in texts]
    rendered = byte_renderer.render_many(list(enumerate(documents)))
    planned = []
    for r in rendered:
        of_tokens = enumerate(zip(r.token_ids.tolist(), r.is_content.tolist()))
        planned.append(Planned(r.doc_no, tuple((t, c, {p % 3: 1.0 + p}) for p, (t, c) in of_tokens), Split.SCORE))
    collector = SpanCollector(3, per_split=9, before=before, after=after)
    feed(collector, planned)
    by_number = {r.doc_no: (r, documents[r.doc_no]) for r in rendered}
    for row in table_rows(collector.rows(), by_number, np.full(3, len(texts))):
        text = documents[row["doc_no"]].text
        assert "".join(row["tokens"]) == text[row["start_char"] : row["end_char"]]
        assert len(row["tokens"]) == len(row["acts"]) == row["end_token"] - row["start_token"]
        assert row["start_token"] <= row["peak_token"] < row["end_token"]


def test_a_shared_character_goes_to_the_first_of_its_tokens(byte_renderer):
    [document] = byte_renderer.render_many([(0, Document.from_text("a😀b", role="text"))])
    pieces, starts = spans.token_pieces(document, "a😀b")
    assert pieces == ["", "😀", "", "", "", "b"]
    assert starts.tolist() == [-1, 1, 2, 2, 2, 2]


def test_offsets_that_overlap_never_tear_a_span_from_its_text():
    planned = Planned(0, tuple((i, True, {0: 3.0 - i}) for i in range(3)), Split.SCORE)
    document = dataclasses.replace(tokenized(planned), char_start=np.array([0, 1, 2]), char_end=np.array([3, 2, 5]))
    collector = SpanCollector(1, per_split=1, before=0, after=1)
    feed(collector, [planned])
    [row] = table_rows(collector.rows(), {0: (document, Document.from_text("abcde"))}, np.array([1]))
    assert (row["tokens"], row["start_char"], row["end_char"]) == (["abc", ""], 0, 3)


def test_the_pieces_of_each_message_join_to_its_content(planted_backbone):
    renderer = Renderer(planted_backbone.tokenizer, max_tokens=64, roles=("user", "assistant"))
    document = Document((Message("user", "apple  drum"), Message("assistant", "cloud tiger")))
    rendered = renderer.render(document)
    pieces, _ = spans.token_pieces(rendered, document.text)
    runs = np.split(np.arange(len(pieces)), np.flatnonzero(np.diff(rendered.is_content)) + 1)
    joined = ["".join(pieces[i] for i in run) for run in runs]
    assert [j for j in joined if j] == ["apple  drum", "cloud tiger"]


def n_lines_run(d_sae: int, n_active: int) -> int:
    """Lines of the module that run while two batches are collected and tabled."""
    chosen = np.linspace(0, d_sae - 1, n_active).astype(int).tolist()
    corpus = [Planned(n, ((n, True, dict.fromkeys(chosen, 1.0 + n)),) * 2, SPLITS[n % 2]) for n in range(4)]
    codes = [codes_of(b) for b in batches(corpus, 2)]
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if frame.f_code.co_filename != spans.__file__:
            return None
        count += event == "line"
        return trace

    collector = SpanCollector(d_sae, per_split=2, before=1, after=1)
    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        for batch in codes:
            collector.add(batch, pool_maxima(batch), [Split.EXPLAIN, Split.SCORE])
        rows = collector.rows()
        rendered = {p.doc_no: (tokenized(p), Document.from_text("x")) for p in corpus}
        span_columns(rows, rendered, np.full(d_sae, 4))
    finally:
        sys.settrace(previous)
    assert len(rows) == 4 * n_active
    return count


def test_no_python_line_runs_once_per_feature_even_with_65_536_of_them():
    assert n_lines_run(16, 2) == n_lines_run(65_536, 2) == n_lines_run(65_536, 3000)


def test_what_is_held_stays_bounded_by_features_times_spans_kept():
    rng = np.random.default_rng(0)
    d_sae, per_split = 65_536, 2
    active = [0, 1, 2, 40_000, 65_535]
    with patch.object(spans, "COMPACT_ROWS", 50):
        collector = SpanCollector(d_sae, per_split=per_split, before=1, after=1)
        for k in range(60):
            acts = [{f: float(rng.random()) for f in active} for _ in range(10)]
            feed(collector, [Planned(10 * k + i, ((10 * k + i, True, a),), SPLITS[i % 2]) for i, a in enumerate(acts)])
            assert sum(map(len, collector._kept)) <= 50 + 10 * len(active)
    assert np.bincount(collector.rows().group).max() == per_split
    assert sorted(set(collector.rows().feature_id.tolist())) == active
