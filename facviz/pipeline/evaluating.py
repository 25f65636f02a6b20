"""`facviz evaluate`: do the samples help a head on frozen states tell the positive class apart?

Every arm is trained on the same number of documents of each label; what differs is which positives were added. The
test set decides nothing: it is de-duplicated against everything an arm may train on, and only scored.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn
from scipy import sparse

from facviz import __version__
from facviz.config import CoverageConfig, EvaluationConfig, fingerprint
from facviz.coverage import compute_fac, missing_coverage, missing_features
from facviz.evaluation.arms import GOLD_ARM, SEED_ARM, Mix, Sources, draw_mix, equal_n
from facviz.evaluation.head import tell_apart, train_head
from facviz.evaluation.intervals import Interval, average_precision, compare_arms
from facviz.pipeline.evaluation_inputs import Material, find_run, read_material
from facviz.pipeline.evaluation_rows import CEILING, correlations, evaluation_rows, rounded
from facviz.pipeline.evaluation_states import StateReader, kept
from facviz.pipeline.session import CODE_VERSION, Session
from facviz.prompts import load_task
from facviz.records import Bools, Floats, Ints
from facviz.store.gap import Gap, read_gap
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow

EVALUATION_VERSION = 2
"""Raised when the same arms would get other numbers."""
_FRONTIER_STEPS = (8, 4, 2, 1)
_MIXED = "mixed"
"""Marks the heads of an arm at full size of whose negatives up to half are generated."""


def evaluate(session: Session, task: str, config: EvaluationConfig) -> dict[str, Any]:
    """AUPRC of every arm with intervals, floor, ceiling, probe and coverage; the object `evaluate --json` prints."""
    with session.workspace.reader() as reader:
        run = find_run(reader, session.workspace.manifest, task, config.coverage)
        gap = read_gap(reader, run["sae_id"], run["task"], run["relevance_source"], _coverage_config(run))
        material = read_material(reader, run, gap.theme, config)
    states = StateReader(session, run["sae_id"], load_task(run["task"]).roles)
    name = fingerprint(
        "evaluate",
        (CODE_VERSION, EVALUATION_VERSION),
        run["coverage_id"],
        dataclasses.replace(config, coverage=run["coverage_id"]),
        material.names,
        material.positive,
        states.name,
        _contents(material),
    )
    scope = Scope("evaluate", name[:12], name)
    return session.run_once(scope, lambda: _Evaluation(session, material, gap, config, states, scope).result())


def _coverage_config(run: Mapping[str, Any]) -> CoverageConfig:
    asked = json.loads(run["details"]).get("config", {})
    return CoverageConfig(
        anchor=run["anchor"],
        seed=run["seed"],
        kind=run["threshold_kind"],
        threshold=run["act_threshold"],
        level=run["level"],
        include_always_on=bool(asked.get("include_always_on", False)),
    )


def _contents(material: Material) -> list[str]:
    """What every document of every set is, in order: names the evaluation by its texts, not by names of datasets."""
    sets = {"test": material.test, "seed": material.seed, "gold": material.gold}
    labelled = {name: [(d.doc_id, d.label) for d in found.documents] for name, found in sets.items()}
    added = {arm: [d.doc_id for d in found] for arm, found in material.added.items()}
    return [fingerprint(labelled, added, [d.doc_id for d in material.unasked])]


@dataclass(frozen=True, slots=True, eq=False)
class _Trained:
    """Heads of one arm and size, a row a seed."""

    scores: Floats  # [n_seeds, n_test]
    mixes: tuple[Mix, ...]
    strengths: tuple[float | None, ...]


class _Evaluation:
    """One evaluation at work: states first, then head after head, each kept as soon as it is trained."""

    def __init__(
        self,
        session: Session,
        material: Material,
        gap: Gap,
        config: EvaluationConfig,
        states: StateReader,
        scope: Scope,
    ) -> None:
        self._session, self._material, self._gap, self._config = session, material, gap, config
        self._reader, self._scope = states, scope
        self._started = time.monotonic()
        self._missing = missing_features(gap.anchor, gap.seed, features=gap.features, act_threshold=gap.act_threshold)
        self._seeds = range(config.rng_seed, config.rng_seed + config.n_seeds)

    def result(self) -> dict[str, Any]:
        """Train what is not trained yet, compare, and write the rows."""
        material = self._material
        test, _ = self._reader.read(material.test.documents, "texts of the test set")
        pool = [*material.seed.documents, *material.gold.documents]
        pool += [d for arm, found in material.added.items() if arm != GOLD_ARM for d in found]
        pool += material.unasked
        self._states, self._maxima = self._reader.read(pool, "texts to train on")
        self._sources, self._rows_of = self._place()
        self._test = test
        n_added, left_out = equal_n(self._sources, self._config.n_added, self._config.min_added)
        arms = [arm for arm in self._sources.added if arm not in left_out]
        sizes = sorted({max(1, n_added // step) for step in _FRONTIER_STEPS})
        trained = self._train(arms, sizes, n_added)
        summary = self._summary(arms, sizes, n_added, trained)
        summary["left_out"] = [{"arm": arm, "n": n} for arm, n in left_out.items()]
        self._write(summary)
        return summary

    def _place(self) -> tuple[Sources, Mapping[str, Ints]]:
        """Where each document's states stand: seed, gold, the texts of every arm, then the unasked ones."""
        material = self._material
        n_seed, n_gold = len(material.seed.documents), len(material.gold.documents)
        numbers = np.arange(n_seed)
        gold = np.arange(n_seed, n_seed + n_gold)
        added: dict[str, Ints] = {}
        start = n_seed + n_gold
        for arm, found in material.added.items():
            if arm == GOLD_ARM:
                added[arm] = gold[material.gold.is_positive]
            else:
                added[arm] = np.arange(start, start + len(found))
                start += len(found)
        positive = material.seed.is_positive
        unasked = np.arange(start, start + len(material.unasked))
        unasked = unasked[~self._fires_missing(unasked)]
        return Sources(numbers[positive], numbers[~positive], added, unasked), {"gold": gold, "seed": numbers}

    def _fires_missing(self, rows: Ints) -> Bools:
        """Which of these texts activate a missing feature."""
        gap, missing = self._gap, self._missing
        acts = self._maxima[rows][:, missing].toarray()
        fires: Bools = (acts > np.asarray(gap.act_threshold)[missing]).any(axis=1)
        return fires

    def _train(self, arms: Sequence[str], sizes: Sequence[int], n_added: int) -> dict[tuple[str, int], _Trained]:
        """Every arm at every size, at full size also with generated negatives, and the ceiling once."""
        wanted = [(SEED_ARM, n_added, 0), *((arm, n, 0) for arm in arms for n in sizes)]
        n_positive = len(self._sources.seed_positive) + n_added
        n_negative = min(len(self._sources.seed_negative), self._config.negatives_per_positive * n_positive)
        self._n_generated_negative = self._enough(min(n_negative // 2, len(self._sources.generated_negative)))
        wanted += [(arm, n_added, self._n_generated_negative) for arm in arms if self._n_generated_negative]
        total, found = len(wanted) * len(self._seeds), dict[tuple[str, int], _Trained]()
        for number, (arm, n, n_generated) in enumerate(wanted):
            heads, mixes = [], []
            name = f"{arm} {_MIXED}" if n_generated else arm
            for i, rng_seed in enumerate(self._seeds):
                mix = draw_mix(self._sources, arm, n, n_negative, rng_seed, n_generated_negative=n_generated)
                mixes.append(mix)
                heads.append(self._head(f"{name}-{n}-{rng_seed}", mix, rng_seed))
                done = number * len(self._seeds) + i + 1
                self._session.progress.update("train heads", done, total, f"heads, {name} with {n} added")
            scores = np.stack([scores for scores, _ in heads])
            found[name, n] = _Trained(scores, tuple(mixes), tuple(strength for _, strength in heads))
        if self._material.gold.is_positive.any():
            mix = self._everything()
            scores, strength = self._head(CEILING, mix, self._config.rng_seed)
            found[CEILING, 0] = _Trained(scores[None], (mix,), (strength,))
        return found

    def _enough(self, n: int) -> int:
        """So many, or none where they are too few for an arm."""
        return n if n >= self._config.min_added else 0

    def _everything(self) -> Mix:
        """Gold at full size: all labelled real texts that may train."""
        rows = np.concatenate([self._rows_of["seed"], self._rows_of["gold"]])
        is_positive = np.concatenate([self._material.seed.is_positive, self._material.gold.is_positive])
        return Mix(rows, is_positive, np.ones(len(rows), np.int64), np.empty(0, np.int64))

    def _head(self, name: str, mix: Mix, rng_seed: int) -> tuple[Floats, float | None]:
        readable = re.sub(r"[^A-Za-z0-9_+.-]", "_", name)[:80]
        folder = self._session.workspace.root / "evaluation" / self._scope.subject

        def make() -> dict[str, npt.NDArray[Any]]:
            states = self._states[mix.rows]
            head = train_head(states, mix.is_positive, mix.weight, self._test, rng_seed=rng_seed)
            strength = np.nan if head.strength is None else head.strength
            return {"scores": head.scores.astype(np.float32), "strength": np.array(strength)}

        found = kept(folder / f"{readable}-{fingerprint(name)[:6]}.npz", make)
        strength = float(found["strength"])
        return np.asarray(found["scores"], np.float64), None if np.isnan(strength) else strength

    def _summary(
        self, arms: Sequence[str], sizes: Sequence[int], n_added: int, trained: Mapping[tuple[str, int], _Trained]
    ) -> dict[str, Any]:
        material, config = self._material, self._config
        positive = material.test.is_positive
        names = {f"{arm}/{n}": found for (arm, n), found in trained.items()}
        self._session.progress.update("evaluate", 0, None, "intervals")
        intervals, gains = compare_arms(
            {name: found.scores for name, found in names.items()},
            positive,
            against=f"{SEED_ARM}/{n_added}",
            n_bootstrap=config.n_bootstrap,
            rng_seed=config.rng_seed,
        )
        described = [self._arm(arm, n_added, trained[arm, n_added], intervals, gains) for arm in (SEED_ARM, *arms)]
        frontier = [
            {"arm": arm, "n_added": n, **rounded(intervals[f"{arm}/{n}"]), **self._coverage(trained[arm, n].mixes)}
            for arm in arms
            for n in sizes
        ]
        ceiling = intervals.get(f"{CEILING}/0")
        mix = trained[SEED_ARM, n_added].mixes[0]
        run = material.run
        return {
            "eval_id": self._scope.subject,
            **{key: run[key] for key in ("task", "coverage_id", "sae_id", "anchor", "seed")},
            "gold": material.names["gold"],
            "test": material.names["test"],
            "is_split": material.is_split,
            "positive": list(material.positive),
            "backbone": self._session.backbone_config.name,
            "layer": self._session.backbone.layer,
            "n_test": len(positive),
            "n_test_positive": int(positive.sum()),
            "prevalence": round(float(positive.mean()), 4),
            "n_exact_duplicates": material.n_exact,
            "n_near_duplicates": material.n_near,
            "n_other_themes": material.n_other_themes,
            "n_added": n_added,
            "n_positive": mix.n_positive or n_added,
            "n_negative": mix.n_negative,
            "n_generated_negative": self._n_generated_negative,
            "n_seed_positive": len(self._sources.seed_positive),
            "n_seeds": config.n_seeds,
            "rng_seed": config.rng_seed,
            "n_bootstrap": config.n_bootstrap,
            "arms": described,
            "ceiling": ceiling and {"n_train": len(trained[CEILING, 0].mixes[0].rows), **rounded(ceiling)},
            "frontier": frontier,
            "correlation": correlations(described, frontier),
            "versions": {"facviz": __version__, "scikit-learn": sklearn.__version__, "evaluation": EVALUATION_VERSION},
            "seconds": round(time.monotonic() - self._started, 1),
        }

    def _arm(
        self, arm: str, n_added: int, found: _Trained, intervals: Mapping[str, Interval], gains: Mapping[str, Any]
    ) -> dict[str, Any]:
        name, mix = f"{arm}/{n_added}", found.mixes[0]
        gain = gains.get(name)
        by_seed = [round(float(average_precision(s, self._material.test.is_positive)[0]), 4) for s in found.scores]
        return {
            "arm": arm,
            "n_available": len(self._sources.added.get(arm, self._sources.seed_positive)),
            "n_train": mix.n_positive + mix.n_negative,
            "n_positive": mix.n_positive,
            "n_distinct_positive": mix.n_distinct_positive,
            "n_negative": mix.n_negative,
            "n_added": len(mix.added),
            **rounded(intervals[name]),
            "by_seed": by_seed,
            "gain": None if gain is None else {k: round(v, 4) for k, v in dataclasses.asdict(gain).items()},
            "strengths": list(found.strengths),
            "is_trained": found.strengths[0] is not None,
            _MIXED: rounded(intervals[mixed]) if (mixed := f"{arm} {_MIXED}/{n_added}") in intervals else None,
            "probe": None if arm == SEED_ARM else self._probe(arm, n_added),
            **self._coverage(found.mixes),
        }

    def _probe(self, arm: str, n_added: int) -> dict[str, Any] | None:
        """Can a head tell the arm's texts from real ones of the same class? Real against real for the gold arm.

        As many of each as an arm adds, so that arms are probed alike.
        """
        gold = self._sources.added.get(GOLD_ARM)
        if gold is None:
            gold = self._rows_of["gold"][self._material.gold.is_positive]
        against = "real texts of the positive class"
        if not len(gold):
            gold, against = self._rows_of["seed"], "the seed set, for want of real positives"
        found = []
        for rng_seed in self._seeds:
            rng = np.random.default_rng(rng_seed)
            order, texts = rng.permutation(gold), rng.permutation(self._sources.added[arm])[:n_added]
            real = order[:n_added]
            if arm == GOLD_ARM:
                texts, real = order[::2][:n_added], order[1::2][:n_added]
            auroc = tell_apart(self._states[texts], self._states[real], rng_seed=rng_seed)
            if auroc is None:
                return None
            found.append(auroc)
        n = min(len(texts), len(real))
        spread = {"auroc": float(np.mean(found)), "lowest": min(found), "highest": max(found)}
        return {**{k: round(v, 4) for k, v in spread.items()}, "n_each": n, "against": against}

    def _coverage(self, mixes: Sequence[Mix]) -> dict[str, float | None]:
        """FAC of the seed set with what was added, and the missing coverage of what was added; means over seeds."""
        gap, missing = self._gap, self._missing
        fac, filled = [], []
        for mix in mixes:
            added = self._maxima[mix.added]
            merged = sparse.vstack([gap.seed, added]).tocsr()
            fac.append(compute_fac(gap.anchor, merged, features=gap.features, act_threshold=gap.act_threshold))
            if len(missing):
                share = missing_coverage(missing, added, act_threshold=gap.act_threshold) if len(mix.added) else 0.0
                filled.append(share)
        mean = None if not filled else round(float(np.mean(filled)), 4)
        return {"fac": round(float(np.mean(fac)), 4), "missing_coverage": mean}

    def _write(self, summary: Mapping[str, Any]) -> None:
        rows = evaluation_rows(summary, self._seeds)
        manifest = self._session.workspace.manifest
        manifest.write_shard(self._scope, "evaluation", "0", rows_to_arrow("evaluation", rows))
