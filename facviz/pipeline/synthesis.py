"""`facviz synthesize`: samples for the missing features of a coverage run, and coverage measured again with them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facviz.config import CoverageConfig, SynthesisConfig, fingerprint
from facviz.errors import CoverageError, InputError, SaturatedError
from facviz.llm.calls import PaidLLM
from facviz.llm.estimate import Estimate
from facviz.llm.providers import AUTO, choose_provider
from facviz.pipeline.gating import Corpora, Gates, build_gates, evaluation_sets
from facviz.pipeline.models import LOCAL, language_model, paid_model, spent_usd
from facviz.pipeline.sae import open_sae
from facviz.pipeline.sample_judging import SAMPLE_TEMPLATE, judge_model, label_gate
from facviz.pipeline.session import CODE_VERSION, Session
from facviz.pipeline.synthesis_baselines import BaselineRun
from facviz.pipeline.synthesis_inputs import read_briefs, words_of_people
from facviz.pipeline.synthesis_ledger import FileLedger
from facviz.pipeline.synthesis_tables import summarise, write_feature
from facviz.prompts import load_task, template_text
from facviz.protocols import Encoder, LLMClient
from facviz.records import PLAIN_TEXT, Candidate, Document, LLMRequest, TaskGuideline
from facviz.store.gap import Gap, read_gap
from facviz.store.manifest import Scope
from facviz.synthesis.asking import ASKING_VERSION, Asker, planned_batches
from facviz.synthesis.axes import AXES_TEMPLATE, AxisCounts
from facviz.synthesis.baselines import BASELINES, PLAIN, RANDOM_FEATURE, baseline_templates, check_baseline
from facviz.synthesis.engine import Synthesizer
from facviz.synthesis.formats import format_of
from facviz.synthesis.framing import frame_templates
from facviz.synthesis.gates import GATES_VERSION
from facviz.synthesis.labelling import LabelGate
from facviz.synthesis.plan import FeatureBrief
from facviz.synthesis.results import FeatureResult, Filler
from facviz.synthesis.steered import PUSHED, TUNING, Steerer, steered
from facviz.synthesis.strategies import STRATEGIES, Strategy, takes_schema

if TYPE_CHECKING:
    from facviz.activations import SaeEncoder


def synthesize(
    session: Session, measured: Mapping[str, Any], coverage_config: CoverageConfig, config: SynthesisConfig
) -> dict[str, Any]:
    """Fill missing features of a coverage run; refuses while that run is saturated (design §3).

    A run that ended because the money was spent is not finished: asked for again, it goes on with what it has.
    """
    stage = _Stage.of(session, measured, coverage_config, config)
    if stage.config.provider == LOCAL:  # a finished run is told again without loading the model
        return stage.once("", lambda: language_model(session, stage.config, stage.books))
    with language_model(session, stage.config, stage.books) as client:
        if isinstance(client, PaidLLM):
            client.refuse_unpriced()
        return stage.once(client.name, lambda: nullcontext(client))


def estimate(
    session: Session, measured: Mapping[str, Any], coverage_config: CoverageConfig, config: SynthesisConfig
) -> dict[str, Any]:
    """What `synthesize` would ask and cost if no feature were filled before its last candidate; nothing is sent."""
    stage = _Stage.of(session, measured, coverage_config, config)
    with session.workspace.reader() as reader:
        briefs = read_briefs(reader, measured, coverage_config, stage.config)
    told = {"strategy": config.strategy, "provider": stage.config.provider, "n_features": len(briefs)}
    if stage.config.provider == LOCAL:
        n_calls, n_cached, _ = stage.outlook(briefs, stage.synth_id(""), is_sampling=True)
        nothing = Estimate(n_calls, n_cached, 0, 0, 0.0, 0.0)
        return told | dataclasses.asdict(nothing) | {"seconds": None}
    with paid_model(session, stage.config, stage.books) as client:
        name, is_sampling = stage.synth_id(client.name), client.adapter.is_sampling
        n_calls, n_cached, requests = stage.outlook(briefs, name, is_sampling=is_sampling)
        found = client.estimate(requests)
        found = dataclasses.replace(found, n_calls=n_calls, n_cached=n_cached + found.n_cached)
        return told | {"model": client.name, **dataclasses.asdict(found)}


def open_filler(
    stage: _Stage,
    synth_id: str,
    client: LLMClient,
    encoder: Encoder,
    gates: Gates,
    ledger: FileLedger,
    briefs: Sequence[FeatureBrief],
    steerer: Steerer | None = None,
) -> Filler:
    """What the strategy fills with: the accepted-N engine for every targeted one, a pool for a baseline.

    A strategy that pushes the model needs a steerer.
    """
    config = stage.config
    is_sampling = not isinstance(client, PaidLLM) or client.adapter.is_sampling
    if config.strategy in BASELINES:
        run = stage.baseline(synth_id, briefs, is_sampling=is_sampling)
        return run.filler(client, encoder, gates.text, ledger, gates.after)
    return Synthesizer(
        synth_id,
        client,
        encoder,
        gates.text,
        ledger,
        config,
        _strategy(config, steerer),
        gates.after,
        is_sampling=is_sampling,
        is_small=config.provider == LOCAL,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """One synthesis as it was asked for, and what names it."""

    session: Session
    measured: Mapping[str, Any]
    coverage_config: CoverageConfig
    config: SynthesisConfig
    key: str

    @classmethod
    def of(
        cls, session: Session, measured: Mapping[str, Any], coverage_config: CoverageConfig, config: SynthesisConfig
    ) -> _Stage:
        _refuse(measured)
        config = _resolved(config)
        task = load_task(measured["task"])
        told: list[object] = [GATES_VERSION, ASKING_VERSION, *map(template_text, _templates(config, task))]
        told += [task.format] if task.format != PLAIN_TEXT else []
        told += [TUNING] if config.strategy in PUSHED else []
        # Both steps belong to one synthesis run: `guided` continues from the pairs an earlier `pairs` made.
        whole = dataclasses.replace(config, step="both")
        by_people, held_out = words_of_people(session, measured), evaluation_sets(session)
        key = fingerprint(
            "synthesis", CODE_VERSION, measured["coverage_id"], whole, task, told,
            *([by_people] if by_people else []), *([held_out] if held_out else []),
        )  # fmt: skip
        return cls(session, measured, coverage_config, config, key)

    @property
    def books(self) -> str:
        """Every synthesis has a budget of its own."""
        return f"synthesize/{self.key[:12]}"

    def synth_id(self, model: str) -> str:
        """Of the run by this model; empty is the local one, which the coverage run already names."""
        return self._name(model)[:12]

    def _name(self, model: str) -> str:
        return fingerprint(self.key, model) if model else self.key

    def once(self, model: str, opened: Callable[[], AbstractContextManager[LLMClient]]) -> dict[str, Any]:
        """The summary of this run, from before if it was finished."""
        scope = Scope("synthesize", self.synth_id(model), fingerprint(self._name(model), self.config.step))

        def work() -> dict[str, Any]:
            with opened() as client:
                return self.run(scope, client)

        before = self.session.workspace.manifest.done(scope)
        if before is None or not before.get("stopped"):
            return self.session.run_once(scope, work)
        told = work()
        self.session.workspace.manifest.mark_done(scope, told)
        return told

    def run(self, scope: Scope, client: LLMClient) -> dict[str, Any]:
        """Every feature attempted, written as it ends, and coverage measured again."""
        with judge_model(self.session, self.config, self.books) as judge:
            return self._run(scope, client, label_gate(judge, client.name, self.config.rng_seed))

    def _run(self, scope: Scope, client: LLMClient, judge: LabelGate | None) -> dict[str, Any]:
        session, measured, task = self.session, self.measured, load_task(self.measured["task"])
        with session.workspace.reader() as reader:
            gap = read_gap(
                reader, measured["sae_id"], measured["task"], measured["relevance_source"], self.coverage_config
            )
            briefs = read_briefs(reader, measured, self.coverage_config, self.config)
            corpora = Corpora.read(reader, self.coverage_config.anchor, self.coverage_config.seed)
        encoder = session.encoder(open_sae(session, measured["sae_id"]), task.roles)
        gates = build_gates(session, corpora, gap, encoder, task, self.config, judge=judge)
        steerer = self._steerer(client, encoder, gap, briefs)
        ended = dict[int, FeatureResult]()

        def standing() -> str:
            return _standing(ended, len(briefs), client)

        ledger = FileLedger(session, scope.subject, standing)
        filler = open_filler(self, scope.subject, client, encoder, gates, ledger, briefs, steerer)

        def keep(result: FeatureResult) -> None:
            ended[result.brief.feature_id] = result
            write_feature(session, scope, measured["coverage_id"], result, client.name)
            session.progress.update("synthesize features", len(ended), len(briefs), f"features{standing()}")

        results = filler.fill_all(briefs, keep)
        return summarise(gap, encoder, measured, results, scope.subject) | {
            "strategy": self.config.strategy,
            "generator": client.name,
            "usd": spent_usd(client),
            "stopped": filler.stopped or None,
            "gates": gates.after.calibration(),
        }

    def _steerer(
        self, client: LLMClient, encoder: SaeEncoder, gap: Gap, briefs: Sequence[FeatureBrief]
    ) -> Steerer | None:
        if self.config.strategy not in PUSHED:
            return None
        from facviz.llm.local import LocalChat
        from facviz.pipeline.steering import FeatureSteerer

        assert isinstance(client, LocalChat)  # the config allows no other provider
        examples = [Document.from_text(span.text) for brief in briefs for span in brief.spans]
        return FeatureSteerer(client, encoder, gap.p95, examples)

    def baseline(self, synth_id: str, briefs: Sequence[FeatureBrief], *, is_sampling: bool) -> BaselineRun:
        """The same run by a strategy that does not know what is missing."""
        is_small = self.config.provider == LOCAL
        run = self.session, self.measured, self.coverage_config, self.config, synth_id, briefs
        return BaselineRun(*run, is_sampling=is_sampling, is_small=is_small)

    def outlook(
        self, briefs: Sequence[FeatureBrief], synth_id: str, *, is_sampling: bool
    ) -> tuple[int, int, list[LLMRequest]]:
        """Replies at most, those of finished batches, and requests for the rest.

        Later batches depend on what earlier ones bring, so their requests are of about the right length, not the words.
        """
        ledger = FileLedger(self.session, synth_id)
        if self.config.strategy in BASELINES:
            return self.baseline(synth_id, briefs, is_sampling=is_sampling).outlook(ledger)
        config, strategy = self.config, _strategy(self.config)
        asker = Asker(synth_id, strategy, config, is_sampling=is_sampling, is_small=config.provider == LOCAL)
        n_calls, n_cached, requests = 0, 0, list[LLMRequest]()
        for brief in briefs:
            tried = list[Candidate]()
            for batch in (b for number in range(config.passes) for b in planned_batches(strategy, config, number)):
                if sum(c.accepted for c in tried) >= config.per_feature:
                    break
                n_calls += batch.size
                found = ledger.recall(asker.place(brief, batch))
                if found is None:
                    requests += asker.ask(brief, batch, tried, AxisCounts(), AxisCounts()).requests
                else:
                    n_cached += len(found)
                    tried += found
        return n_calls, n_cached, requests


def _strategy(config: SynthesisConfig, steerer: Steerer | None = None) -> Strategy:
    """The targeted strategy of a config; without a steerer one that pushes only plans."""
    return steered(config, steerer) if config.strategy in PUSHED else STRATEGIES[config.strategy](config)


def _templates(config: SynthesisConfig, task: TaskGuideline) -> tuple[str, ...]:
    """Every prompt of a run: a changed text is another one."""
    if config.strategy in BASELINES:
        check_baseline(config, task)
        asked = baseline_templates(config.strategy)
    elif config.strategy in STRATEGIES or config.strategy in PUSHED:
        asked = _strategy(config).templates
    else:
        known = ", ".join((*STRATEGIES, *PUSHED, *BASELINES))
        raise InputError(f"The strategy {config.strategy} is unknown here; choose {known}.")
    if config.strategy not in BASELINES or config.strategy in (PLAIN, RANDOM_FEATURE):
        asked = (*asked, *frame_templates(format_of(task), has_schema=takes_schema(config)))
    return (*asked, *([AXES_TEMPLATE] if config.axes else []), *([SAMPLE_TEMPLATE] if config.judge_provider else []))


def _resolved(config: SynthesisConfig) -> SynthesisConfig:
    """`auto` is the paid provider that is set up; the local model is used where it is named, as it is by default."""
    if config.provider != AUTO:
        return config
    chosen = choose_provider()
    if chosen is None:
        raise InputError(
            "No paid provider is set up; set ANTHROPIC_API_KEY, OPENAI_API_KEY or OPENAI_BASE_URL, or use `local`."
        )
    return dataclasses.replace(config, provider=chosen)  # type: ignore[arg-type]


def _refuse(measured: Mapping[str, Any]) -> None:
    """Say why nothing can be filled."""
    if measured["saturated"]:
        better = measured["unsaturated_threshold"]
        advice = f"set the threshold to {better}" if better is not None else "use another seed or anchor set"
        raise SaturatedError(
            f"Only {measured['n_missing']} of {measured['n_anchor']} relevant features are missing at this threshold, "
            f"so filling them would prove nothing; {advice}."
        )
    if measured["n_missing"] == 0:
        raise CoverageError("No relevant feature is missing, so there is nothing to synthesize.")


def _standing(ended: Mapping[int, FeatureResult], n_features: int, client: LLMClient) -> str:
    """How far the run is and what it will come to at the pace so far."""
    states = Counter(str(result.state) for result in ended.values())
    note = f", {states['filled']} of {len(ended)} filled"
    if not isinstance(client, PaidLLM):
        return note
    spent = spent_usd(client)
    return f"{note}, ${spent:.4f} spent" + (f", about ${spent * n_features / len(ended):.4f} in all" if ended else "")
