"""Where features fire: per-document maxima, per-feature statistics and the strongest spans, in one streaming pass.

Everything is whole-array NumPy over token codes, so 65,536 features cost no Python loop; memory is bounded by
features × spans kept, never by the corpus. A `SpanRows` of one shard can be saved and merged, which is how a killed
pass resumes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from facviz.records import Document, Span, Split, TokenCodes, TokenizedDocument

SPLITS = (Split.EXPLAIN, Split.SCORE)
_MIXER = np.uint64(0x9E3779B97F4A7C15)  # odd and far from round, so that groups do not meet in a hash
COMPACT_ROWS = 200_000


@dataclass(frozen=True, slots=True)
class DocMaxima:
    """`g_i(x)` of the documents of one batch: one row per (document, feature) that fires, features ascending."""

    doc_index: npt.NDArray[np.int64]
    feature_id: npt.NDArray[np.int32]
    max_act: npt.NDArray[np.float32]
    peak_token: npt.NDArray[np.int32]


def pool_maxima(codes: TokenCodes) -> DocMaxima:
    """Maximum over content tokens per document and feature (design §3), with its first position."""
    token = np.repeat(np.arange(len(codes.position)), np.diff(codes.offsets))
    d_sae = int(codes.feature_id.max(initial=-1)) + 1
    key = codes.doc_index[token].astype(np.int64) * d_sae + codes.feature_id
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    if not len(starts):
        empty = np.empty(0, np.int64)
        return DocMaxima(empty, empty.astype(np.int32), empty.astype(np.float32), empty.astype(np.int32))
    acts = codes.act[order]
    maxima = np.maximum.reduceat(acts, starts)
    group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    hits = np.flatnonzero(acts == maxima[group])
    first = hits[np.searchsorted(group[hits], np.arange(len(starts)))]
    feature_id = (key[order][starts] % d_sae).astype(np.int32)
    peak = codes.position[token[order[first]]].astype(np.int32)
    return DocMaxima(key[order][starts] // d_sae, feature_id, maxima.astype(np.float32), peak)


@dataclass(frozen=True, slots=True)
class SpanRows:
    """Spans as arrays of equal length; `acts` is the window padded with zeros on the right."""

    feature_id: npt.NDArray[np.int32]
    split: npt.NDArray[np.int8]  # index into SPLITS
    act: npt.NDArray[np.float32]
    doc_no: npt.NDArray[np.int32]
    peak_token: npt.NDArray[np.int32]
    start_token: npt.NDArray[np.int32]
    end_token: npt.NDArray[np.int32]
    window_hash: npt.NDArray[np.uint64]
    acts: npt.NDArray[np.float16]

    @property
    def group(self) -> npt.NDArray[np.int64]:
        """One number per (feature, half)."""
        return self.feature_id.astype(np.int64) * len(SPLITS) + self.split

    def __len__(self) -> int:
        return len(self.feature_id)

    def take(self, index: npt.NDArray[Any]) -> SpanRows:
        """The rows at these positions."""
        return SpanRows(*(getattr(self, f.name)[index] for f in dataclasses.fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[SpanRows]) -> SpanRows:
        """All rows of several parts."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(cls)))


def strongest(
    group: npt.NDArray[np.int64],
    act: npt.NDArray[np.float32],
    doc_no: npt.NDArray[np.int32],
    window_hash: npt.NDArray[np.uint64],
    per_group: int,
) -> npt.NDArray[np.int64]:
    """Index of the `per_group` strongest distinct windows of every group, sorted by group, then strongest first."""
    # Bits of positive floats order as the floats do: one integer holds group and falling activation.
    falling = np.uint64(2**32 - 1) - act.view(np.uint32)
    order = np.lexsort((doc_no, group.astype(np.uint64) << np.uint64(32) | falling))
    window = (window_hash ^ group.astype(np.uint64) * _MIXER)[order]
    by_window = np.argsort(window)
    starts = np.flatnonzero(np.diff(window[by_window], prepend=~window[by_window[:1]]))
    first = np.minimum.reduceat(by_window, starts) if len(starts) else by_window
    order = order[np.sort(first)]
    kept: npt.NDArray[np.int64] = order[rank_within(group[order]) < per_group]
    return kept


def rank_within(sorted_group: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0, 1, 2 … inside each run of equal values."""
    starts = np.flatnonzero(np.diff(sorted_group, prepend=-1))
    first: npt.NDArray[np.int64] = np.repeat(starts, np.diff(starts, append=len(sorted_group)))
    return np.asarray(np.arange(len(sorted_group), dtype=np.int64) - first)


class SpanCollector:
    """Keeps the strongest spans per feature and half of a stream of token codes."""

    def __init__(self, d_sae: int, *, per_split: int, before: int, after: int) -> None:
        self._per_split, self._before, self._after = per_split, before, after
        self._width = before + 1 + after
        self._d_sae = d_sae
        self._floor = np.zeros(d_sae * len(SPLITS), np.float32)
        self._multipliers = np.random.default_rng(0).integers(1, 2**63, self._width + 1, dtype=np.uint64) | np.uint64(1)
        self._kept: list[SpanRows] = []
        self._n_compacted = 0
        self.n_active_tokens: npt.NDArray[np.int64] = np.zeros(d_sae, np.int64)
        self.n_tokens = 0

    def add(self, codes: TokenCodes, maxima: DocMaxima, splits: Sequence[Split]) -> None:
        """Take in one batch; `splits` is the half of each of its documents."""
        self.n_active_tokens += np.bincount(codes.feature_id, minlength=self._d_sae)
        self.n_tokens += len(codes.position)
        split = np.array([SPLITS.index(s) for s in splits], np.int8)[maxima.doc_index]
        group = maxima.feature_id.astype(np.int64) * len(SPLITS) + split
        promising = np.flatnonzero(maxima.max_act >= self._floor[group])  # a tie may win by its document number
        if not len(promising):
            return
        self._kept.append(self._extract(codes, maxima, split, promising))
        if sum(map(len, self._kept)) > max(COMPACT_ROWS, 2 * self._n_compacted):
            self._compact()

    def rows(self) -> SpanRows:
        """What is kept so far, sorted by feature, half and falling activation."""
        self._compact()
        return self._kept[0] if self._kept else empty_rows(self._width)

    def _compact(self) -> None:
        if not self._kept:
            return
        rows = merge_rows(self._kept, self._per_split)
        full = rank_within(rows.group) == self._per_split - 1
        self._floor[rows.group[full]] = rows.act[full]
        self._kept, self._n_compacted = [rows], len(rows)

    def _extract(
        self, codes: TokenCodes, maxima: DocMaxima, split: npt.NDArray[np.int8], index: npt.NDArray[Any]
    ) -> SpanRows:
        flat = _Flat.of(codes.documents)
        base = flat.base[maxima.doc_index[index]]
        peak = base + maxima.peak_token[index]
        start = np.maximum(flat.run_start[peak], peak - self._before)
        end = np.minimum(flat.run_end[peak], peak + self._after + 1)
        columns = start[:, None] + np.arange(self._width)
        inside = columns < end[:, None]
        ids = np.where(inside, flat.token_ids[np.minimum(columns, len(flat.token_ids) - 1)] + 1, 0).astype(np.uint64)
        window_hash = ids @ self._multipliers[:-1] + (peak - start).astype(np.uint64) * self._multipliers[-1]
        doc_no = np.array([d.doc_no for d in codes.documents], np.int32)[maxima.doc_index[index]]
        group = maxima.feature_id[index].astype(np.int64) * len(SPLITS) + split[index]
        kept = strongest(group, maxima.max_act[index], doc_no, window_hash, self._per_split)
        return SpanRows(
            feature_id=maxima.feature_id[index][kept],
            split=split[index][kept],
            act=maxima.max_act[index][kept],
            doc_no=doc_no[kept],
            peak_token=maxima.peak_token[index][kept],
            start_token=(start - base)[kept].astype(np.int32),
            end_token=(end - base)[kept].astype(np.int32),
            window_hash=window_hash[kept],
            acts=self._window_acts(codes, flat, maxima.feature_id[index][kept], start[kept], end[kept]),
        )

    def _window_acts(
        self,
        codes: TokenCodes,
        flat: _Flat,
        feature_id: npt.NDArray[np.int32],
        start: npt.NDArray[np.int64],
        end: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float16]:
        """Activations of each row's feature on the tokens of its window: runs of the codes sorted by feature."""
        n_tokens = len(flat.token_ids)
        token = np.repeat(flat.base[codes.doc_index] + codes.position, np.diff(codes.offsets))
        stored = codes.feature_id.astype(np.int64) * n_tokens + token
        order = np.argsort(stored)
        stored = stored[order]
        window_start = feature_id.astype(np.int64) * n_tokens + start
        low = np.searchsorted(stored, window_start)
        length = np.searchsorted(stored, window_start + (end - start)) - low
        row = np.repeat(np.arange(len(length)), length)
        entry = np.arange(len(row)) + np.repeat(low - np.cumsum(length) + length, length)
        window = np.zeros((len(length), self._width), np.float32)
        window[row, stored[entry] - window_start[row]] = codes.act[order[entry]]
        return np.minimum(window, np.finfo(np.float16).max).astype(np.float16)


@dataclass(frozen=True, slots=True)
class _Flat:
    """A batch's documents end to end: where each begins, and the run of content each token stands in."""

    base: npt.NDArray[np.int64]
    token_ids: npt.NDArray[np.int64]
    run_start: npt.NDArray[np.int64]
    run_end: npt.NDArray[np.int64]

    @classmethod
    def of(cls, documents: Sequence[TokenizedDocument]) -> _Flat:
        lengths = np.array([len(d.token_ids) for d in documents], np.int64)
        base = np.concatenate([[0], np.cumsum(lengths)])
        content = np.concatenate([d.is_content for d in documents])
        first = np.zeros(len(content), bool)
        first[base[:-1][lengths > 0]] = True
        begins = first | np.diff(content, prepend=~content[:1])
        run = np.cumsum(begins) - 1
        edges = np.append(np.flatnonzero(begins), len(content))
        token_ids = np.concatenate([d.token_ids for d in documents]).astype(np.int64)
        return cls(base[:-1], token_ids, edges[run], edges[run + 1])


def merge_rows(parts: Sequence[SpanRows], per_split: int) -> SpanRows:
    """The strongest of several parts, as if they had been collected in one pass."""
    rows = SpanRows.concatenate(parts)
    return rows.take(strongest(rows.group, rows.act, rows.doc_no, rows.window_hash, per_split))


def empty_rows(width: int) -> SpanRows:
    """No spans, of the right shapes."""
    ints = np.empty(0, np.int32)
    return SpanRows(
        feature_id=ints,
        split=np.empty(0, np.int8),
        act=np.empty(0, np.float32),
        doc_no=ints,
        peak_token=ints,
        start_token=ints,
        end_token=ints,
        window_hash=np.empty(0, np.uint64),
        acts=np.empty((0, width), np.float16),
    )


def token_pieces(document: TokenizedDocument, text: str) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Each content token's own slice of the text and where it starts; slices of a run join to the text exactly.

    Tokens that share one multi-byte character give it to the first of them; template tokens are empty.
    """
    pieces: list[str] = []
    starts = np.full(len(document.token_ids), -1, np.int64)
    reached: int | None = None
    for i, (content, a, b) in enumerate(
        zip(document.is_content.tolist(), document.char_start.tolist(), document.char_end.tolist())
    ):
        if not content:
            reached = None
            pieces.append("")
            continue
        begin = a if reached is None else reached
        reached = max(begin, b)
        starts[i] = begin
        pieces.append(text[begin:reached])
    return pieces, starts


def span_columns(
    rows: SpanRows,
    documents: Mapping[int, tuple[TokenizedDocument, Document]],
    n_docs: npt.NDArray[np.int64],
) -> dict[str, Any]:
    """Columns of the span table for rows sorted by feature and half; `n_docs[i]` documents fire feature i."""
    numbers = sorted(documents)
    pieces_of = [token_pieces(documents[n][0], documents[n][1].text) for n in numbers]
    base = np.concatenate([[0], np.cumsum([len(p) for p, _ in pieces_of])]).astype(np.int64)
    at = base[np.searchsorted(np.array(numbers, np.int64), rows.doc_no)]
    char_start = np.concatenate([s for _, s in pieces_of] or [np.empty(0, np.int64)])
    char_end = np.concatenate([documents[n][0].char_end for n in numbers] or [np.empty(0, np.int64)])
    length = (rows.end_token - rows.start_token).astype(np.int64)
    offsets = pa.array(np.concatenate([[0], np.cumsum(length)]).astype(np.int32))
    inside = np.arange(rows.acts.shape[1]) < length[:, None]
    flat = (at + rows.start_token)[:, None] + np.arange(rows.acts.shape[1])
    pieces = pa.array([piece for p, _ in pieces_of for piece in p], pa.string())
    return {
        "feature_id": rows.feature_id,
        "rank": rank_within(rows.group).astype(np.int32),
        "quantile": _quantile(rows, n_docs),
        "split": pa.array([str(s) for s in SPLITS]).take(pa.array(rows.split)),
        "doc_no": rows.doc_no,
        "start_token": rows.start_token,
        "end_token": rows.end_token,
        "start_char": char_start[at + rows.start_token].astype(np.int32),
        "end_char": np.maximum.reduce([char_end[at + rows.end_token - 1], char_start[at + rows.end_token - 1]]),
        "peak_token": rows.peak_token,
        "act": rows.act,
        "tokens": pa.ListArray.from_arrays(offsets, pieces.take(pa.array(flat[inside]))),
        "acts": pa.ListArray.from_arrays(offsets, pa.array(rows.acts[inside].astype(np.float32))),
    }


def _quantile(rows: SpanRows, n_docs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Share of the feature's firing documents that are at most this strong, counting only kept spans above it."""
    order = np.lexsort((-rows.act, rows.feature_id))
    above = np.empty(len(rows), np.int64)
    above[order] = rank_within(rows.feature_id[order].astype(np.int64))
    return (1 - above / np.maximum(n_docs[rows.feature_id], 1)).astype(np.float32)


def spans_by_feature(rows: Iterable[Mapping[str, Any]]) -> dict[int, list[Span]]:
    """Span records from rows of the span table, grouped by feature in the order given."""
    grouped: dict[int, list[Span]] = {}
    names = [f.name for f in dataclasses.fields(Span)]
    for row in rows:
        values = {n: row[n] for n in names} | {"split": Split(row["split"])}
        span = Span(**(values | {"tokens": tuple(row["tokens"]), "acts": tuple(row["acts"])}))
        grouped.setdefault(span.feature_id, []).append(span)
    return grouped
