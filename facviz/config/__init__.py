"""Configuration of every stage: dataclasses, their checks, TOML reading and fingerprints."""

from __future__ import annotations

from facviz.config.checks import check_ranges, validate_run
from facviz.config.fingerprints import fingerprint
from facviz.config.stages import (
    NOT_IN_FINGERPRINT,
    NOT_IN_FINGERPRINT_AT_DEFAULT,
    BackboneConfig,
    CaptureConfig,
    CoverageConfig,
    DatasetConfig,
    EvaluationConfig,
    ExplainConfig,
    RelevanceConfig,
    RunConfig,
    SaeConfig,
    SampleConfig,
    ScoreConfig,
    SpansConfig,
    SynthesisConfig,
)
from facviz.config.toml import from_mapping, load_run_config

__all__ = [
    "NOT_IN_FINGERPRINT",
    "NOT_IN_FINGERPRINT_AT_DEFAULT",
    "BackboneConfig",
    "CaptureConfig",
    "CoverageConfig",
    "DatasetConfig",
    "EvaluationConfig",
    "ExplainConfig",
    "RelevanceConfig",
    "RunConfig",
    "SaeConfig",
    "SampleConfig",
    "ScoreConfig",
    "SpansConfig",
    "SynthesisConfig",
    "check_ranges",
    "fingerprint",
    "from_mapping",
    "load_run_config",
    "validate_run",
]
