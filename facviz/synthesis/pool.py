"""Texts that were aimed at no missing feature, credited with every one that they turn out to activate.

They pass the same gates and the same verification as aimed ones, alone and in float32, for every missing feature at
once. Nothing stops early: a baseline draws all that `paper` may draw.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facviz.protocols import Encoder
from facviz.records import Candidate, Document, Encoded
from facviz.synthesis.engine import RANKING_SLACK, SampleGate
from facviz.synthesis.gates import TextGates
from facviz.synthesis.measuring import act_of
from facviz.synthesis.plan import FeatureBrief
from facviz.synthesis.results import FeatureResult, FeatureState, OnResult

NO_FEATURE = -1
"""Stands where a candidate is credited with no missing feature."""
NOTHING_FIRES = "no missing feature fires"
NOTHING_FIRES_ALONE = "no missing feature fires alone"

Shown = Mapping[str, Sequence[str]]
"""By candidate, the texts that stood in its prompt."""


@dataclass(frozen=True, slots=True)
class Crediting:
    """Which missing features a text activates, and whether it may stand for them."""

    briefs: Mapping[int, FeatureBrief]
    encoder: Encoder
    gates: TextGates
    after: SampleGate | None = None

    @classmethod
    def of(
        cls, briefs: Sequence[FeatureBrief], encoder: Encoder, gates: TextGates, after: SampleGate | None
    ) -> Crediting:
        """Credit for the features of these briefs."""
        return cls({b.feature_id: b for b in sorted(briefs, key=lambda b: b.feature_id)}, encoder, gates, after)

    def credit(self, candidates: Sequence[Candidate], shown: Shown) -> list[Candidate]:
        """Every candidate without a reason against it measured on all missing features, the strongest first.

        One that a batched pass shows near a bar is encoded alone. `feature_id` becomes the feature whose bar it exceeds
        most, `gates["credited"]` all that it activates.
        """
        waiting = [c for c in candidates if c.reject_reason is None]
        documents = [self._document(c) for c in waiting]
        ratios = self._ratios(self.encoder.encode(documents)) if waiting else np.zeros((0, 1))
        best = {c.candidate_id: float(row.max(initial=0.0)) for c, row in zip(waiting, ratios)}
        done = {c.candidate_id: _without_credit(c) for c in candidates}
        for candidate in sorted(waiting, key=lambda c: -best[c.candidate_id]):
            marked = _without_credit(candidate, ranked_share=round(best[candidate.candidate_id], 4))
            done[candidate.candidate_id] = self._verified(marked, shown[candidate.candidate_id])
        return list(done.values())

    def remember(self, candidates: Sequence[Candidate]) -> None:
        """What an earlier process accepted."""
        for candidate in candidates:
            if candidate.accepted:
                self.gates.accept(candidate.text)
                if self.after is not None:
                    self.after.accept(candidate.text)

    def results(self, candidates: Sequence[Candidate], n_wanted: int, *, is_out_of_money: bool) -> list[FeatureResult]:
        """One result a feature: its strongest samples, and an equal part of the texts that nothing is credited with."""
        credits = Counter(feature for c in candidates if c.accepted for feature in c.gates["credited"])
        filled = {feature for feature, n in credits.items() if n >= n_wanted}
        otherwise = FeatureState.BUDGET if is_out_of_money else FeatureState.EXHAUSTED
        results = {
            feature: FeatureResult(brief, None, FeatureState.FILLED if feature in filled else otherwise)
            for feature, brief in self.briefs.items()
        }
        owners = list(results.values())
        for number, candidate in enumerate(candidates):
            owner = results.get(candidate.feature_id) or owners[number * len(owners) // len(candidates)]
            owner.candidates.append(candidate)
        return owners

    def _verified(self, candidate: Candidate, shown: Sequence[str]) -> Candidate:
        if candidate.gates["ranked_share"] <= RANKING_SLACK:
            return dataclasses.replace(candidate, reject_reason=NOTHING_FIRES)
        if again := self.gates.check(candidate.text, ())[1]:  # like one accepted a moment ago
            return dataclasses.replace(candidate, reject_reason=again)
        alone = self.encoder.encode_alone(self._document(candidate))
        [ratios] = self._ratios(alone)
        fired = np.argsort(-ratios, kind="stable")[: int((ratios > 1).sum())]
        features = [list(self.briefs)[i] for i in fired]
        if not features:
            return dataclasses.replace(candidate, reject_reason=NOTHING_FIRES_ALONE)
        checked = [self._checked(candidate, feature, alone, shown) for feature in features]
        passed = [c for c in checked if c.reject_reason is None]
        if not passed:
            return dataclasses.replace(checked[0], feature_id=NO_FEATURE)
        gates = {**passed[0].gates, "credited": [c.feature_id for c in passed]}
        accepted = dataclasses.replace(passed[0], gates=gates, accepted=True)
        self.remember([accepted])
        return accepted

    def _checked(self, candidate: Candidate, feature_id: int, alone: Encoded, shown: Sequence[str]) -> Candidate:
        """The candidate as a sample of one feature, with what the gates behind verification say of it."""
        act, peak = act_of(alone, 0, feature_id)
        gates = {**candidate.gates, "verified_act": act}
        sample = dataclasses.replace(candidate, feature_id=feature_id, act=act, peak_token=peak, gates=gates)
        if self.after is None:
            return sample
        measures, reason = self.after.check(self.briefs[feature_id], sample, shown, alone)
        return dataclasses.replace(sample, gates={**gates, **measures}, reject_reason=reason)

    def _document(self, candidate: Candidate) -> Document:
        return next(iter(self.briefs.values())).document(candidate.text, candidate.fields)

    def _ratios(self, encoded: Encoded) -> npt.NDArray[np.float64]:
        """Activation of every missing feature over its bar, [n_texts, n_features]; above a bar of zero infinite."""
        acts = encoded.max_acts[:, list(self.briefs)].toarray().astype(np.float64)
        bars = np.array([brief.bar for brief in self.briefs.values()])
        above_zero = np.where(acts > 0, np.inf, 0.0)
        return np.where(bars > 0, acts / np.where(bars > 0, bars, 1.0), above_zero)


def _without_credit(candidate: Candidate, **measures: Any) -> Candidate:
    gates = {k: v for k, v in candidate.gates.items() if k != "ranked_act"} | measures | {"credited": []}
    return dataclasses.replace(candidate, feature_id=NO_FEATURE, act=0.0, peak_token=-1, gates=gates, accepted=False)


def told_in_order(
    results: Sequence[FeatureResult], briefs: Sequence[FeatureBrief], on_result: OnResult | None
) -> list[FeatureResult]:
    """Results in the order of the briefs, each also handed to who listens."""
    by_feature = {result.brief.feature_id: result for result in results}
    ordered = [by_feature[brief.feature_id] for brief in briefs]
    if on_result is not None:
        for result in ordered:
            on_result(result)
    return ordered
