"""One missing feature of the planted SAE and a synthesis around it, with a memory of everything asked and written."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from facviz.config import SynthesisConfig
from facviz.prompts import load_task
from facviz.records import Document, Encoded, Span, Split
from facviz.synthesis.engine import Synthesizer
from facviz.synthesis.gates import TextGates
from facviz.synthesis.plan import FeatureBrief
from facviz.synthesis.strategies import STRATEGIES
from facviz.testing.fakes import FakeLLM
from facviz.testing.planted import D_SAE, WORDS

FEATURE = 12
"""Fires on "mirror", at 2."""


def make_span(words: str, rank: int = 0) -> Span:
    """A whole text as a span; the peak is where "mirror" stands."""
    pieces = words.split(" ")
    tokens = (pieces[0], *(f" {piece}" for piece in pieces[1:]))
    peak = pieces.index("mirror")
    acts = tuple(2.0 if i == peak else 0.0 for i in range(len(pieces)))
    return Span(FEATURE, rank, 1.0, Split.EXPLAIN, rank, 2, 2 + len(pieces), 0, len(words), 2 + peak, 2.0, tokens, acts)


class MemoryLedger:
    """A ledger in a dictionary, in the order the batches were finished."""

    def __init__(self):
        self.batches = {}

    def recall(self, place):
        return self.batches.get(place)

    def record(self, place, candidates):
        assert place not in self.batches
        self.batches[place] = list(candidates)


class ScriptedEncoder:
    """Measures what it is told to: `act` in a batch, `alone` (else the same) by itself."""

    d_sae = D_SAE

    def __init__(self, act, alone=None):
        self._act, self._alone = act, alone or act
        self.alone = []

    def encode(self, documents):
        return self._encoded([self._act(d.text) for d in documents])

    def encode_alone(self, document):
        self.alone.append(document)
        return self._encoded([self._alone(document.text)])

    def _encoded(self, acts):
        maxima = np.zeros((len(acts), D_SAE), np.float32)
        maxima[:, FEATURE] = acts
        peaks = np.where(maxima > 0, 3, 0).astype(np.int32)
        return Encoded(sparse.csr_matrix(maxima), sparse.csr_matrix(peaks), np.full(len(acts), 5))


class RememberingEncoder:
    """An encoder that keeps the documents it was asked to measure alone."""

    def __init__(self, encoder):
        self._encoder = encoder
        self.d_sae = encoder.d_sae
        self.alone = []

    def encode(self, documents: list[Document]) -> Encoded:
        return self._encoder.encode(documents)

    def encode_alone(self, document: Document) -> Encoded:
        self.alone.append(document)
        return self._encoder.encode_alone(document)


@pytest.fixture
def brief():
    """Feature 12 at δ = 0.5, so at a bar of 0.525, with two measured spans."""
    spans = (make_span("apple mirror bread cloud", 0), make_span("drum eagle mirror flame", 1))
    return FeatureBrief(FEATURE, 0.5, 'fires on "mirror"', ("mirror",), spans, load_task("toxicity"))


@pytest.fixture
def ledger():
    """Empty."""
    return MemoryLedger()


@pytest.fixture
def synthesis(planted_encoder, ledger):
    """Build a Synthesizer; small plan unless told otherwise."""

    def build(
        script,
        *,
        encoder=None,
        known=(),
        client=None,
        ledger=ledger,
        synth_id="run",
        gates=None,
        parts=None,
        **settings,
    ):
        plan = {"pair_candidates": 2, "batch": 4, "max_candidates": 12, "axes": False} | settings
        config = SynthesisConfig(**plan)
        return Synthesizer(
            synth_id=synth_id,
            client=client or FakeLLM(script),
            encoder=encoder or RememberingEncoder(planted_encoder),
            gates=gates or TextGates(known),
            ledger=ledger,
            config=config,
            strategy=STRATEGIES[config.strategy](config),
            **(parts or {}),
        )

    return build


@pytest.fixture
def text():
    """Make the n-th of many distinct six-word texts; one that fires ends in "mirror"."""

    def make(fires: bool, number: int) -> str:
        return " ".join([*(WORDS[(number // 12**i + 5 * i) % 12] for i in range(5)), "mirror" if fires else "island"])

    return make


@pytest.fixture
def numbered(text):
    """A script for a FakeLLM: every reply is new; `fires(step, slot)` says which hold "mirror"."""

    def build(fires, pair_batches=1):
        n_served, n_asked = 0, 0

        def script(request):
            nonlocal n_served, n_asked
            step = "pairs" if n_asked < pair_batches else "guided"
            replies = [text(fires(step, slot), n_served + slot) for slot in range(request.n)]
            n_served, n_asked = n_served + request.n, n_asked + 1
            return replies

        return script

    return build


@pytest.fixture
def scripted():
    """The class of encoders that measure what they are told to."""
    return ScriptedEncoder


@pytest.fixture
def new_ledger():
    """The class of ledgers that live in memory."""
    return MemoryLedger
