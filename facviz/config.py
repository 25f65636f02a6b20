"""One frozen dataclass per stage, each field documented under it; TOML in, validated, with a versioned fingerprint.

A fingerprint names a result: same fingerprint, same answer. Fields that cannot change a result (progress, device
memory) are marked `NOT_IN_FINGERPRINT` with their reason.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from facviz.errors import InputError

FINGERPRINT_VERSION = 1
NOT_IN_FINGERPRINT = {"fingerprint": False}
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """A dataset drawn from another one, for instance a seed set out of the anchor corpus."""

    of: str
    """Name of the dataset to draw from."""
    n: int
    """Documents to draw; fewer available is an error, not a smaller sample."""
    label: str | None = None
    """Only documents with this label."""
    rng_seed: int = 0
    """Seed of the draw."""


@dataclass(frozen=True, slots=True)
class DatasetConfig:
    """One corpus: where it comes from and how its rows become documents."""

    name: str
    """Used on the command line and in file names: letters, digits, `_ . -`."""
    path: str = ""
    """JSONL, JSON, CSV, TSV, Parquet or plain text, also .gz; empty when `sample` is given."""
    role: Literal["", "anchor", "seed", "eval"] = ""
    """What the dataset is for; only a label."""
    shape: Literal["auto", "text", "messages", "prompt_completion", "chosen_rejected", "transcript"] = "auto"
    """How a row becomes messages; `auto` guesses from the fields and says so."""
    text_field: str | None = None
    """Field holding the text (or transcript, or messages); None guesses."""
    label_field: str | None = None
    """Field holding the label; None guesses from `label`; the empty string takes none."""
    text_role: Literal["user", "assistant", "text"] = "user"
    """Who speaks in plain texts; `text` renders them without the chat template."""
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
    max_tokens: int = 512
    """Documents are cut to this many tokens; what was cut is counted."""
    system_prompt: str | None = None
    """None keeps the chat template's own default."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` measures which is faster on this machine, once per workspace."""
    batch_tokens: int = field(default=8192, metadata=NOT_IN_FINGERPRINT)
    """Padded tokens per forward batch: memory against speed."""


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


@dataclass(frozen=True, slots=True)
class SaeConfig:
    """Training of one SAE from captured activations; defaults follow the run-scaled recipe."""

    architecture: Literal["batchtopk", "topk"] = "batchtopk"
    """BatchTopK is exported as JumpReLU with one threshold; TopK keeps k per token."""
    d_sae: int = 4096
    """Number of features."""
    k: int = 32
    """Active features per token (on average for BatchTopK)."""
    epochs: int = 3
    """Passes over the captured tokens."""
    batch_tokens: int = 2048
    """Tokens per optimiser step."""
    learning_rate: float | None = None
    """None: 9e-4 at batch 2,048 below 5 M training tokens, 3e-4 above."""
    aux_k: int | None = None
    """Dead features asked to explain the residual each step; None takes d_in / 2."""
    aux_coefficient: float = 1 / 32
    """Weight of the revival loss."""
    dead_after_tokens: int | None = None
    """Tokens without firing after which a feature counts as dead; None: min(10 M, 10 % of the run)."""
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
    """Explanations without a language model."""

    provider: Literal["lexical"] = "lexical"
    """`lexical` reads peak tokens, contexts and output tokens."""
    dataset: str = ""
    """Dataset whose spans are read; in `facviz run` empty means the anchor."""
    min_score: float = 0.08
    """Below this lexical strength the outcome is "no clear pattern"."""
    embedding_score: bool = True
    """Score each explanation on held-out spans by embedding similarity."""
    max_scored: int | None = 2000
    """Score at most this many features, the most frequent first; None scores all."""


@dataclass(frozen=True, slots=True)
class RelevanceConfig:
    """Which features matter to the task."""

    source: Literal["label", "embedding"] = "label"
    """`label` asks which features separate the labels; `embedding` compares explanations with the guideline."""
    labels: str = ""
    """Labelled dataset; in `facviz run` empty means the anchor."""
    positive: str = "1"
    """Label of the class the task is about."""
    min_auroc: float = 0.55
    """Length-controlled AUROC a relevant feature reaches (design §3)."""
    max_q: float = 0.05
    """Highest Benjamini-Hochberg corrected permutation p of a relevant feature."""
    n_permutations: int = 10_000
    """Within-decile permutations."""
    rng_seed: int = 0
    """Seed of the permutations."""


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
    """Two-step, coverage-guided synthesis."""

    strategy: Literal["paper"] = "paper"
    """`paper`: contrastive pair, then guided candidates (Algorithm 2)."""
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
    """Sampling temperature, where the provider samples."""
    top_p: float = 0.9
    """Nucleus of sampling."""
    max_tokens: int = 96
    """Longest reply in tokens."""
    rng_seed: int = 0
    """Base seed of all batches."""


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


def fingerprint(*parts: object) -> str:
    """16 hex characters naming a result by everything it follows from: configs, upstream fingerprints, versions."""
    canonical = json.dumps([FINGERPRINT_VERSION, [_canonical(p) for p in parts]], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _canonical(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = [f for f in dataclasses.fields(value) if f.metadata.get("fingerprint", True)]
        return {f.name: _canonical(getattr(value, f.name)) for f in kept}
    if isinstance(value, Mapping):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(v) for v in value]
    return value


def load_run_config(path: Path) -> RunConfig:
    """Read and validate a TOML file; paths are relative to it and `${NAME}` is taken from the environment."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no configuration file {path}; give the path of a TOML file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text ({error}); give the path of a TOML file.") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
    config = from_mapping(RunConfig, raw, where=path.name)
    datasets = tuple(_resolve_path(d, path.parent) for d in config.datasets)
    config = dataclasses.replace(config, datasets=datasets)
    validate_run(config)
    return config


def from_mapping(cls: type[T], raw: Mapping[str, Any], *, where: str) -> T:
    """Build a config dataclass from plain values, refusing unknown keys and wrong types by name."""
    hints = typing.get_type_hints(cls)
    for key in raw:
        if key not in hints:
            near = difflib.get_close_matches(key, list(hints), n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(hints)}."
            raise InputError(f"{where}: unknown key `{key}`; {hint}")
    values = {key: _convert(hints[key], value, f"{where}: `{key}`") for key, value in raw.items()}
    required = [f.name for f in dataclasses.fields(cls) if _is_required(f)]  # type: ignore[arg-type]
    for name in required:
        if name not in values:
            raise InputError(f"{where}: `{name}` is missing; add it.")
    config = cls(**values)
    check_ranges(config, where)
    return config


def _is_required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(f"{where} must be a table.")
        return from_mapping(typing.cast(type, hint), value, where=where)
    origin = get_origin(hint)
    if origin is Literal:
        if value not in get_args(hint):
            raise InputError(f"{where} is {value!r}; choose one of {', '.join(repr(a) for a in get_args(hint))}.")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{where} must be a list.")
        return tuple(_convert(get_args(hint)[0], v, where) for v in value)
    if origin in (typing.Union, types.UnionType):
        options = [a for a in get_args(hint) if a is not type(None)]
        return None if value is None else _convert(options[0], value, where)
    return _convert_plain(hint, value, where)


def _convert_plain(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{where} is {value!r}; it must be a {hint.__name__}.")
    return _expand(value, where) if isinstance(value, str) else value


def _expand(value: str, where: str) -> str:
    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise InputError(f"{where} needs the environment variable {name}, which is not set; set it and try again.")
        return os.environ[name]

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", replace, value)


def _resolve_path(dataset: DatasetConfig, base: Path) -> DatasetConfig:
    if not dataset.path:
        return dataset
    return dataclasses.replace(dataset, path=str((base / Path(dataset.path).expanduser()).resolve()))


_POSITIVE = {
    "n", "limit", "max_tokens", "batch_tokens", "tokens", "shard_docs", "d_sae", "k", "epochs", "per_split",
    "n_permutations", "max_features", "per_feature", "max_candidates", "batch", "evidence_spans",
}  # fmt: skip
_NOT_NEGATIVE = {
    "layer", "heldout_tokens", "before_tokens", "after_tokens", "aux_coefficient", "threshold", "n_bootstrap",
    "min_margin", "temperature", "rng_seed",
}  # fmt: skip
_SHARES = {"always_on_density", "min_auroc", "max_q", "min_fac", "top_p"}


def check_ranges(config: Any, where: str) -> None:
    """Refuse values no stage can use, where they are born; every config built by a user passes here."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if value != value or value in (float("inf"), float("-inf")):
            raise InputError(f"{where}: `{f.name}` is {value}; give a finite number.")
        if f.name in _POSITIVE and value <= 0:
            raise InputError(f"{where}: `{f.name}` is {value}; it must be above 0.")
        if f.name in _NOT_NEGATIVE and value < 0:
            raise InputError(f"{where}: `{f.name}` is {value}; it must not be negative.")
        if f.name in _SHARES and not 0 <= value <= 1:
            raise InputError(f"{where}: `{f.name}` is {value}; it must lie between 0 and 1.")
    if isinstance(config, SaeConfig) and config.k >= config.d_sae:
        raise InputError(f"{where}: k ({config.k}) must be smaller than d_sae ({config.d_sae}).")
    if isinstance(config, SynthesisConfig) and config.pair_candidates < 2:
        raise InputError(
            f"{where}: `pair_candidates` is {config.pair_candidates}; a contrastive pair needs at least 2."
        )
    if isinstance(config, DatasetConfig):
        _check_dataset(config, where)


def _check_dataset(config: DatasetConfig, where: str) -> None:
    if not NAME_PATTERN.fullmatch(config.name):
        raise InputError(f"{where}: the dataset name {config.name!r} must be 1-64 letters, digits, `_`, `.` or `-`.")
    if bool(config.path) == (config.sample is not None):
        raise InputError(f"{where}: dataset {config.name} needs either `path` or `sample`.")
    if not config.roles:
        raise InputError(f"{where}: dataset {config.name} has no `roles`; name at least one, such as user.")


def validate_run(config: RunConfig) -> None:
    """Refuse contradictions between stages before any work starts."""
    names = [d.name for d in config.datasets]
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        raise InputError(f"The dataset name {min(twice)} is used twice; names must differ.")
    coverage = config.coverage
    for role, name in (("anchor", coverage.anchor), ("seed", coverage.seed)):
        if not name:
            raise InputError(f"`coverage.{role}` is missing; name the {role} dataset.")
    used = [("capture.dataset", config.capture.dataset), ("coverage.anchor", coverage.anchor)]
    used += [("coverage.seed", coverage.seed), ("relevance.labels", config.relevance.labels or coverage.anchor)]
    used += [("sample.of", d.sample.of) for d in config.datasets if d.sample]
    for where, name in used:
        if name not in names:
            raise InputError(
                f"`{where}` names the dataset {name!r}, which is not defined; defined: {', '.join(names)}."
            )
    if coverage.anchor == coverage.seed:
        raise InputError("Anchor and seed are the same dataset, so nothing could be missing; name two datasets.")
