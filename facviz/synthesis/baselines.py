"""What the targeted strategies are compared with: ways to write data that do not know which feature is missing.

All draw as many candidates as `paper` may draw for the same features. `random-feature` is the targeted
machinery aimed at features that nothing misses; the others never see a feature.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from facviz.config import SynthesisConfig
from facviz.errors import BudgetError, InputError, SpendLimitError
from facviz.prompts import render, template_text
from facviz.protocols import Encoder, LLMClient
from facviz.records import Candidate, Document, Message, TaskGuideline
from facviz.synthesis.asking import Ask, Part, request_for
from facviz.synthesis.copying import own_parts
from facviz.synthesis.engine import SampleGate, Synthesizer
from facviz.synthesis.formats import format_of
from facviz.synthesis.gates import TextGates
from facviz.synthesis.measuring import measure_batches
from facviz.synthesis.order import batch_sizes
from facviz.synthesis.pairs import pair_messages
from facviz.synthesis.plan import BatchPlace, FeatureBrief
from facviz.synthesis.pool import NO_FEATURE, Crediting, told_in_order
from facviz.synthesis.results import BatchLedger, FeatureResult, OnResult
from facviz.synthesis.safety import is_withheld
from facviz.synthesis.strategies import Paired, Prompted, Step, step_one, takes_schema

PLAIN, RANDOM_FEATURE = "plain", "random-feature"
PROMPTS = {
    PLAIN: "baseline_request.v1",
    "self-instruct": "baseline_another.v1",
    "magpie": "baseline_magpie.v1",
    "evol": "baseline_deeper.v1",
}
"""Template that stands for each strategy in the record."""
BASELINES = (*PROMPTS, RANDOM_FEATURE)
SYSTEM_TEMPLATE, EVOL_TEMPLATES = "baseline_system.v1", ("baseline_deeper.v1", "baseline_wider.v1")
POOL_STEP = "pool"
EXAMPLES = 4
"""Texts of the seed set that `self-instruct` shows."""
REPLIES_A_DRAW = 4
"""Replies to one draw of seed texts; the next ones get another draw."""
MAX_SHOWN_WORDS, MAX_SHOWN_CHARS = 60, 600
"""A seed text is shown up to here."""
_FIRING = ("target does not fire", "target does not fire alone")
"""What is held against a text of `random-feature` by its own target; credit for missing features asks nothing of it."""


def pool_size(config: SynthesisConfig, n_features: int) -> int:
    """Candidates that `paper` and `one-step` may draw for so many features in a pass; a baseline draws exactly these.

    What a push is chosen by comes on top with the strategies that push, and is drawn by no baseline.
    """
    return n_features * (config.pair_candidates + config.max_candidates)


def baseline_templates(strategy: str) -> tuple[str, ...]:
    """Every prompt a baseline uses: a changed text is another synthesis run."""
    if strategy == RANDOM_FEATURE:
        return Paired(0.0).templates
    return (SYSTEM_TEMPLATE, *PROMPTS.values(), *EVOL_TEMPLATES)


def check_baseline(config: SynthesisConfig, task: TaskGuideline) -> None:
    """Refuse what a baseline cannot do, before anything is loaded.

    Raises:
        InputError: Magpie needs the raw prompt, which only the local model takes; and what shows texts of the seed set,
            or continues a conversation, writes single texts.
    """
    if config.strategy == "magpie" and config.provider != "local":
        raise InputError("Only the local model can be given a bare user turn to continue; use --provider local.")
    if format_of(task).labels and config.strategy not in (PLAIN, RANDOM_FEATURE):
        raise InputError(
            f"Samples of the task {task.name} have several parts, which {config.strategy} does not write; of the "
            f"baselines choose {PLAIN} or {RANDOM_FEATURE}."
        )


def shown_texts(documents: Sequence[Document], role: str) -> list[str]:
    """What a baseline may show of the seed set: the first words that `role` says in each document, on one line."""
    said = [next((m.content for m in d.messages if m.role == role), "") for d in documents]
    texts = [" ".join(text.split()[:MAX_SHOWN_WORDS])[:MAX_SHOWN_CHARS] for text in said]
    return list(dict.fromkeys(text for text in texts if text and not is_withheld(text)))


def random_features(
    relevant: npt.NDArray[np.integer], live: npt.NDArray[np.bool_], missing: Sequence[int], n: int, rng_seed: int
) -> list[int]:
    """Features that nothing misses: live in the anchor set, relevant ones first, others where those are too few.

    Raises:
        InputError: fewer than `n` features are live and not missing.
    """
    rng = np.random.default_rng(rng_seed)
    usable = np.setdiff1d(np.flatnonzero(live), missing)
    preferred, others = np.intersect1d(usable, relevant), np.setdiff1d(usable, relevant)
    if len(usable) < n:
        raise InputError(
            f"Only {len(usable)} features are active in the anchor set and not missing, fewer than the {n} that "
            "random-feature aims at for an equal budget; lower --max-features."
        )
    return [int(f) for f in np.concatenate([rng.permutation(preferred), rng.permutation(others)])[:n]]


@dataclass(slots=True)
class Untargeted:
    """Draws a pool by `plain`, `self-instruct`, `magpie` or `evol`; a Filler like the targeted engine."""

    synth_id: str
    client: LLMClient
    encoder: Encoder
    gates: TextGates
    ledger: BatchLedger
    config: SynthesisConfig
    seed_texts: Sequence[str]
    after: SampleGate | None = None
    stopped: str = ""

    def fill_all(self, briefs: Sequence[FeatureBrief], on_result: OnResult | None = None) -> list[FeatureResult]:
        """Every batch of the pool, each recorded before the next; then what became of every missing feature."""
        crediting = Crediting.of(briefs, self.encoder, self.gates, self.after)
        candidates = list[Candidate]()
        try:
            own = partial(own_parts, is_formula=self.gates.is_formula)
            for ask in pool_asks(self.synth_id, self.config, briefs, self.seed_texts, own):
                candidates += self._batch(ask, crediting)
        except (BudgetError, SpendLimitError) as error:
            self.stopped = str(error)
        results = crediting.results(candidates, self.config.per_feature, is_out_of_money=bool(self.stopped))
        return told_in_order(results, briefs, on_result)

    def _batch(self, ask: Ask, crediting: Crediting) -> list[Candidate]:
        batch = self.ledger.recall(ask.place)
        if batch is not None:
            crediting.remember(batch)
            return batch
        [batch] = measure_batches(self.encoder, [ask], [self.client.complete(ask.requests)])
        shown = {c.candidate_id: ask.parts[c.gates["part"]].shown for c in batch}
        batch = crediting.credit([self._checked(c, shown[c.candidate_id]) for c in batch], shown)
        self.ledger.record(ask.place, batch)
        return batch

    def _checked(self, candidate: Candidate, shown: Sequence[str]) -> Candidate:
        """With the verdict of the gates that need the text alone."""
        if candidate.reject_reason is not None:
            return candidate
        measures, reason = self.gates.check(candidate.text, shown)
        return dataclasses.replace(candidate, gates={**candidate.gates, **measures}, reject_reason=reason)


@dataclass(slots=True)
class RandomFeature:
    """Aims the targeted engine at features that nothing misses, and credits what it wrote with missing ones.

    `engine` has gates of its own, for what it accepts for its target is not yet a sample here.
    """

    engine: Synthesizer
    aimed_at: Sequence[FeatureBrief]
    encoder: Encoder
    gates: TextGates
    n_wanted: int
    after: SampleGate | None = None

    @property
    def stopped(self) -> str:
        """As the engine says."""
        return self.engine.stopped

    def fill_all(self, briefs: Sequence[FeatureBrief], on_result: OnResult | None = None) -> list[FeatureResult]:
        """All candidates of every random feature; the engine's ledger makes it resume."""
        crediting = Crediting.of(briefs, self.encoder, self.gates, self.after)
        candidates = list[Candidate]()
        for result in self.engine.fill_all(self.aimed_at):
            by_id = {c.candidate_id: c.text for c in result.candidates}
            pair = result.pair and (result.pair.strong_id, result.pair.weak_id)
            shown = [*pair_messages(result.brief)[1], *(by_id[i] for i in pair or () if i)]
            written = [_open(c) for c in result.candidates]
            candidates += crediting.credit(written, dict.fromkeys(by_id, shown))
        results = crediting.results(candidates, self.n_wanted, is_out_of_money=bool(self.stopped))
        return told_in_order(results, briefs, on_result)


def random_feature_settings(config: SynthesisConfig) -> SynthesisConfig:
    """Settings of the engine inside `random-feature`: it never stops early, and makes one pass."""
    return dataclasses.replace(config, per_feature=config.max_candidates, passes=1, step="both")


def _open(candidate: Candidate) -> Candidate:
    """Without the verdict of its own target, which is no part of the question."""
    reason = None if candidate.accepted or candidate.reject_reason in _FIRING else candidate.reject_reason
    gates = {**candidate.gates, "aimed_at": candidate.feature_id}
    return dataclasses.replace(candidate, gates=gates, accepted=False, reject_reason=reason)


def pool_asks(
    synth_id: str,
    config: SynthesisConfig,
    briefs: Sequence[FeatureBrief],
    seed_texts: Sequence[str],
    own: Callable[[Sequence[str]], tuple[str, ...]] = tuple,
) -> Iterator[Ask]:
    """What is asked for in each batch; it follows from the plan alone, so all of it is known beforehand.

    `own` says what of the shown texts no reply may repeat.
    """
    total = pool_size(config, len(briefs))
    for number, size in enumerate(batch_sizes(total, config.batch)):
        place = BatchPlace(synth_id, NO_FEATURE, POOL_STEP, number, config.strategy)
        rng = random.Random(place.rng_seed(config.rng_seed))
        prompts = prompts_of(config, briefs[0], seed_texts, size, rng)
        requests = tuple(
            request_for(config, place, part, prompted, own(prompted.shown)) for part, prompted in enumerate(prompts)
        )
        parts = tuple(Part(prompted, None) for prompted in prompts)
        yield Ask(briefs[0], Step(POOL_STEP, total), place, parts, requests)


def prompts_of(
    config: SynthesisConfig, brief: FeatureBrief, seed_texts: Sequence[str], size: int, rng: random.Random
) -> list[Prompted]:
    """The conversations of one batch of `size` candidates; of the brief only the task is told."""
    strategy = config.strategy
    if strategy == "magpie":
        return [Prompted((Message("system", template_text(PROMPTS["magpie"])),), size, PROMPTS["magpie"])]
    if strategy == PLAIN and brief.format.labels:
        untold = dataclasses.replace(brief, explanation="", words=(), spans=())
        return [step_one(untold, size, has_schema=takes_schema(config))]
    system = Message("system", render(SYSTEM_TEMPLATE, request=brief.task.sample_request))
    request = Message("user", render(PROMPTS[PLAIN]))
    if strategy == PLAIN:
        return [Prompted((system, request), size, PROMPTS[PLAIN])]
    if not seed_texts:
        raise InputError(f"The strategy {strategy} shows texts of the seed set, but none is by the task's role.")
    sizes = list(batch_sizes(size, REPLIES_A_DRAW))
    if strategy == "self-instruct":
        return [_another(system, request, rng.sample(seed_texts, min(EXAMPLES, len(seed_texts))), n) for n in sizes]
    return [_evolved(system, rng.choice(seed_texts), EVOL_TEMPLATES[i % 2], n) for i, n in enumerate(sizes)]


def _another(system: Message, request: Message, examples: Sequence[str], n: int) -> Prompted:
    another = Message("user", render(PROMPTS["self-instruct"]))
    turns = [system, request, Message("assistant", examples[0])]
    for text in examples[1:]:
        turns += [another, Message("assistant", text)]
    return Prompted((*turns, another), n, PROMPTS["self-instruct"], tuple(examples))


def _evolved(system: Message, text: str, template: str, n: int) -> Prompted:
    return Prompted((system, Message("user", render(template, text=text))), n, template, (text,))
