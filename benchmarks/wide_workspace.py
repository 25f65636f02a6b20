"""The workspace that the pages are measured on: 65,536 features × 50 spans and 10,000 documents, built once and cached.

What is real: the texts, the backbone's activations in an early layer, the feature activations (of an SAE with random
directions, and for each feature the threshold at which it fires in a log-normal number of documents), the statistics,
the spans and the coverage run. So that two cores finish in minutes, documents are read as raw text and only their first
24 content tokens, so that spans are at most 24 tokens long. What is made up: explanations (the tokens that a feature
peaks on), their scores, the verdicts on relevance, decisions and synthetic samples (texts of the corpus).

Features are made in groups whose shards, once listed, are not made again: memory does not grow with their number, and
a build that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file

from facviz.activations import content_activations
from facviz.backbone import Backbone, Renderer
from facviz.backbone.packaged import cache_root
from facviz.config import BackboneConfig, CoverageConfig
from facviz.files import read_lines, write_files, write_text_atomically
from facviz.pipeline.coverage import coverage
from facviz.pipeline.session import Session
from facviz.protocols import NoProgress
from facviz.records import RAW_TEXT_ROLE, Document, TokenizedDocument, split_of
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, SaeWeights
from facviz.spans import SPLITS, SpanRows, rank_within, span_columns
from facviz.store.events import explanation_of, new_event
from facviz.store.manifest import Scope
from facviz.store.schema import MODE, TABLES, rows_to_arrow, to_arrow
from facviz.store.workspace import META_FILE, Workspace, open_workspace

VERSION = 1
"""Raised when the same inputs build another workspace."""
TASK, SOURCE = "toxicity", "label"
ANCHOR, SEED = "anchor", "seed"
THEMES = ("weather", "music", "garden", "travel", "health", "money", "school", "sports", "kitchen", "history")
VERDICTS = {"yes": 0.05, "probably": 0.1, "maybe": 0.15, "no": 0.7}
_CORPUS = ("general_instructions", "conversations.jsonl.gz")
_MAX_CHARS = 2000
_FEWEST_CHARS = 160


@dataclass(frozen=True, slots=True)
class Size:
    """How wide: the bars of the pages hold at the default."""

    n_features: int = 65_536
    n_documents: int = 10_000
    n_seed: int = 2_000
    n_tokens: int = 24
    layer: int = 4
    per_split: int = 25
    seed_per_split: int = 5
    fewest_docs: int = 90
    median_docs: int = 140
    block: int = 512
    group: int = 4096
    n_events: int = 2_000
    n_filled: int = 300
    act_threshold: float = 1.0
    captured_at_once: int = 1000


def wide_workspace(backbone: Callable[[], Backbone]) -> Path:
    """Folder of the workspace at full size, built where it is not there yet."""
    documents = corpus(Size().n_documents)
    digest = hashlib.sha256("".join(d.doc_id for d in documents).encode()).hexdigest()[:8]
    root = cache_root() / "benchmarks" / f"wide-{VERSION}-{digest}"
    if not is_built(root):
        build(root, backbone(), documents, Size())
    return root


def is_built(root: Path) -> bool:
    """Whether the workspace is there, finished and of this version."""
    return (root / META_FILE).exists() and open_workspace(root).meta.get("wide") == VERSION


def build(root: Path, backbone: Backbone, documents: Sequence[Document], size: Size) -> Workspace:
    """The workspace in this folder, finished; what is there already is kept."""
    workspace = Workspace.create(root)
    if not is_built(root):
        with workspace.lock():
            _Build(workspace, backbone, documents, size).run()
        workspace.remember(wide=VERSION)
    return workspace


def corpus(n: int) -> list[Document]:
    """Real texts: conversations of `$FACVIZ_DATA`, else windows of the shipped messages, all different."""
    named = os.environ.get("FACVIZ_DATA")
    path = Path(named, *_CORPUS) if named else None
    if path is not None and path.is_file():
        import gzip

        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        texts = ["\n\n".join(m["content"] for m in row["messages"]) for row in rows]
        labels = [str(row["source"]).partition(":")[0] for row in rows]
    else:
        texts, labels = _windows(n)
    distinct = dict(zip((t[:_MAX_CHARS] for t in texts if len(t) >= _FEWEST_CHARS), labels))
    return [Document.from_text(t, role=RAW_TEXT_ROLE, label=label) for t, label in list(distinct.items())[:n]]


def _windows(n: int, n_words: int = 60) -> tuple[list[str], list[str]]:
    """A little more than `n` windows of sixty words over the messages that come with facviz, end to end."""
    folder = Path(__file__).resolve().parents[1] / "data"
    rows = [row for path in sorted(folder.glob("*/*.jsonl")) for row in read_lines(path) if "text" in row]
    words = [word for row in rows for word in str(row["text"]).split()]
    starts = np.linspace(0, len(words) - n_words, n + n // 10).astype(int).tolist()
    return [" ".join(words[start : start + n_words]) for start in starts], [f"part {s % 4}" for s in starts]


class _Build:
    """One build: documents, activations, features in groups, then what people and later stages add."""

    def __init__(self, workspace: Workspace, backbone: Backbone, documents: Sequence[Document], size: Size) -> None:
        self.workspace, self.manifest, self.size = workspace, workspace.manifest, size
        self.backbone = backbone.at(min(size.layer, backbone.layer), "resid")
        self.rng = np.random.default_rng(0)
        renderer = Renderer(backbone.tokenizer, max_tokens=size.n_tokens + 1, roles=(RAW_TEXT_ROLE,))
        rendered = renderer.render_many(list(enumerate(documents)))
        long = [(d, documents[d.doc_no]) for d in rendered if d.n_content_tokens == size.n_tokens]
        self.documents = [document for _, document in long]
        self.tokenized = [_renumbered(t, n) for n, (t, _) in enumerate(long)]
        self.splits = np.array([SPLITS.index(split_of(d.doc_id)) for d in self.documents], np.int8)
        self.seed = np.sort(self.rng.permutation(len(long))[: size.n_seed]).astype(np.int32)
        self.identity = hashlib.sha256("".join(d.doc_id for d in self.documents).encode()).hexdigest()
        self.sae_id = self.identity[12:24]
        self.ids = {ANCHOR: self.identity[:12], SEED: self.identity[24:36]}

    def run(self) -> None:
        """Every step; those with finished shards return at once."""
        self._write_datasets()
        acts = self._captured()
        directions = self._directions(acts)
        scopes = {name: self._scope("spans", f"{self.sae_id}/{i}/{MODE}") for name, i in self.ids.items()}
        for start in range(0, self.size.n_features, self.size.group):
            if not self.manifest.has_shard(scopes[SEED], "span", self._shard(start)):
                self._group(start, acts, directions, scopes)
        for name, scope in scopes.items():
            self.manifest.mark_done(scope, {"sae_id": self.sae_id, "dataset": name, "dataset_id": self.ids[name]})
        self._write_sae(directions, acts.mean(0).float())
        self._write_words(scopes[ANCHOR])
        self._write_relevance()
        config = CoverageConfig(anchor=ANCHOR, seed=SEED, threshold=self.size.act_threshold, n_bootstrap=200)
        session = Session(self.workspace, BackboneConfig(), NoProgress())
        measured = coverage(session, self.sae_id, TASK, SOURCE, config)
        self._write_synthesis(measured)
        self._write_events()

    def _scope(self, stage: str, subject: str) -> Scope:
        return Scope(stage, subject, hashlib.sha256(f"{VERSION}{self.identity}{stage}".encode()).hexdigest()[:16])

    def _shard(self, start: int) -> str:
        return f"{start // self.size.group:05d}"

    def _part(self, start: int) -> Path:
        return self.workspace.root / "work" / f"wide-{self._shard(start)}.npz"

    def _write_datasets(self) -> None:
        everything = np.arange(len(self.documents), dtype=np.int32)
        for name, numbers in ((ANCHOR, everything), (SEED, self.seed)):
            scope, keys = self._scope("data", name), {"dataset_id": self.ids[name]}
            chosen = [self.documents[n] for n in numbers]
            described = {
                "name": name, "role": name, "roles": [RAW_TEXT_ROLE], "n_docs": len(chosen), "n_duplicates": 0,
                "n_dropped": 0, "n_content_tokens": len(chosen) * self.size.n_tokens, "source": "real texts",
            }  # fmt: skip
            rows = [
                {"doc_no": i, "doc_id": d.doc_id, "text": d.text, "label": d.label, "split": str(split_of(d.doc_id)),
                 "messages": [{"role": m.role, "content": m.content} for m in d.messages],
                 "n_content_tokens": self.size.n_tokens} | keys
                for i, d in enumerate(chosen)
            ]  # fmt: skip
            self.manifest.write_shard(scope, "document", "0", rows_to_arrow("document", rows))
            self.manifest.write_shard(scope, "dataset", "0", rows_to_arrow("dataset", [described | keys]))
            self.manifest.mark_done(scope, described | keys)
            tokens = {"n_content_tokens": self.size.n_tokens, "mode": MODE, "sae_id": self.sae_id} | keys
            read = [
                {"doc_no": i, "n_cut_tokens": self.tokenized[n].n_cut_tokens} | tokens for i, n in enumerate(numbers)
            ]
            spans = self._scope("spans", f"{self.sae_id}/{self.ids[name]}/{MODE}")
            self.manifest.write_shard(spans, "encoded_document", "0", rows_to_arrow("encoded_document", read))

    def _captured(self) -> torch.Tensor:
        """Activations of the content tokens, [documents × tokens, d_in] in bfloat16, in the documents' order."""
        folder = self.workspace.root / "activations" / "wide"
        parts = []
        for start in range(0, len(self.documents), self.size.captured_at_once):
            path = folder / f"{start:06d}.safetensors"
            if not path.exists():
                acts = self._capture(self.tokenized[start : start + self.size.captured_at_once], start)
                write_files({path: lambda temporary, acts=acts: save_file({"acts": acts}, temporary)})
            parts.append(load_file(path)["acts"])
        return torch.cat(parts).flatten(0, 1)

    def _capture(self, tokenized: Sequence[TokenizedDocument], start: int) -> torch.Tensor:
        acts = torch.zeros(len(tokenized), self.size.n_tokens, self.backbone.d_model, dtype=torch.bfloat16)
        for part in content_activations(self.backbone, tokenized, 8192):
            numbers = torch.tensor([d.doc_no - start for d in part.documents])
            acts[numbers] = part.acts.view(len(numbers), self.size.n_tokens, -1).to(torch.bfloat16)
        return acts

    def _directions(self, acts: torch.Tensor) -> torch.Tensor:
        """Random unit directions [d_in, n_features]."""
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(acts.shape[1], self.size.n_features, generator=generator)
        return torch.nn.functional.normalize(drawn, dim=0)

    def _group(self, start: int, acts: torch.Tensor, directions: torch.Tensor, scopes: dict[str, Scope]) -> None:
        """Encode a group of features and write their shards; the seed's spans last, which say that it is done."""
        end = min(start + self.size.group, self.size.n_features)
        centred = acts.float()
        centred -= centred.mean(0)
        blocks = [
            self._block(first, centred, directions[:, first : min(first + self.size.block, end)])
            for first in range(start, end, self.size.block)
        ]
        shard, used = self._shard(start), {n: (t, self.documents[n]) for n, t in enumerate(self.tokenized)}
        arrays = {name: np.concatenate([getattr(b, name) for b in blocks]) for name in ("threshold", "density")}
        write_files({self._part(start): lambda temporary: _save(temporary, arrays)})
        feature_id, doc_no, act, peak = (
            np.concatenate([getattr(b, name) for b in blocks]) for name in ("feature_id", "doc_no", "act", "peak_token")
        )
        for name, per_split in ((ANCHOR, self.size.per_split), (SEED, self.size.seed_per_split)):
            rows = SpanRows.concatenate([b.spans for b in blocks])
            kept = np.arange(len(act))
            if name == SEED:
                kept = np.flatnonzero(np.isin(doc_no, self.seed))
                rows = rows.take(np.flatnonzero(np.isin(rows.doc_no, self.seed)))
                rows = rows.take(np.flatnonzero(rank_within(rows.group) < per_split))
            keys = {"sae_id": self.sae_id, "dataset_id": self.ids[name]}
            numbers = doc_no[kept] if name == ANCHOR else np.searchsorted(self.seed, doc_no[kept]).astype(np.int32)
            maxima = {"feature_id": feature_id[kept], "doc_no": numbers, "max_act": act[kept], "peak_token": peak[kept]}
            table = to_arrow("doc_activation", maxima | keys | {"mode": MODE}, len(kept))
            self.manifest.write_shard(scopes[name], "doc_activation", shard, table)
            stats = self._stats(start, end, feature_id[kept], act[kept], arrays["density"])
            self.manifest.write_shard(
                scopes[name],
                "feature_stats",
                shard,
                to_arrow("feature_stats", stats | keys | {"mode": MODE}, end - start),
            )
            n_docs = np.zeros(end, np.int64)
            n_docs[start:] = stats["n_docs"]
            columns = span_columns(rows, used, n_docs)
            if name == SEED:
                columns["doc_no"] = np.searchsorted(self.seed, rows.doc_no).astype(np.int32)
            self.manifest.write_shard(scopes[name], "span", shard, to_arrow("span", columns | keys, len(rows)))

    def _stats(
        self, start: int, end: int, feature_id: npt.NDArray[Any], act: npt.NDArray[Any], density: npt.NDArray[Any]
    ) -> dict[str, Any]:
        """By feature of the group, whose rows are sorted by feature and falling activation."""
        n_docs = np.bincount(feature_id - start, minlength=end - start)
        first = np.concatenate([[0], np.cumsum(n_docs)[:-1]])
        last = max(len(act) - 1, 0)
        safe = np.minimum(first, last)
        place = 0.05 * (n_docs - 1).clip(0)  # from the strongest down
        above = act[np.minimum(safe + np.floor(place).astype(int), last)]
        below = act[np.minimum(safe + np.ceil(place).astype(int), last)]
        p95 = above + (below - above) * (place - np.floor(place))
        return {
            "feature_id": np.arange(start, end, dtype=np.int32),
            "density": density,
            "n_docs": n_docs,
            "max_act": np.where(n_docs, act[safe], 0).astype(np.float32),
            "p95_act": np.where(n_docs, p95, np.nan).astype(np.float32),
            "is_dead": n_docs == 0,
            "is_always_on": density > 0.1,
        }

    def _block(self, first: int, centred: torch.Tensor, directions: torch.Tensor) -> _Block:
        """Thresholds, document maxima and spans of some features, from all activations at once."""
        size, n_docs, n_block = self.size, len(self.documents), directions.shape[1]
        pre = (centred @ directions).view(n_docs, size.n_tokens, n_block)
        maxima, peaks = pre.max(dim=1)
        rng = np.random.default_rng(1 + first)
        wanted = rng.lognormal(np.log(size.median_docs), 0.6, n_block).astype(int)
        wanted = np.clip(wanted, size.fewest_docs, n_docs // 4)
        top, order = maxima.T.contiguous().topk(int(wanted.max()) + 1, dim=1)
        column = torch.arange(n_block)
        threshold = (top[column, torch.from_numpy(wanted) - 1] + top[column, torch.from_numpy(wanted)]) / 2
        pre -= threshold.clamp_min(0)  # a direction that only its last documents meet below zero fires in fewer
        density = (pre > 0).float().mean(dim=(0, 1)).double().numpy()
        threshold = threshold.clamp_min(0)
        is_on = (torch.arange(top.shape[1]) < torch.from_numpy(wanted)[:, None]) & (top > threshold[:, None])
        row, place = is_on.nonzero(as_tuple=True)
        doc = order[row, place]
        feature_id = (row + first).numpy().astype(np.int32)
        act = top[row, place].numpy()
        peak_token = (peaks[doc, row].numpy() + 1).astype(np.int32)  # the sink comes before the content
        doc_no = doc.numpy().astype(np.int32)
        group = (row.numpy().astype(np.int64)) * len(SPLITS) + self.splits[doc_no]
        by_group = np.argsort(group, kind="stable")
        kept = by_group[rank_within(group[by_group]) < size.per_split]
        chosen = torch.from_numpy(kept)
        window = pre[doc[chosen], :, row[chosen]]
        window = torch.where(window > 0, window + threshold[row[chosen], None], 0)
        spans = SpanRows(
            feature_id=feature_id[kept],
            split=self.splits[doc_no[kept]],
            act=act[kept],
            doc_no=doc_no[kept],
            peak_token=peak_token[kept],
            start_token=np.ones(len(kept), np.int32),
            end_token=np.full(len(kept), size.n_tokens + 1, np.int32),
            window_hash=np.zeros(len(kept), np.uint64),
            acts=window.numpy().astype(np.float16),
        )
        return _Block(threshold.numpy(), density, feature_id, doc_no, act, peak_token, spans)

    def _write_sae(self, directions: torch.Tensor, centre: torch.Tensor) -> None:
        """The weights, half of their bytes, and rows without neighbours and output tokens, as of a very large SAE."""
        starts = range(0, self.size.n_features, self.size.group)
        threshold = torch.from_numpy(np.concatenate([np.load(self._part(s))["threshold"] for s in starts]))
        weights = SaeWeights(
            directions, torch.zeros(len(threshold)), None, centre, Activation("jumprelu", threshold=threshold)
        )
        SAE(weights).save(self.workspace.sae_folder(self.sae_id) / "weights", half_precision=True)
        backbone = asdict(BackboneConfig(layer=self.backbone.layer))
        row = {
            "sae_id": self.sae_id, "backbone": "default", "layer": self.backbone.layer, "architecture": "jumprelu",
            "d_in": len(directions), "d_sae": self.size.n_features, "k": 0, "metrics": "{}",
            "provenance": json.dumps({"backbone": backbone, "hook_name": self.backbone.hook_name}),
        }  # fmt: skip
        none: list[list[Any]] = [[]] * self.size.n_features
        columns = {f.name: none if pa.types.is_list(f.type) else None for f in TABLES["feature"]}
        columns |= {"sae_id": self.sae_id, "feature_id": range(self.size.n_features)}
        scope = Scope("sae", self.sae_id, self.sae_id)
        table = to_arrow("feature", columns, self.size.n_features)
        self.manifest.write_shard(scope, "feature", "0", table)
        self.manifest.write_shard(scope, "sae", "0", rows_to_arrow("sae", [row]))
        self.manifest.mark_done(scope, {k: row[k] for k in ("sae_id", "d_in", "d_sae", "k")})

    def _write_words(self, spans: Scope) -> None:
        """Explanations: the three tokens that a feature peaks on most in the half they are written from."""
        scope = self._scope("explain", f"{self.sae_id}/lexical")
        for start in range(0, self.size.n_features, self.size.group):
            with self.workspace.reader(spans) as reader:
                found = reader.select(
                    "SELECT feature_id, trim(list_extract(tokens, peak_token - start_token + 1)) AS peak FROM span "
                    "WHERE dataset_id = $dataset AND split = 'explain' AND feature_id BETWEEN $low AND $high",
                    dataset=self.ids[ANCHOR],
                    low=start,
                    high=start + self.size.group - 1,
                )
            peaks: dict[int, Counter[str]] = {}
            for feature, peak in zip(found["feature_id"].to_pylist(), found["peak"].to_pylist()):
                peaks.setdefault(feature, Counter())[peak] += 1
            rows = [
                {"sae_id": self.sae_id, "feature_id": feature, "version": 1, "author_kind": "lexical",
                 "author": "lexical", "prompt": "", "outcome": "explained",
                 "text": "fires on " + ", ".join(f"“{word}”" for word, _ in counted.most_common(3)),
                 "scores": json.dumps({"embedding_auroc": round(float(self.rng.beta(6, 4)), 3)})}
                for feature, counted in peaks.items()
            ]  # fmt: skip
            self.manifest.write_shard(scope, "explanation", self._shard(start), rows_to_arrow("explanation", rows))
        self.manifest.mark_done(scope, {"sae_id": self.sae_id, "provider": "lexical"})

    def _write_relevance(self) -> None:
        n = self.size.n_features
        for source in (SOURCE, "embedding"):
            verdicts = self.rng.choice(list(VERDICTS), n, p=list(VERDICTS.values()))
            columns = {
                "task": TASK, "sae_id": self.sae_id, "feature_id": range(n), "source": source, "verdict": verdicts,
                "score": self.rng.uniform(0.5, 0.9, n), "rationale": "drawn at random", "author": "",
                "theme": self.rng.choice(THEMES, n) if source == SOURCE else "",
            }  # fmt: skip
            scope = self._scope("relevance", f"{TASK}/{self.sae_id}/{source}")
            self.manifest.write_shard(scope, "relevance", "0", to_arrow("relevance", columns, n))
            self.manifest.mark_done(scope, {"task": TASK, "sae_id": self.sae_id, "source": source})

    def _write_synthesis(self, measured: dict[str, Any]) -> None:
        """Ten candidates for each of the first missing features, three of them accepted."""
        with self.workspace.reader() as reader:
            missing = reader.rows("missing", coverage_id=measured["coverage_id"])[: self.size.n_filled]
        scope = self._scope("synthesize", self.identity[36:48])
        names = {"synth_id": self.identity[36:48], "coverage_id": measured["coverage_id"]}
        candidates = [
            {"candidate_id": f"{row['feature_id']:08x}{slot:04x}", "synth_id": names["synth_id"], "strategy": "paper",
             "feature_id": row["feature_id"], "step": "guided", "round": 0, "slot": slot, "accepted": slot < 3,
             "text": self.documents[int(self.rng.integers(len(self.documents)))].text[:400], "messages": [],
             "act": row["act_threshold"] * (1.2 - slot / 10), "act_threshold": row["act_threshold"], "peak_token": 1,
             "gates": "{}", "reject_reason": None if slot < 3 else "target does not fire", "rng_seed": slot}
            for row in missing
            for slot in range(10)
        ]  # fmt: skip
        states = [
            names | {"feature_id": r["feature_id"], "state": "filled", "n_candidates": 10, "n_accepted": 3}
            for r in missing
        ]
        self.manifest.write_shard(scope, "candidate", "0", rows_to_arrow("candidate", candidates))
        self.manifest.write_shard(scope, "synthesis_feature", "0", rows_to_arrow("synthesis_feature", states))
        summary = {"n_attempted": len(missing), "n_filled": len(missing), "n_candidates": len(candidates)}
        summary |= {"n_accepted": 3 * len(missing), "missing_coverage": 0.0, "fac_after": measured["fac"]}
        self.manifest.mark_done(
            scope, names | summary | {"fac_before": measured["fac"], "rejected": {}, "pair_states": {}}
        )

    def _write_events(self) -> None:
        """Decisions of two people on random features, a tenth of them undone."""
        lines = []
        for i, feature in enumerate(self.rng.permutation(self.size.n_features)[: self.size.n_events].tolist()):
            target, actor = explanation_of(self.sae_id, feature), ("ann", "ben")[i % 2]
            kind = ("accept", "accept", "reject", "edit", "flag")[i % 5]
            payload = {"text": f"words of a person {i}"} if kind == "edit" else {}
            event = new_event(actor, target, kind, payload)
            lines.append(event)
            if i % 10 == 0:
                lines.append(new_event(actor, target, "undo", undoes=event["event_id"]))
        path = self.workspace.root / "events" / "review.jsonl"
        path.parent.mkdir(exist_ok=True)
        write_text_atomically(path, "".join(json.dumps(line) + "\n" for line in lines))


@dataclass(frozen=True, slots=True)
class _Block:
    """What a block of features gave: by feature, by feature and document (strongest first), and spans."""

    threshold: npt.NDArray[np.float32]
    density: npt.NDArray[np.float64]
    feature_id: npt.NDArray[np.int32]
    doc_no: npt.NDArray[np.int32]
    act: npt.NDArray[np.float32]
    peak_token: npt.NDArray[np.int32]
    spans: SpanRows


def _renumbered(document: TokenizedDocument, number: int) -> TokenizedDocument:
    names = ("token_ids", "is_content", "char_start", "char_end", "n_cut_tokens")
    return TokenizedDocument(number, *(getattr(document, name) for name in names))


def _save(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    with path.open("wb") as file:  # given a name, NumPy would add its own ending to it
        np.savez(file, **arrays)
