"""Feature Activation Coverage. Pure NumPy and SciPy; knows nothing of models, tasks or storage."""

from facviz.coverage.activity import (
    active_features,
    doc_frequency,
    positive_p95,
    relative_thresholds,
    thresholds,
    without_always_on,
)
from facviz.coverage.measures import (
    GRIDS,
    CoverageResult,
    CurvePoint,
    Kind,
    compute_fac,
    coverage_curve,
    fac_frequency,
    fac_magnitude,
    is_saturated,
    measure_coverage,
    missing_coverage,
    missing_features,
)
from facviz.coverage.sampling import EqualTokens, bootstrap_interval, equal_token_comparison, rarefaction

__all__ = [
    "GRIDS",
    "CoverageResult",
    "CurvePoint",
    "EqualTokens",
    "Kind",
    "active_features",
    "bootstrap_interval",
    "compute_fac",
    "coverage_curve",
    "doc_frequency",
    "equal_token_comparison",
    "fac_frequency",
    "fac_magnitude",
    "is_saturated",
    "measure_coverage",
    "missing_coverage",
    "missing_features",
    "positive_p95",
    "rarefaction",
    "relative_thresholds",
    "thresholds",
    "without_always_on",
]
