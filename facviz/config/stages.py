"""One frozen dataclass per stage, every field documented under it. Values only; checks live in `checks`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

NOT_IN_FINGERPRINT = {"fingerprint": False}
"""Marks fields that cannot change a result, such as device memory."""

NOT_IN_FINGERPRINT_AT_DEFAULT = {"fingerprint_default": False}
"""Marks fields added since results were first named: at its default such a field renames none of them."""


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """A dataset drawn from another one, for instance a seed set out of the anchor corpus."""

    of: str
    """Name of the dataset to draw from."""
    n: int
    """Documents to draw; fewer available is an error, not a smaller sample."""
    label: str | None = None
    """Only documents with this label."""
    without: tuple[str, ...] = ()
    """No documents with these labels, for a set that lacks them."""
    rng_seed: int = 0
    """Seed of the draw."""


@dataclass(frozen=True, slots=True)
class DatasetConfig:
    """One corpus: where it comes from and how its rows become documents."""

    name: str
    """Used on the command line and in file names: letters, digits, `_ . -`."""
    path: str = ""
    """JSONL, JSON, CSV, TSV, Parquet or plain text, also .gz, or a folder of them; empty when `sample` is given."""
    role: Literal["", "anchor", "seed", "eval"] = ""
    """What the dataset is for; only a label."""
    shape: Literal["auto", "text", "messages", "prompt_completion", "alpaca", "chosen_rejected", "transcript"] = "auto"
    """How a row becomes messages; `auto` guesses from the fields and says so."""
    text_field: str | None = None
    """Field holding the text (or transcript, or messages); None guesses."""
    label_field: str | None = None
    """Field holding the label; None guesses from `label`; the empty string takes none."""
    role_field: str | None = None
    """Field naming who speaks in a text row; None guesses from `role`; the empty string takes none."""
    text_role: Literal["user", "assistant", "text"] = "user"
    """Who speaks in plain texts without such a field; `text` renders them without the chat template."""
    roles: tuple[str, ...] = ("user", "assistant", "text")
    """Roles whose content counts as content tokens."""
    source: str = ""
    """Where the data come from, for the record."""
    licence: str = ""
    """Licence of the data, for the record."""
    limit: int | None = None
    """Read at most this many documents."""
    sample: SampleConfig | None = None
    """Draw from another dataset instead of reading a file."""


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """The language model to look inside."""

    name: str = "default"
    """Hub id, local folder, GGUF file, or `default` for the packaged SmolLM2-135M-Instruct."""
    layer: int | None = None
    """Hidden-state index: 0 the embeddings, L the output of `layers[L-1]`; None takes half depth."""
    site: Literal["resid", "mlp", "attn"] = field(default="resid", metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """`resid` reads that hidden state; `mlp` and `attn` what the MLP or attention of `layers[L-1]` adds to it."""
    max_tokens: int = 512
    """Documents are cut to this many tokens; what was cut is counted."""
    system_prompt: str | None = None
    """None keeps the chat template's own default."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` measures which is faster on this machine, once per workspace."""
    batch_tokens: int = field(default=8192, metadata=NOT_IN_FINGERPRINT)
    """Padded tokens per forward batch: memory against speed."""
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata=NOT_IN_FINGERPRINT)
    """Where the model runs and SAEs train; `auto` takes a GPU where there is one."""


@dataclass(frozen=True, slots=True)
class CaptureConfig:
    """Activations of one dataset to disk."""

    dataset: str
    """Dataset to run through the backbone."""
    tokens: int = 300_000
    """Stop after the shard in which this many content tokens are reached; held-out documents come on top."""
    heldout_tokens: int = 20_000
    """Content tokens of held-out documents, never trained on."""
    shard_docs: int = 256
    """Documents per shard: the unit of resumption."""
    keep: bool = field(default=True, metadata=NOT_IN_FINGERPRINT)
    """False trains straight from the model and writes no activations, for corpora whose activations no disk holds."""


@dataclass(frozen=True, slots=True)
class SaeConfig:
    """Training of one SAE from captured activations; defaults follow the run-scaled recipe."""

    path: str = ""
    """Load this saved SAE instead of training one."""
    continue_from: str = field(default="", metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Train this SAE further, an id of the workspace or a path, instead of beginning anew."""
    architecture: Literal[
        "batchtopk", "topk", "matryoshka", "jumprelu", "gated", "relu", "matching_pursuit", "paper"
    ] = "batchtopk"
    """BatchTopK is exported as JumpReLU with one threshold; TopK keeps k per token; `paper` is arXiv 2602.10388's."""
    d_sae: int = 4096
    """Number of features."""
    k: int = 32
    """Active features per token: at most for TopK, on average for the others."""
    sparsity_coefficient: float | None = field(default=None, metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Fixed weight of the penalty of relu, gated and jumprelu; None steers it so that L0 ends near k."""
    matryoshka_widths: tuple[int, ...] = field(default=(), metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Prefixes of the dictionary that reconstruct by themselves; empty takes a sixteenth, a quarter and all."""
    epochs: int = 3
    """Passes over the captured tokens."""
    batch_tokens: int = 2048
    """Tokens per optimiser step."""
    learning_rate: float | None = None
    """None: 2.7e-3 at batch 2,048 up to 5 M training tokens and 4,096 features, lower above."""
    aux_k: int | None = None
    """Dead features asked to explain the residual each step; None takes d_in / 2."""
    aux_coefficient: float = 1 / 32
    """Weight of the revival loss."""
    dead_after_tokens: int | None = None
    """Tokens without firing after which a feature counts as dead; None: min(10 M, 20 % of the run)."""
    rng_seed: int = 0
    """Seed of initialisation and token order."""


@dataclass(frozen=True, slots=True)
class SpansConfig:
    """What is kept of the places where a feature fires."""

    datasets: tuple[str, ...] = ()
    """Datasets to encode; in `facviz run` empty means anchor and seed."""
    per_split: int = 10
    """Strongest spans kept per feature in each half (explain, score)."""
    before_tokens: int = 16
    """Window before the peak token."""
    after_tokens: int = 15
    """Window after the peak token."""
    shard_docs: int = 512
    """Documents per shard of `doc_activation`: the unit of resumption."""
    always_on_density: float = 0.10
    """Features firing on more than this share of content tokens are always-on."""


@dataclass(frozen=True, slots=True)
class ExplainConfig:
    """Explanations by words alone or by a language model."""

    provider: Literal["lexical", "auto", "anthropic", "openai", "local"] = "lexical"
    """`lexical` reads peak tokens, contexts and output tokens; `auto` is a paid model where one is set up."""
    model: str | None = field(default=None, metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Model of `anthropic` or `openai`; None is the provider's default, or the only one the server has."""
    dataset: str = ""
    """Dataset whose spans are read; in `facviz run` empty means the anchor."""
    min_score: float = 0.08
    """Below this lexical strength the outcome is "no clear pattern"."""
    embedding_score: bool = True
    """Score each explanation on held-out spans by embedding similarity."""
    max_scored: int | None = 2000
    """Score at most this many features, the most frequent first; None scores all."""
    scored_spans: int = 5
    """Held-out spans per feature the score is computed on."""
    features: tuple[int, ...] = field(default=(), metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Explain these features by the model; empty explains all that fire."""
    max_features: int | None = field(default=None, metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Explain so many by the model, drawn at random; None explains all."""
    n_candidates: int = field(default=1, metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Explanations the model writes of each feature; the best on held-out spans is kept."""
    rng_seed: int = field(default=0, metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Seed of which features and spans are drawn."""
    budget_usd: float | None = field(default=None, metadata=NOT_IN_FINGERPRINT)
    """Most that explaining this SAE may cost in all; None sets no limit."""
    concurrency: int = field(default=4, metadata=NOT_IN_FINGERPRINT)
    """Requests under way at a time."""
    batch: bool = field(default=False, metadata=NOT_IN_FINGERPRINT)
    """Hand all requests in together, at half the price; answered within a day. Only `anthropic`."""


@dataclass(frozen=True, slots=True)
class ScoreConfig:
    """How well explanations hold on spans they were not written from."""

    kinds: tuple[str, ...] = ("embedding",)
    """`embedding` needs no language model; `detection`, `fuzzing` and `intruder` ask one as judge."""
    dataset: str = ""
    """Dataset whose held-out spans are judged."""
    provider: Literal["auto", "anthropic", "openai", "local"] = "auto"
    """Who judges; `auto` is the paid provider that is set up."""
    model: str | None = None
    """Model of the judge; None is the provider's default. Another than the explainer's is the harder test."""
    features: tuple[int, ...] = ()
    """Score these features; empty scores all that are explained."""
    max_features: int | None = None
    """Score so many, drawn at random; None scores all."""
    negatives: Literal["nearest", "random"] = "nearest"
    """Texts without the feature: of the nearest features, which is hard, or of any."""
    n_items: int = 20
    """Texts per feature in detection and fuzzing, half of them each way; held-out spans at most in embedding."""
    n_lineups: int = 10
    """Line-ups per feature in intruder."""
    with_shuffled: bool = True
    """Ask again with another feature's explanation: the baseline, at twice the cost of detection and fuzzing."""
    rng_seed: int = 0
    """Seed of which features, texts and strangers are drawn."""
    budget_usd: float | None = field(default=None, metadata=NOT_IN_FINGERPRINT)
    """Most that scoring this SAE may cost in all; None sets no limit."""
    concurrency: int = field(default=4, metadata=NOT_IN_FINGERPRINT)
    """Requests under way at a time."""
    batch: bool = field(default=False, metadata=NOT_IN_FINGERPRINT)
    """Hand all requests in together, at half the price; answered within a day. Only `anthropic`."""


@dataclass(frozen=True, slots=True)
class RelevanceConfig:
    """Which features matter to the task."""

    source: Literal["label", "embedding", "llm"] = "label"
    """`label`: which features separate the labels; `embedding` and `llm`: explanations against the task's guideline."""
    labels: str = ""
    """Dataset whose labels or held-out spans are read; in `facviz run` empty means the anchor."""
    positive: str = "1"
    """Label of the class the task is about; `*` takes every label in turn against all others, and keeps the best."""
    min_auroc: float = 0.55
    """Length-controlled AUROC a relevant feature reaches (design §3)."""
    max_q: float = 0.05
    """Highest Benjamini-Hochberg corrected permutation p of a relevant feature."""
    n_permutations: int = 10_000
    """Permutations within length bins."""
    n_bins: int = 10
    """Bins of content-token count inside which labels are compared; more bins leave less confounding by length."""
    rng_seed: int = 0
    """Seed of the permutations, or of the spans a judge is shown."""
    provider: Literal["auto", "anthropic", "openai", "local"] = field(
        default="auto", metadata=NOT_IN_FINGERPRINT_AT_DEFAULT
    )
    """Who judges with `llm`; `auto` is the paid provider that is set up."""
    model: str | None = field(default=None, metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Model of the judge; None is the provider's default."""
    budget_usd: float | None = field(default=None, metadata=NOT_IN_FINGERPRINT)
    """Most that judging this task may cost in all; None sets no limit."""
    concurrency: int = field(default=4, metadata=NOT_IN_FINGERPRINT)
    """Requests under way at a time."""
    batch: bool = field(default=False, metadata=NOT_IN_FINGERPRINT)
    """Hand all requests in together, at half the price; answered within a day. Only `anthropic`."""


@dataclass(frozen=True, slots=True)
class CoverageConfig:
    """What counts as active, and against what."""

    anchor: str = ""
    """Reference dataset: defines the denominator."""
    seed: str = ""
    """Dataset whose gaps are found."""
    kind: Literal["relative", "absolute"] = "relative"
    """`relative`: times the feature's own 95th percentile on the anchor; `absolute`: on this SAE's scale."""
    threshold: float = 1.0
    """δ."""
    level: Literal["yes", "probably", "maybe"] = "maybe"
    """Verdicts down to this level count as relevant."""
    include_always_on: bool = False
    """Count features that fire nearly everywhere."""
    min_fac: float | None = None
    """Exit 1 when FAC is below: a gate for data changes."""
    n_bootstrap: int = 1000
    """Resamples of the seed documents for the interval."""
    rng_seed: int = 0
    """Seed of bootstrap and equal-token draws."""


@dataclass(frozen=True, slots=True)
class SynthesisConfig:
    """Samples for missing features: how they are asked for, of whom, and what they must pass."""

    strategy: Literal[
        "paper", "one-step", "steered", "paper+steered", "plain", "self-instruct", "magpie", "evol", "random-feature"
    ] = "paper"
    """`paper`: a pair, then guided candidates (Algorithm 2); `one-step` without the pair; `steered`: the model is
    pushed along the feature's direction; `paper+steered` both. The others are baselines, told of no missing feature."""
    step: Literal["pairs", "guided", "both"] = "both"
    """Which of the two steps to run."""
    max_features: int | None = None
    """Missing features attempted, most task-relevant first; None attempts all."""
    features: tuple[int, ...] = ()
    """Attempt exactly these instead."""
    per_feature: int = 1
    """Accepted samples wanted per feature."""
    pair_candidates: int = 16
    """Step-1 candidates per feature; at least 2."""
    max_candidates: int = 96
    """Step-2 candidates per feature before it counts as exhausted."""
    batch: int = 16
    """Candidates per numbered batch, each with its own seed."""
    min_margin: float = 0.1
    """Smallest strong − weak gap of a pair, as a share of δ of the feature."""
    evidence_spans: int = 5
    """Anchor spans shown in step 1 as evidence."""
    temperature: float = 0.8
    """Of a feature's first batch, where the provider samples; later batches are .2 warmer, up to 1."""
    top_p: float = 0.9
    """Nucleus of sampling."""
    max_tokens: int = 64
    """Longest reply in tokens; a longer one is cut back to its last whole sentence."""
    axes: bool = field(default=True, metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """After a feature's first batch, vary persona, register, length, format and topic, more of what was accepted;
    of the local model in every second request."""
    passes: int = field(default=1, metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Rounds over all features; each but the first attempts what is then still missing, with as many candidates."""
    order: Literal["relevance", "gain"] = field(default="relevance", metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Most task-relevant first, or most coverage gained per expected candidate first."""
    anti_copy: bool = field(default=True, metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Turn down a sample whose target falls silent once the words it copied are taken out."""
    embedding_gate: bool = field(default=True, metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Turn down what says the same as a known or an evaluation text, where the packaged embedder is installed."""
    max_kl: float = field(default=2.0, metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Nats a token that a push may move the model's predictions by, on average."""
    provider: Literal["local", "auto", "anthropic", "openai"] = field(
        default="local", metadata=NOT_IN_FINGERPRINT_AT_DEFAULT
    )
    """Who writes; `auto` is the paid provider that is set up."""
    model: str | None = field(default=None, metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Model of `anthropic` or `openai`; None is the provider's default, or the only one the server has."""
    judge_provider: Literal["", "local", "auto", "anthropic", "openai"] = field(
        default="", metadata=NOT_IN_FINGERPRINT_AT_DEFAULT
    )
    """Who judges whether a sample belongs to the task; empty asks nobody."""
    judge_model: str | None = field(default=None, metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Model of the judge; None is the provider's default."""
    budget_usd: float | None = field(default=None, metadata=NOT_IN_FINGERPRINT)
    """Most that this synthesis may cost in all; None sets no limit."""
    concurrency: int = field(default=4, metadata=NOT_IN_FINGERPRINT)
    """Requests under way at a time, of a paid provider."""
    features_at_once: int = field(default=4, metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Features whose batches are asked for together."""
    rng_seed: int = 0
    """Base seed of all batches."""


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """Does the data help? A head on frozen states, trained on arms of equal size and balance."""

    coverage: str = ""
    """Coverage run whose samples are evaluated; empty takes the newest of the task."""
    syntheses: tuple[str, ...] = field(default=(), metadata=NOT_IN_FINGERPRINT_AT_DEFAULT)
    """Synthesis runs of it whose texts count; empty takes all there are."""
    test: str = ""
    """Labelled dataset the head is scored on; empty takes the one with the role `eval`, else half of the gold set."""
    gold: str = ""
    """Labelled dataset of real texts, for the gold arm and the ceiling; empty takes the run's anchor."""
    positive: tuple[str, ...] = ()
    """Labels of the positive class; empty takes those that the seed set has none of."""
    arms: tuple[str, ...] = ()
    """Arms beside the seed set alone: synthesis strategies, `unverified`, `gold`; empty takes all there are."""
    n_added: int | None = None
    """Positives every arm adds; None takes as many as the smallest arm has."""
    min_added: int = 8
    """Arms with fewer texts are left out, and named."""
    negatives_per_positive: int = 5
    """Negatives per positive, where the seed set has that many."""
    n_seeds: int = 5
    """Seeds: each draws other documents and other folds."""
    min_jaccard: float = 0.5
    """Test documents that share this part of their word trigrams with a training document are left out."""
    n_bootstrap: int = 1000
    """Draws of test documents and seeds for the intervals."""
    rng_seed: int = 0
    """First of the seeds."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The whole loop in one file: `facviz run CONFIG.toml`."""

    task: str
    """Task guideline in `facviz/prompts/tasks/`."""
    datasets: tuple[DatasetConfig, ...]
    """All corpora used below."""
    capture: CaptureConfig
    """Corpus the SAE is trained on."""
    coverage: CoverageConfig
    """Anchor, seed and threshold."""
    backbone: BackboneConfig = BackboneConfig()
    sae: SaeConfig = SaeConfig()
    spans: SpansConfig = SpansConfig()
    explain: ExplainConfig = ExplainConfig()
    relevance: RelevanceConfig = RelevanceConfig()
    synthesis: SynthesisConfig = SynthesisConfig()
    evaluation: EvaluationConfig | None = None
    """None, no such table, leaves the evaluation out."""
