"""`facviz score`: how well the explanations that are shown hold on held-out spans, by embedding or by a judge.

Scores are rows of their own beside the explanation they belong to, with its text: an edited explanation shows at once
that nobody scored it yet.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

import numpy as np

from facviz.config import ScoreConfig, fingerprint
from facviz.errors import InputError
from facviz.explain.sampling import HeldOutSpans, nearest_negatives, random_negatives, split_spans
from facviz.explain.scorers import EmbeddingScore, embedding_scores
from facviz.explain.trials import (
    DETECTION,
    FUZZING,
    INTRUDER,
    TrialPlan,
    TrialScore,
    TrialSettings,
    plan_detection,
    plan_fuzzing,
    plan_intruder,
    run_trials,
    trial_templates,
)
from facviz.pipeline.features import current_explanations
from facviz.pipeline.models import LOCAL, language_model, paid_model, spent_usd
from facviz.pipeline.session import CODE_VERSION, Session
from facviz.prompts import template_text
from facviz.protocols import Embedder, LLMClient
from facviz.records import Explanation, ExplanationOutcome
from facviz.spans import spans_by_feature
from facviz.store.manifest import Scope
from facviz.store.reader import Reader
from facviz.store.schema import MODE, rows_to_arrow

EMBEDDING = "embedding"
KINDS = (EMBEDDING, DETECTION, FUZZING, INTRUDER)
FEATURES_AT_ONCE = 32
"""Scored between two shards."""
BACKGROUND_FEATURES = 400
"""Whose held-out spans an explanation must tell from those of its own feature, by embedding."""
_JUDGED = (
    "feature_id", "kind", "judge", "explainer", "chance", "n", "n_invalid", "n_positive", "accuracy", "low", "high",
    "sensitivity", "specificity", "n_shuffled",
)  # fmt: skip


def score(session: Session, sae_id: str, config: ScoreConfig) -> dict[str, Any]:
    """Scores of the kinds asked for; what was scored before in the same way is kept."""
    stage = _Stage.read(session, sae_id, config)
    told: dict[str, Any] = {"sae_id": sae_id, "n_features": len(stage.chosen)}
    if EMBEDDING in config.kinds:
        scope = stage.scope(EMBEDDING, "")
        told |= session.run_once(scope, lambda: stage.run_embedding(scope))
    if stage.judged_kinds:
        with language_model(session, config, stage.books, batch=config.batch) as client:
            judged = stage.scope("+".join(stage.judged_kinds), client.name)
            told |= session.run_once(judged, lambda: stage.run_judge(judged, client))
    return told


def estimate(session: Session, sae_id: str, config: ScoreConfig) -> dict[str, Any]:
    """What `score` would send and cost at most, were it started now; nothing is sent."""
    stage = _Stage.read(session, sae_id, config)
    told: dict[str, Any] = {"sae_id": sae_id, "n_features": len(stage.chosen)}
    if not stage.judged_kinds:
        return told | {"n_calls": 0, "usd": 0.0}
    requests = [r for part in stage.parts() for plan in stage.plans(part) for r in plan.requests]
    if config.provider == LOCAL:
        return told | {"n_calls": len(requests), "usd": 0.0}
    with paid_model(session, config, stage.books, batch=config.batch) as client:
        return told | {"model": client.name, **dataclasses.asdict(client.estimate(requests))}


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """All that one run needs from the workspace, read once."""

    session: Session
    sae_id: str
    dataset_id: str
    config: ScoreConfig
    source: str
    chosen: list[int]
    explained: dict[int, Explanation]
    held_out: dict[int, HeldOutSpans]
    silent: dict[int, HeldOutSpans]
    background: list[int]
    """Features whose held-out spans an explanation is told from by embedding."""

    @classmethod
    def read(cls, session: Session, sae_id: str, config: ScoreConfig) -> _Stage:
        """Raises InputError where the spans are missing, or a feature asked for cannot be scored."""
        if unknown := [kind for kind in config.kinds if kind not in KINDS]:
            raise InputError(f"There is no score {unknown[0]!r}; choose among {', '.join(KINDS)}.")
        _refuse_idle_flags(config)
        with session.workspace.reader() as reader:
            dataset_id = reader.dataset(config.dataset)["dataset_id"]
            source = session.workspace.manifest.latest_fingerprint(f"spans/{sae_id}/{dataset_id}/{MODE}")
            if source is None:
                raise InputError(f"There are no spans of {config.dataset} for SAE {sae_id}; run `facviz spans` first.")
            explained = {
                e.feature_id: e
                for e in current_explanations(reader, sae_id)
                if e.outcome is ExplanationOutcome.EXPLAINED and e.text
            }
            held_ids = reader.named("held_out_features", sae_id=sae_id, dataset_id=dataset_id)["feature_id"].to_pylist()
            chosen = _chosen(explained, set(held_ids), config)
            near = _neighbours(reader, sae_id, chosen)
            background = np.random.default_rng(config.rng_seed).permutation(held_ids)[:BACKGROUND_FEATURES].tolist()
            needed = sorted({*chosen, *background, *(i for ids in near.values() for i in ids)})
            rows = reader.rows("spans_of", sae_id=sae_id, dataset_id=dataset_id, ids=needed)
            halves = {feature: split_spans(found)[1] for feature, found in spans_by_feature(rows).items()}
            held_out = {feature: half for feature, half in halves.items() if half.spans}
            silent = _negatives(reader, sae_id, dataset_id, held_out, near, config)
        return cls(session, sae_id, dataset_id, config, source, chosen, explained, held_out, silent, background)

    @property
    def judged_kinds(self) -> tuple[str, ...]:
        return tuple(kind for kind in KINDS if kind in self.config.kinds and kind != EMBEDDING)

    @property
    def books(self) -> str:
        """Every SAE's scores have a budget of their own."""
        return f"score/{self.sae_id}"

    @property
    def settings(self) -> TrialSettings:
        c = self.config
        return TrialSettings(n_items=c.n_items, n_lineups=c.n_lineups, with_shuffled=c.with_shuffled)

    def scope(self, kind: str, judge: str) -> Scope:
        """Another text, judge or question is another score; scores of other features stand beside it."""
        described = dataclasses.replace(self.config, dataset="", kinds=(kind,))
        told = [template_text(name) for name in trial_templates()] if judge else []
        texts = [(f, self.explained[f].text) for f in self.chosen if f in self.explained]
        name = fingerprint("score", CODE_VERSION, self.source, described, judge, told, self.chosen, texts)
        features = hashlib.sha256(json.dumps(self.chosen).encode()).hexdigest()[:12]
        return Scope("score", f"{self.sae_id}/{kind}/{judge}/{features}", name)

    def parts(self) -> Iterator[list[int]]:
        """Features a few at a time."""
        for start in range(0, len(self.chosen), FEATURES_AT_ONCE):
            yield self.chosen[start : start + FEATURES_AT_ONCE]

    # By a judge -------------------------------------------------------------------------------------------------------

    def plans(self, features: Sequence[int]) -> list[TrialPlan]:
        """The questions of every kind about some features."""
        told = [self.explained[f] for f in features if f in self.explained]
        own = {f: self.held_out[f] for f in features}
        seed, others = self.config.rng_seed, [self.explained[f] for f in sorted(self.explained)]
        make: Mapping[str, Callable[[], TrialPlan]] = {
            DETECTION: lambda: plan_detection(
                told, own, self.silent, settings=self.settings, rng_seed=seed, strangers=others
            ),
            FUZZING: lambda: plan_fuzzing(told, own, settings=self.settings, rng_seed=seed, strangers=others),
            INTRUDER: lambda: plan_intruder(own, self.silent, settings=self.settings, rng_seed=seed),
        }
        return [make[kind]() for kind in self.judged_kinds]

    def run_judge(self, scope: Scope, client: LLMClient) -> dict[str, Any]:
        """A shard for every few features; those that an earlier run wrote are kept."""

        def rows(features: Sequence[int]) -> list[dict[str, Any]]:
            return [self._judged_row(found) for found in run_trials(self.plans(features), client)]

        if self.config.batch:  # all together first; what follows finds every reply recorded
            run_trials([plan for part in self.parts() for plan in self.plans(part)], client)
        found = self._run(scope, rows, client.name)
        told: dict[str, Any] = {"judge": client.name, "usd": spent_usd(client)}
        explainers = {row["explainer"] for row in found if row["explainer"]}
        told["judges_itself"] = client.name in explainers
        return told | {kind: _summary([row for row in found if row["kind"] == kind]) for kind in self.judged_kinds}

    def _judged_row(self, found: TrialScore) -> dict[str, Any]:
        text = "" if found.kind == INTRUDER else self.explained[found.feature_id].text
        negatives = self.config.negatives if found.kind != FUZZING else ""
        return self._row(
            {name: getattr(found, name) for name in _JUDGED},
            text=text,
            negatives=negatives,
            shuffled=found.shuffled_accuracy,
            intervals=found.by_interval,
        )

    # By embedding -----------------------------------------------------------------------------------------------------

    def run_embedding(self, scope: Scope) -> dict[str, Any]:
        """The same comparison for every feature, whichever are scored together."""
        from facviz.embeddings import SentenceTransformerEmbedder

        embedder = SentenceTransformerEmbedder()
        n = self.config.n_items
        background = [span for f in self.background for span in self.held_out[f].spans[:n]]
        others = [self.explained[f] for f in sorted(self.explained)]

        def rows(features: Sequence[int]) -> list[dict[str, Any]]:
            told = [self.explained[f] for f in features if f in self.explained]
            spans = {e.feature_id: self.held_out[e.feature_id].spans[:n] for e in told}
            found = embedding_scores(told, spans, background, embedder, rng_seed=self.config.rng_seed, strangers=others)
            return [self._embedding_row(embedder, feature, value) for feature, value in found.items()]

        return {EMBEDDING: _summary(self._run(scope, rows, "embedding"))}

    def _embedding_row(self, embedder: Embedder, feature_id: int, found: EmbeddingScore) -> dict[str, Any]:
        explanation = self.explained[feature_id]
        n_shuffled = 0 if found.shuffled_auroc is None else found.n_active + found.n_background
        measured = {"accuracy": found.auroc, "low": found.low, "high": found.high, "n_shuffled": n_shuffled}
        counts = {"n": found.n_active + found.n_background, "n_positive": found.n_active, "n_invalid": 0}
        named = {"feature_id": feature_id, "kind": EMBEDDING, "judge": embedder.name, "explainer": explanation.author}
        return self._row(
            named | counts | measured | {"chance": 0.5, "sensitivity": None, "specificity": None},
            text=explanation.text,
            negatives="random",
            shuffled=found.shuffled_auroc,
            intervals=found.by_interval,
        )

    # Both -------------------------------------------------------------------------------------------------------------

    def _row(self, values: Mapping[str, Any], *, intervals: Sequence[Any], **more: Any) -> dict[str, Any]:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        parts = json.dumps([dataclasses.asdict(part) for part in intervals])
        return {"sae_id": self.sae_id, "dataset_id": self.dataset_id, "intervals": parts, "at": at, **values, **more}

    def _run(
        self, scope: Scope, rows: Callable[[Sequence[int]], list[dict[str, Any]]], by: str
    ) -> list[dict[str, Any]]:
        manifest, n_done = self.session.workspace.manifest, 0
        for number, features in enumerate(self.parts()):
            if not manifest.has_shard(scope, "explanation_score", str(number)):
                found = rows_to_arrow("explanation_score", rows(features))
                manifest.write_shard(scope, "explanation_score", str(number), found)
            n_done += len(features)
            self.session.progress.update("score", n_done, len(self.chosen), f"features by {by}")
        with self.session.workspace.reader(scope) as reader:
            kinds = (EMBEDDING,) if by == EMBEDDING else self.judged_kinds
            written = reader.rows("scores_of", sae_id=self.sae_id, ids=self.chosen)
        return [row for row in written if row["kind"] in kinds and (by == EMBEDDING or row["judge"] == by)]


def _refuse_idle_flags(config: ScoreConfig) -> None:
    given = [name for name in ("model", "budget_usd") if getattr(config, name) is not None]
    given += ["batch"] * config.batch + ["provider"] * (config.provider != "auto")
    if given and set(config.kinds) <= {EMBEDDING}:
        raise InputError(f"`{given[0]}` is of a judge, and embedding asks none; leave it out or ask for another kind.")


def _chosen(explained: Mapping[int, Explanation], held_out: Set[int], config: ScoreConfig) -> list[int]:
    """Features with spans to be scored on; without an explanation only where a kind asked for needs none."""
    usable = sorted(held_out & explained.keys())
    if INTRUDER in config.kinds and set(config.kinds) == {INTRUDER}:
        usable = sorted(held_out)
    if config.features:
        if missing := sorted(set(config.features) - set(usable)):
            lack = "held-out spans" if missing[0] not in held_out else "an explanation"
            raise InputError(f"Feature {missing[0]} cannot be scored in {config.dataset}: it lacks {lack}.")
        return sorted(set(config.features))
    if not usable:
        raise InputError("No explained feature has held-out spans; run `facviz explain` first.")
    if config.max_features is None or config.max_features >= len(usable):
        return usable
    drawn = np.random.default_rng(config.rng_seed).choice(usable, config.max_features, replace=False)
    return sorted(int(feature) for feature in drawn)


def _neighbours(reader: Reader, sae_id: str, chosen: Sequence[int]) -> dict[int, list[int]]:
    """The nearest features of each, as many as are known."""
    known = {
        row["feature_id"]: row["neighbours"] or [] for row in reader.rows("neighbours_of", sae_id=sae_id, ids=chosen)
    }
    return {feature: known.get(feature, []) for feature in chosen}


def _negatives(
    reader: Reader,
    sae_id: str,
    dataset_id: str,
    held_out: Mapping[int, HeldOutSpans],
    near: Mapping[int, Sequence[int]],
    config: ScoreConfig,
) -> dict[int, HeldOutSpans]:
    if not {DETECTION, INTRUDER} & set(config.kinds):
        return {}
    fires_in: dict[int, set[int]] = {feature: set() for feature in near}
    for row in reader.rows("documents_of", sae_id=sae_id, dataset_id=dataset_id, mode=MODE, ids=list(near)):
        fires_in[row["feature_id"]].add(row["doc_no"])
    if config.negatives == "random":
        return random_negatives(held_out, near, fires_in, n=config.n_items, rng_seed=config.rng_seed)
    return nearest_negatives(held_out, near, fires_in, n=config.n_items)


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians over features; what was not measured counts nowhere."""
    measured = [row["accuracy"] for row in rows if row["accuracy"] is not None]
    shuffled = [row["shuffled"] for row in rows if row["shuffled"] is not None]
    return {
        "n_scored": len(measured),
        "median": round(float(median(measured)), 3) if measured else None,
        "median_shuffled": round(float(median(shuffled)), 3) if shuffled else None,
        "chance": rows[0]["chance"] if rows else None,
        "n_invalid": sum(row["n_invalid"] for row in rows),
    }
