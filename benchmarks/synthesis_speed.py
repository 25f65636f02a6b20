"""Filling features in waves against the one-at-a-time loop: a text with `generate`, measured alone, then the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from benchmarks.generation import written_alone
from benchmarks.results import Result, alternate
from benchmarks.spans import random_sae
from facviz.activations import SaeEncoder
from facviz.backbone import Backbone
from facviz.config import SynthesisConfig
from facviz.llm.local import LocalChat
from facviz.prompts import load_task
from facviz.protocols import Encoder
from facviz.records import Candidate, Document, LLMRequest, Span, Split
from facviz.synthesis.engine import Synthesizer
from facviz.synthesis.gates import TextGates
from facviz.synthesis.pairs import pair_messages
from facviz.synthesis.plan import VERIFICATION_MARGIN, BatchPlace, FeatureBrief
from facviz.synthesis.results import FeatureResult
from facviz.synthesis.strategies import PAIRS, STRATEGIES

BAR = 8.0
SPAN_WORDS = 12
FIRING = 0.2
"""About what `docs/results.md` finds of candidates by the targeted strategies."""


class _NoLedger:
    """Nothing is kept: every run is drawn anew."""

    def recall(self, place: BatchPlace) -> list[Candidate] | None:
        """Never there."""

    def record(self, place: BatchPlace, candidates: Sequence[Candidate]) -> None:
        """Nothing."""


def bench_synthesis(
    slow: Backbone,
    fast: Backbone,
    documents: Sequence[Document],
    *,
    d_sae: int = 4096,
    l0: float = 32,
    n_features: int = 4,
    n_single: int = 3,
    n_pairs: int = 2,
    **settings: int,
) -> Result:
    """Candidates with a verdict per second, both ways with the same prompts, model and precision.

    Ours draws every candidate of the plan: as many are wanted as there are, so that each which ranks above the bar is
    verified alone in float32; bars are set so that about a fifth of those of step 2 does. The reference measures each
    of its own alone in float32. Gates behind verification are left out on both sides.
    """
    plan = {"pair_candidates": 16, "max_candidates": 16, "per_feature": 16, "features_at_once": n_features}
    config = SynthesisConfig(**{**plan, **settings})  # type: ignore[arg-type]
    sae = random_sae(slow, documents, d_sae, l0)
    encoder = SaeEncoder(slow, sae, roles=("user",), fast=fast)
    briefs = make_briefs(encoder, documents, n_features)
    chat, n_verified = LocalChat(fast), [0, 0]

    def fill(wanted: Sequence[FeatureBrief]) -> list[FeatureResult]:
        strategy = STRATEGIES[config.strategy](config)
        return Synthesizer("bench", chat, encoder, TextGates(()), _NoLedger(), config, strategy).fill_all(wanted)

    briefs = [_with_bar(result) for result in fill(briefs)]

    def ours() -> int:
        drawn = [c for result in fill(briefs) for c in result.candidates]
        n_verified[0] = sum("verified_act" in c.gates for c in drawn)
        n_verified[1] = len(drawn)
        return len(drawn)

    def one_at_a_time() -> int:
        for i in range(n_single):
            brief = briefs[i % n_features]
            request = LLMRequest(pair_messages(brief)[0], max_tokens=config.max_tokens)
            text = fast.tokenizer.decode(written_alone(fast, request, i), skip_special_tokens=True)
            encoder.encode_alone(brief.document(text))
        return n_single

    pairs = alternate(ours, one_at_a_time, n_pairs)
    return pairs.result(
        "synthesis",
        "candidates/s",
        BAR,
        dtype=str(fast.model.dtype).removeprefix("torch."),
        n_features=n_features,
        n_candidates=n_verified[1],
        n_verified_alone=n_verified[0],
        max_tokens=config.max_tokens,
    )


def make_briefs(encoder: Encoder, documents: Sequence[Document], n_features: int) -> list[FeatureBrief]:
    """Features that fire in about half of the documents, each at the 95th percentile of where it does."""
    acts = encoder.encode(documents).max_acts.tocsc()
    n_docs = np.diff(acts.indptr)
    task, briefs = load_task("topic"), list[FeatureBrief]()
    for feature in np.argsort(np.abs(n_docs - len(documents) / 2), kind="stable")[:n_features]:
        column = acts[:, [int(feature)]].tocoo()
        strongest = column.row[np.argsort(-column.data)][:5]
        spans = tuple(_first_words(int(feature), rank, int(doc), documents[doc]) for rank, doc in enumerate(strongest))
        words = tuple(dict.fromkeys(word for span in spans for word in span.text.split()))[:4]
        bar = float(np.quantile(column.data, 0.95)) if column.data.size else 1.0
        briefs.append(FeatureBrief(int(feature), bar, "these words", words, spans, task, int(n_docs[feature])))
    return briefs


def _with_bar(result: FeatureResult) -> FeatureBrief:
    """The brief with a bar that `FIRING` of the candidates of its accepting step exceed."""
    acts = [c.act for c in result.candidates if c.step != PAIRS]
    bar = float(np.quantile(acts, 1 - FIRING)) if acts else 1.0
    return dataclasses.replace(result.brief, act_threshold=bar / VERIFICATION_MARGIN)


def _first_words(feature_id: int, rank: int, doc_no: int, document: Document) -> Span:
    text = " ".join(document.text.split()[:SPAN_WORDS])
    return Span(feature_id, rank, 1.0, Split.EXPLAIN, doc_no, 0, 1, 0, len(text), 0, 1.0, (text,), (1.0,))
