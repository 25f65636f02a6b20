"""`facviz spans | explain | relevance`: where features fire, what they seem to mean, who needs them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from facviz.config import ExplainConfig, RelevanceConfig, SpansConfig, fingerprint
from facviz.errors import InputError
from facviz.explain.lexical import explain_lexically
from facviz.explain.scorers import embedding_scores, to_scores
from facviz.files import write_files
from facviz.pipeline.sae import open_sae
from facviz.pipeline.session import CODE_VERSION, Session, load_documents
from facviz.prompts import load_task, task_template
from facviz.records import Document, Explanation, ExplanationOutcome, Relevance, Span, Split, split_of
from facviz.relevance import (
    EVERY_LABEL,
    embedding_relevance,
    label_relevance,
    theme_relevance,
    to_theme_verdicts,
    to_verdicts,
)
from facviz.spans import SpanCollector, SpanRows, empty_rows, merge_rows, pool_maxima, span_columns, spans_by_feature
from facviz.store.manifest import Scope
from facviz.store.reader import Reader
from facviz.store.schema import MODE, rows_to_arrow, to_arrow

if TYPE_CHECKING:
    from facviz.activations import SaeEncoder

OUTPUT_LOGIT_STDS = 6.0
"""Standard deviations above the mean at which an output token is said to be promoted."""
Numbered = Sequence[tuple[int, Document]]


def spans_scope(session: Session, sae_id: str, dataset_id: str, config: SpansConfig) -> Scope:
    """Keyed by SAE, dataset and mode, so no corpus overwrites another (known defect 7)."""
    described = dataclasses.replace(config, datasets=())
    name = fingerprint("spans", CODE_VERSION, sae_id, dataset_id, MODE, described, session.encoding_fingerprint())
    return Scope("spans", f"{sae_id}/{dataset_id}/{MODE}", name)


def collect_spans(session: Session, sae_id: str, dataset_name: str, config: SpansConfig) -> dict[str, Any]:
    """One pass over a dataset: per-document maxima, statistics and the strongest spans of every feature."""
    with session.workspace.reader() as reader:
        dataset = reader.dataset(dataset_name)
    scope = spans_scope(session, sae_id, dataset["dataset_id"], config)
    return session.run_once(scope, lambda: _SpanPass(session, sae_id, dataset, config, scope).run())


class _SpanPass:
    """The pass in shards of documents; a shard is finished when its `encoded_document` rows are listed."""

    def __init__(
        self, session: Session, sae_id: str, dataset: Mapping[str, Any], config: SpansConfig, scope: Scope
    ) -> None:
        self.session, self.config, self.scope = session, config, scope
        self.name, self.dataset_id = dataset["name"], dataset["dataset_id"]
        self.sae_id, self.manifest = sae_id, session.workspace.manifest
        with session.workspace.reader() as reader:
            self.documents = load_documents(reader, self.dataset_id)
        self.encoder: SaeEncoder = session.encoder(open_sae(session, sae_id), tuple(dataset["roles"]))
        self.width = config.before_tokens + 1 + config.after_tokens
        self.keys = {"sae_id": sae_id, "dataset_id": self.dataset_id}

    def run(self) -> dict[str, Any]:
        parts = []
        for shard, numbered in self._shards():
            path = self._part_path(shard)
            if not (self.manifest.has_shard(self.scope, "encoded_document", shard) and path.exists()):
                self._encode(shard, numbered, path)
            parts.append(path)
            self.session.progress.update("spans", numbered[-1][0] + 1, len(self.documents), f"documents of {self.name}")
        summary = self._finish(parts)
        for path in parts:
            path.unlink()
        return summary

    def _shards(self) -> Iterator[tuple[str, Numbered]]:
        numbered = list(enumerate(self.documents))
        for start in range(0, len(numbered), self.config.shard_docs):
            yield f"{start // self.config.shard_docs:05d}", numbered[start : start + self.config.shard_docs]

    def _part_path(self, shard: str) -> Path:
        return self.session.workspace.root / "work" / f"{self.scope.fingerprint}-{shard}.npz"

    def _collector(self) -> SpanCollector:
        c = self.config
        return SpanCollector(self.encoder.d_sae, per_split=c.per_split, before=c.before_tokens, after=c.after_tokens)

    def _encode(self, shard: str, numbered: Numbered, path: Path) -> None:
        """Kill-safe in this order: maxima, the collector's state, then the rows that say the shard is done."""
        splits = {n: split_of(d.doc_id) for n, d in numbered}
        collector = self._collector()
        columns: list[tuple[npt.NDArray[Any], ...]] = []
        tokens: list[tuple[int, int, int]] = []
        for codes in self.encoder.stream(numbered):
            maxima = pool_maxima(codes)
            collector.add(codes, maxima, [splits[d.doc_no] for d in codes.documents])
            numbers = np.array([d.doc_no for d in codes.documents], np.int32)[maxima.doc_index]
            columns.append((maxima.feature_id, numbers, maxima.max_act, maxima.peak_token))
            tokens += [(d.doc_no, d.n_content_tokens, d.n_cut_tokens) for d in codes.documents]
        feature_id, doc_no, max_act, peak = (np.concatenate(c) for c in zip(*columns))
        order = np.lexsort((-max_act, feature_id))
        rows = {"feature_id": feature_id, "doc_no": doc_no, "max_act": max_act, "peak_token": peak}
        values = {k: v[order] for k, v in rows.items()} | self.keys | {"mode": MODE}
        self.manifest.write_shard(self.scope, "doc_activation", shard, to_arrow("doc_activation", values, len(order)))
        _save_part(path, collector.rows(), collector.n_active_tokens, collector.n_tokens)
        encoded = [
            {"doc_no": n, "n_content_tokens": content, "n_cut_tokens": cut, "mode": MODE} | self.keys
            for n, content, cut in sorted(tokens)
        ]
        self.manifest.write_shard(self.scope, "encoded_document", shard, rows_to_arrow("encoded_document", encoded))

    def _finish(self, parts: Sequence[Path]) -> dict[str, Any]:
        rows = empty_rows(self.width)
        n_active = np.zeros(self.encoder.d_sae, np.int64)
        n_tokens = 0
        for path in parts:
            part, active, count = _load_part(path)
            rows = merge_rows([rows, part], self.config.per_split)
            n_active, n_tokens = n_active + active, n_tokens + count
        stats = self._stats(n_active, n_tokens)
        self.manifest.write_shard(self.scope, "feature_stats", "0", to_arrow("feature_stats", stats, len(n_active)))
        used = np.unique(rows.doc_no).tolist()
        rendered = self.encoder.renderer.render_many([(n, self.documents[n]) for n in used])
        texts = {n: (t, self.documents[n]) for n, t in zip(used, rendered)}
        columns = span_columns(rows, texts, stats["n_docs"]) | self.keys
        self.manifest.write_shard(self.scope, "span", "0", to_arrow("span", columns, len(rows)))
        return {
            "sae_id": self.sae_id,
            "dataset": self.name,
            "dataset_id": self.dataset_id,
            "n_docs": len(self.documents),
            "n_content_tokens": n_tokens,
            "n_spans": len(rows),
            "n_active_features": int((n_active > 0).sum()),
            "n_always_on": int(stats["is_always_on"].sum()),
        }

    def _stats(self, n_active: npt.NDArray[np.int64], n_tokens: int) -> dict[str, Any]:
        with self.session.workspace.reader(self.scope) as reader:
            found = reader.named("doc_quantiles", **self.keys, mode=MODE)
        ids = found["feature_id"].to_numpy()
        d_sae = len(n_active)
        density = n_active / max(n_tokens, 1)
        return self.keys | {
            "mode": MODE,
            "feature_id": np.arange(d_sae, dtype=np.int32),
            "density": density,
            "n_docs": _scatter(ids, found["n_docs"].to_numpy(), d_sae, 0, np.int64),
            "max_act": _scatter(ids, found["max_act"].to_numpy(), d_sae, 0, np.float32),
            "p95_act": _scatter(ids, found["p95_act"].to_numpy(), d_sae, np.nan, np.float32),
            "is_dead": n_active == 0,
            "is_always_on": density > self.config.always_on_density,
        }


def _scatter(ids: npt.NDArray[Any], values: npt.NDArray[Any], n: int, fill: float, kind: type) -> npt.NDArray[Any]:
    full: npt.NDArray[Any] = np.full(n, fill, kind)
    full[ids] = values
    return full


def _save_part(path: Path, rows: SpanRows, n_active: npt.NDArray[np.int64], n_tokens: int) -> None:
    arrays = {f.name: getattr(rows, f.name) for f in dataclasses.fields(rows)}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a name, NumPy would add its own ending to it
            np.savez(file, n_active=n_active, n_tokens=n_tokens, **arrays)

    write_files({path: write})


def _load_part(path: Path) -> tuple[SpanRows, npt.NDArray[np.int64], int]:
    with np.load(path, allow_pickle=False) as arrays:
        rows = SpanRows(**{f.name: arrays[f.name] for f in dataclasses.fields(SpanRows)})
        return rows, arrays["n_active"], int(arrays["n_tokens"])


def explain_by_words(session: Session, sae_id: str, config: ExplainConfig) -> dict[str, Any]:
    """Lexical explanations of every feature that fires, scored on held-out spans when asked."""
    with session.workspace.reader() as reader:
        dataset_id = reader.dataset(config.dataset)["dataset_id"]
    source = session.workspace.manifest.latest_fingerprint(f"spans/{sae_id}/{dataset_id}/{MODE}")
    if source is None:
        raise InputError(f"There are no spans of {config.dataset} for SAE {sae_id}; run `facviz spans` first.")
    described = dataclasses.replace(config, dataset="")
    scope = Scope("explain", f"{sae_id}/{config.provider}", fingerprint("explain", CODE_VERSION, source, described))

    def work() -> dict[str, Any]:
        with session.workspace.reader() as reader:
            spans = spans_by_feature(reader.rows("dataset_spans", sae_id=sae_id, dataset_id=dataset_id))
            directions = reader.rows("feature_directions", sae_id=sae_id)
        outputs = {row["feature_id"]: promoted_tokens(row) for row in directions}
        shown = {f: [s for s in found if s.split is Split.EXPLAIN] for f, found in spans.items()}
        shown = {f: found for f, found in shown.items() if found}
        explanations = explain_lexically(shown, output_tokens=outputs, min_score=config.min_score)
        scored = _score(session, explanations, spans, config) if config.embedding_score else {}
        rows = [explanation_row(sae_id, e, scored.get(e.feature_id, {})) for e in explanations]
        session.workspace.manifest.write_shard(scope, "explanation", "0", rows_to_arrow("explanation", rows))
        explained = [e for e in explanations if e.outcome is ExplanationOutcome.EXPLAINED]
        aurocs = [s["embedding_auroc"] for s in scored.values()]
        return {
            "sae_id": sae_id,
            "provider": config.provider,
            "n_features": len(explanations),
            "n_explained": len(explained),
            "n_scored": len(aurocs),
            "median_embedding_auroc": round(float(np.median(aurocs)), 3) if aurocs else None,
        }

    return session.run_once(scope, work)


def promoted_tokens(row: Mapping[str, Any]) -> list[str]:
    """Output tokens of a feature that stand out of its logits; what noise ranks first in a vocabulary does not."""
    if not row["top_tokens"]:  # of a very large SAE nobody computed them
        return []
    bar = row["logit_mean"] + OUTPUT_LOGIT_STDS * row["logit_std"]
    return [token for token, logit in zip(row["top_tokens"], row["top_logits"]) if logit > bar]


def _score(
    session: Session, explanations: Sequence[Explanation], spans: Mapping[int, Sequence[Span]], config: ExplainConfig
) -> dict[int, dict[str, float]]:
    from facviz.embeddings import SentenceTransformerEmbedder

    explained = [e for e in explanations if e.outcome is ExplanationOutcome.EXPLAINED]
    explained.sort(key=lambda e: (-len(spans[e.feature_id]), e.feature_id))
    chosen = sorted(explained[: config.max_scored], key=lambda e: e.feature_id)
    held_out = {
        e.feature_id: [s for s in spans[e.feature_id] if s.split is Split.SCORE][: config.scored_spans] for e in chosen
    }
    background = [span for found in held_out.values() for span in found]
    session.progress.update("explain", 0, len(chosen), "explanations scored by embedding")
    scores = embedding_scores(chosen, held_out, background, SentenceTransformerEmbedder(), rng_seed=0)
    return {feature: to_scores(score) for feature, score in scores.items()}


def explanation_row(sae_id: str, explanation: Explanation, scores: Mapping[str, float]) -> dict[str, Any]:
    """A row of the table; `scores` come on top of the explanation's own."""
    return {
        "sae_id": sae_id,
        "feature_id": explanation.feature_id,
        "version": explanation.version,
        "text": explanation.text,
        "author_kind": explanation.author_kind,
        "author": explanation.author,
        "prompt": explanation.prompt,
        "outcome": str(explanation.outcome),
        "scores": json.dumps({**explanation.scores, **scores}),
    }


def relevance_by_numbers(session: Session, sae_id: str, task: str, config: RelevanceConfig) -> dict[str, Any]:
    """Which features matter to a task: by labels (length-controlled) or by the guideline's embedding."""
    guideline = load_task(task)
    with session.workspace.reader() as reader:
        dataset = reader.dataset(config.labels)
    source = session.workspace.manifest.latest_fingerprint(f"spans/{sae_id}/{dataset['dataset_id']}/{MODE}")
    explained = session.workspace.manifest.latest_fingerprint(f"explain/{sae_id}/lexical")
    basis = source if config.source == "label" else explained
    if basis is None:
        stage = "spans" if config.source == "label" else "explain"
        raise InputError(f"Relevance by {config.source} needs `facviz {stage}` of {config.labels} first.")
    described = dataclasses.replace(config, labels="")
    name = fingerprint("relevance", CODE_VERSION, basis, task_template(task), described)
    scope = Scope("relevance", f"{guideline.name}/{sae_id}/{config.source}", name)

    def work() -> dict[str, Any]:
        with session.workspace.reader() as reader:
            if config.source == "label":
                verdicts = _by_labels(reader, sae_id, dataset, config)
            else:
                verdicts = embedding_relevance(current_explanations(reader, sae_id), guideline, _embedder())
        rows = [
            dataclasses.asdict(v) | {"task": guideline.name, "sae_id": sae_id, "verdict": str(v.verdict), "author": ""}
            for v in verdicts
        ]
        session.workspace.manifest.write_shard(scope, "relevance", "0", rows_to_arrow("relevance", rows))
        counts = {level: sum(r["verdict"] == level for r in rows) for level in ("yes", "probably", "maybe", "no")}
        return {"task": guideline.name, "sae_id": sae_id, "source": config.source, "n_judged": len(rows), **counts}

    return session.run_once(scope, work)


def _by_labels(reader: Reader, sae_id: str, dataset: Mapping[str, Any], config: RelevanceConfig) -> list[Relevance]:
    labels = [row["label"] for row in reader.rows("documents", dataset_id=dataset["dataset_id"])]
    if config.positive != EVERY_LABEL and config.positive not in labels:
        known = ", ".join(sorted({str(x) for x in labels})[:8])
        raise InputError(f"No document of {dataset['name']} has the label {config.positive!r}; labels there: {known}.")
    (d_sae,) = {row["d_sae"] for row in reader.rows("sae", sae_id=sae_id)}
    acts = reader.activation_matrix(sae_id, dataset["dataset_id"], MODE, d_sae)
    encoded = reader.named("encoded_documents", sae_id=sae_id, dataset_id=dataset["dataset_id"], mode=MODE)
    tokens = encoded["n_content_tokens"].to_numpy()
    names = ("min_auroc", "max_q", "n_permutations", "rng_seed", "n_bins")
    options = {name: getattr(config, name) for name in names}
    if config.positive == EVERY_LABEL:
        return to_theme_verdicts(theme_relevance(acts, labels, tokens, **options))
    is_positive = np.array([label == config.positive for label in labels])
    return to_verdicts(label_relevance(acts, is_positive, tokens, **options))


def current_explanations(reader: Reader, sae_id: str) -> list[Explanation]:
    """Of every feature the one that is shown, people's words first."""
    names = ("feature_id", "text", "author_kind", "author", "prompt", "version")
    return [
        Explanation(outcome=ExplanationOutcome(r["outcome"]), **{n: r[n] for n in names})
        for r in reader.rows("explanations", sae_id=sae_id)
    ]


def _embedder() -> Any:
    from facviz.embeddings import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder()
