"""`facviz explain`: explanations by words alone or by a language model, scored on spans they were not written from."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from facviz.config import ExplainConfig, fingerprint
from facviz.errors import InputError
from facviz.explain.language_model import (
    FEATURE_TEMPLATE,
    SYSTEM_TEMPLATE,
    Evidence,
    ExplainerSettings,
    Scorer,
    choose_explanations,
    embedding_scorer,
    explain_requests,
    failure_of,
    propose_explanations,
)
from facviz.explain.plain import PLAIN_TEMPLATE
from facviz.explain.sampling import ExplainSpans, HeldOutSpans, nearest_negatives, split_spans
from facviz.llm.providers import choose_provider
from facviz.pipeline.features import explain_by_words, explanation_row, promoted_tokens
from facviz.pipeline.models import LOCAL, language_model, paid_model, spent_usd
from facviz.pipeline.session import CODE_VERSION, Session
from facviz.prompts import template_text
from facviz.protocols import LLMClient
from facviz.records import Explanation, ExplanationOutcome
from facviz.spans import spans_by_feature
from facviz.store.manifest import Scope
from facviz.store.reader import Reader
from facviz.store.schema import MODE, rows_to_arrow

FEATURES_AT_ONCE = 32
"""Explained between two shards: what a kill can cost a model that keeps no replies of its own."""
BACKGROUND_FEATURES = 400
"""Whose held-out spans an explanation must tell from those of its own feature."""
WORDS_SCORE = "embedding_auroc_lexical"
VERSION = 2
"""Of what a model wrote; 1 is what the words alone say."""


def explain(session: Session, sae_id: str, config: ExplainConfig) -> dict[str, Any]:
    """Explanations of the features that fire in `config.dataset`, by `config.provider`."""
    config = _resolved(config)
    if config.provider == "lexical":
        return explain_by_words(session, sae_id, config)
    stage = _Stage.read(session, sae_id, config)
    with language_model(session, config, stage.books, batch=config.batch) as client:
        return session.run_once(stage.scope(client), lambda: stage.run(client))


def estimate(session: Session, sae_id: str, config: ExplainConfig) -> dict[str, Any]:
    """What `explain` would send and cost at most, were it started now; nothing is sent."""
    config = _resolved(config)
    if config.provider == "lexical":
        return {"provider": "lexical", "n_calls": 0, "usd": 0.0}
    stage = _Stage.read(session, sae_id, config)
    requests = explain_requests(stage.evidence, settings=stage.settings, rng_seed=config.rng_seed)
    told = {"provider": config.provider, "n_features": len(stage.evidence)}
    if config.provider == LOCAL:
        return told | {"n_calls": len(requests), "usd": 0.0}
    with paid_model(session, config, stage.books, batch=config.batch) as client:
        return told | {"model": client.name, **dataclasses.asdict(client.estimate(requests))}


def _resolved(config: ExplainConfig) -> ExplainConfig:
    """`auto` is a paid provider where one is set up, else the words alone; never the small local model silently."""
    if config.provider == "auto":
        config = dataclasses.replace(config, provider=choose_provider() or "lexical")  # type: ignore[arg-type]
    of_models = {"features": (), "max_features": None, "n_candidates": 1, "model": None, "budget_usd": None}
    of_models |= {"batch": False}
    given = [name for name, unset in of_models.items() if getattr(config, name) != unset]
    if config.provider == "lexical" and given:
        raise InputError(
            f"`{given[0]}` is for a language model, and the words alone are counted for all features; leave it out or "
            "set up a provider."
        )
    if config.provider != "lexical" and not config.embedding_score:
        raise InputError("What a model writes is shown only where it scores better than the words; let it be scored.")
    return config


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """All that one run needs from the workspace, read once."""

    session: Session
    sae_id: str
    config: ExplainConfig
    source: str
    evidence: list[Evidence]
    held_out: dict[int, HeldOutSpans]
    lexical: dict[int, Explanation]
    """The explanation by words of every feature that has one."""

    @classmethod
    def read(cls, session: Session, sae_id: str, config: ExplainConfig) -> _Stage:
        """Raises InputError where the spans are missing, or none of the features asked for fires."""
        with session.workspace.reader() as reader:
            dataset_id = reader.dataset(config.dataset)["dataset_id"]
            source = session.workspace.manifest.latest_fingerprint(f"spans/{sae_id}/{dataset_id}/{MODE}")
            if source is None:
                raise InputError(f"There are no spans of {config.dataset} for SAE {sae_id}; run `facviz spans` first.")
            halves = {
                feature: split_spans(spans)
                for feature, spans in spans_by_feature(
                    reader.rows("dataset_spans", sae_id=sae_id, dataset_id=dataset_id)
                ).items()
            }
            chosen = _chosen([f for f, (shown, _) in sorted(halves.items()) if shown.spans], config)
            evidence = _evidence(reader, sae_id, dataset_id, halves, chosen)
            lexical = _by_words(reader, sae_id, set(chosen))
        held_out = {feature: rest for feature, (_, rest) in halves.items() if rest.spans}
        return cls(session, sae_id, config, source, evidence, held_out, lexical)

    @property
    def settings(self) -> ExplainerSettings:
        return ExplainerSettings(n_candidates=self.config.n_candidates, is_plain=self.config.provider == LOCAL)

    @property
    def books(self) -> str:
        """Every SAE's explanations have a budget of their own."""
        return f"explain/{self.sae_id}"

    def scope(self, client: LLMClient) -> Scope:
        """Explanations by another model, prompt or choice of features are others."""
        described = dataclasses.replace(self.config, dataset="")
        used = [PLAIN_TEMPLATE] if self.settings.is_plain else [SYSTEM_TEMPLATE, FEATURE_TEMPLATE]
        told = [template_text(name) for name in used]
        name = fingerprint("explain", CODE_VERSION, self.source, described, client.name, told)
        return Scope("explain", f"{self.sae_id}/{self.config.provider}", name)

    def run(self, client: LLMClient) -> dict[str, Any]:
        """A shard for every few features; those that an earlier run wrote are kept."""
        manifest, scope = self.session.workspace.manifest, self.scope(client)
        scorer = self._scorer()
        if self.config.batch:  # all together first; what follows finds every reply recorded
            propose_explanations(self.evidence, client, settings=self.settings, rng_seed=self.config.rng_seed)
        for start in range(0, len(self.evidence), FEATURES_AT_ONCE):
            done = min(start + FEATURES_AT_ONCE, len(self.evidence))
            if not manifest.has_shard(scope, "explanation", str(start)):
                rows = self._explain(self.evidence[start:done], client, scorer)
                manifest.write_shard(scope, "explanation", str(start), rows_to_arrow("explanation", rows))
            self.session.progress.update("explain", done, len(self.evidence), f"features by {client.name}")
        return self._summary(scope, client)

    def _explain(self, evidence: Sequence[Evidence], client: LLMClient, scorer: Scorer) -> list[dict[str, Any]]:
        proposed = propose_explanations(evidence, client, settings=self.settings, rng_seed=self.config.rng_seed)
        chosen = [choice.best for choice in choose_explanations(proposed, scorer)]
        words = scorer([self.lexical[e.feature_id] for e in chosen if e.feature_id in self.lexical])
        return [
            explanation_row(self.sae_id, dataclasses.replace(e, version=VERSION), _beside(e, words)) for e in chosen
        ]

    def _scorer(self) -> Scorer:
        """The same comparison for every feature, whichever are explained together."""
        from facviz.embeddings import SentenceTransformerEmbedder

        features = np.random.default_rng(self.config.rng_seed).permutation(sorted(self.held_out))[:BACKGROUND_FEATURES]
        n = self.config.scored_spans
        background = HeldOutSpans(tuple(s for f in features for s in self.held_out[int(f)].spans[:n]))
        held_out = {feature: HeldOutSpans(half.spans[:n]) for feature, half in self.held_out.items()}
        return embedding_scorer(held_out, background, SentenceTransformerEmbedder(), rng_seed=self.config.rng_seed)

    def _summary(self, scope: Scope, client: LLMClient) -> dict[str, Any]:
        with self.session.workspace.reader(scope) as reader:
            rows = reader.rows("written_explanations", sae_id=self.sae_id, author=client.name)
        mine = {item.feature_id for item in self.evidence}
        rows = [row for row in rows if row["feature_id"] in mine]
        outcomes = Counter(row["outcome"] for row in rows)
        scored = {row["feature_id"]: row["score"] for row in rows if row["score"] is not None}
        words = {row["feature_id"]: row["words"] for row in rows if row["words"] is not None}
        both = [feature for feature in scored if feature in words]
        return {
            "sae_id": self.sae_id,
            "provider": self.config.provider,
            "model": client.name,
            "n_features": len(rows),
            "n_explained": outcomes["explained"],
            "n_cannot_tell": outcomes["cannot_tell"],
            "n_failed": outcomes["failed"],
            "failures": dict(Counter(failure_of(row["text"]) for row in rows if row["outcome"] == "failed")),
            "n_scored": len(scored),
            "median_embedding_auroc": _middle(list(scored.values())),
            "median_shuffled_auroc": _middle([row["shuffled"] for row in rows if row["shuffled"] is not None]),
            "median_lexical_auroc": _middle([words[feature] for feature in both]),
            "n_better_than_lexical": sum(scored[feature] > words[feature] for feature in both),
            "usd": spent_usd(client),
        }


def _middle(values: Sequence[float]) -> float | None:
    return round(float(median(values)), 3) if values else None


def _chosen(live: Sequence[int], config: ExplainConfig) -> list[int]:
    """The features asked for, or a random sample of those that fire."""
    if config.features:
        if silent := sorted(set(config.features) - set(live)):
            raise InputError(f"Feature {silent[0]} has no spans to explain it from in {config.dataset}; leave it out.")
        return sorted(set(config.features))
    if config.max_features is None or config.max_features >= len(live):
        return list(live)
    drawn = np.random.default_rng(config.rng_seed).choice(live, config.max_features, replace=False)
    return sorted(int(feature) for feature in drawn)


def _evidence(
    reader: Reader,
    sae_id: str,
    dataset_id: str,
    halves: Mapping[int, tuple[ExplainSpans, HeldOutSpans]],
    chosen: Sequence[int],
) -> list[Evidence]:
    directions = {row["feature_id"]: row for row in reader.rows("feature_directions", sae_id=sae_id)}
    fires_in: dict[int, set[int]] = {feature: set() for feature in chosen}
    for row in reader.rows("documents_of", sae_id=sae_id, dataset_id=dataset_id, mode=MODE, ids=list(chosen)):
        fires_in[row["feature_id"]].add(row["doc_no"])
    shown = {feature: half for feature, (half, _) in halves.items()}
    near = {f: directions[f]["neighbours"] or [] for f in chosen if f in directions}
    silent = nearest_negatives(shown, near, fires_in, n=ExplainerSettings().n_negatives)
    return [
        Evidence(
            shown[f],
            silent.get(f, ExplainSpans()),
            tuple(promoted_tokens(directions[f])) if f in directions else (),
        )
        for f in chosen
    ]


def _by_words(reader: Reader, sae_id: str, chosen: set[int]) -> dict[int, Explanation]:
    names = ("feature_id", "text", "author_kind", "author", "prompt", "version")
    return {
        row["feature_id"]: Explanation(outcome=ExplanationOutcome(row["outcome"]), **{n: row[n] for n in names})
        for row in reader.rows("explanations_by", sae_id=sae_id, wrote_by="lexical")
        if row["feature_id"] in chosen
    }


def _beside(explanation: Explanation, words: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """The score of the words alone on the same spans, which a model's explanation must beat to be shown."""
    score = words.get(explanation.feature_id, {}).get("embedding_auroc")
    return {} if score is None else {WORDS_SCORE: score}
