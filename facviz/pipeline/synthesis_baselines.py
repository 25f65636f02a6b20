"""Baselines on a workspace: the seed texts they show, the features they aim at, and what they will ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from facviz.config import CoverageConfig, SynthesisConfig
from facviz.coverage import doc_frequency
from facviz.pipeline.session import Session, load_documents
from facviz.pipeline.synthesis_inputs import briefs_of
from facviz.prompts import load_task
from facviz.protocols import Encoder, LLMClient
from facviz.records import LLMRequest
from facviz.store.gap import read_gap
from facviz.synthesis.asking import Asker, planned_batches
from facviz.synthesis.axes import AxisCounts
from facviz.synthesis.baselines import (
    RANDOM_FEATURE,
    RandomFeature,
    Untargeted,
    pool_asks,
    random_feature_settings,
    random_features,
    shown_texts,
)
from facviz.synthesis.engine import SampleGate, Synthesizer
from facviz.synthesis.gates import TextGates
from facviz.synthesis.plan import FeatureBrief
from facviz.synthesis.results import BatchLedger, Filler
from facviz.synthesis.strategies import Paired, takes_schema


@dataclass(frozen=True, slots=True, eq=False)
class BaselineRun:
    """One baseline on a coverage run; `briefs` are the missing features it may be credited with."""

    session: Session
    measured: Mapping[str, Any]
    coverage_config: CoverageConfig
    config: SynthesisConfig
    synth_id: str
    briefs: Sequence[FeatureBrief]
    is_sampling: bool = True
    is_small: bool = True

    def filler(
        self,
        client: LLMClient,
        encoder: Encoder,
        gates: TextGates,
        ledger: BatchLedger,
        after: SampleGate | None = None,
    ) -> Filler:
        """What fills the features."""
        config = self.config
        if config.strategy != RANDOM_FEATURE:
            return Untargeted(self.synth_id, client, encoder, gates, ledger, config, self._seed_texts(), after)
        engine = Synthesizer(
            self.synth_id,
            client,
            encoder,
            deepcopy(gates),  # what it accepts for its own target is not yet a sample
            ledger,
            random_feature_settings(config),
            self._strategy(),
            is_sampling=self.is_sampling,
            is_small=self.is_small,
        )
        return RandomFeature(engine, self._aimed_at(), encoder, gates, config.per_feature, after)

    def outlook(self, ledger: BatchLedger) -> tuple[int, int, list[LLMRequest]]:
        """Replies in all, those of finished batches, and requests for the rest."""
        if self.config.strategy != RANDOM_FEATURE:
            asks = list(pool_asks(self.synth_id, self.config, self.briefs, self._seed_texts()))
            found = [ledger.recall(ask.place) for ask in asks]
            left = [request for ask, batch in zip(asks, found) if batch is None for request in ask.requests]
            return sum(r.n for ask in asks for r in ask.requests), sum(len(b) for b in found if b is not None), left
        config = random_feature_settings(self.config)
        asker = Asker(self.synth_id, self._strategy(), config, is_sampling=self.is_sampling, is_small=self.is_small)
        n_calls, n_cached, requests = 0, 0, list[LLMRequest]()
        for brief in self._aimed_at():
            for batch in planned_batches(self._strategy(), config, 0):
                n_calls += batch.size
                known = ledger.recall(asker.place(brief, batch))
                n_cached += len(known or ())
                if known is None:
                    requests += asker.ask(brief, batch, [], AxisCounts(), AxisCounts()).requests
        return n_calls, n_cached, requests

    def _strategy(self) -> Paired:
        return Paired(self.config.min_margin, has_schema=takes_schema(self.config), name=RANDOM_FEATURE)

    def _seed_texts(self) -> list[str]:
        with self.session.workspace.reader() as reader:
            documents = load_documents(reader, reader.dataset(self.measured["seed"])["dataset_id"])
        return shown_texts(documents, load_task(self.measured["task"]).roles[0])

    def _aimed_at(self) -> list[FeatureBrief]:
        """Features that nothing misses, with the evidence the targeted engine would be given of them."""
        measured = self.measured
        with self.session.workspace.reader() as reader:
            source = measured["relevance_source"]
            gap = read_gap(reader, measured["sae_id"], measured["task"], source, self.coverage_config)
            missing = [row["feature_id"] for row in reader.rows("missing", coverage_id=measured["coverage_id"])]
            frequency = doc_frequency(gap.anchor, gap.act_threshold)
            drawn = random_features(gap.features, frequency > 0, missing, len(self.briefs), self.config.rng_seed)
            rows = [
                {"feature_id": f, "act_threshold": float(gap.act_threshold[f]), "n_anchor_docs": int(frequency[f])}
                for f in drawn
            ]
            return briefs_of(reader, measured, self.coverage_config, self.config, rows)
