"""Feature Activation Coverage. Pure NumPy and SciPy; knows nothing of models, tasks or storage."""

from facviz.coverage.activity import (
    active_features,
    doc_frequency,
    relative_thresholds,
    thresholds,
    without_always_on,
)
from facviz.coverage.difference import CHANGES, Change, Difference, dataset_difference
from facviz.coverage.index import ActivityIndex, index_activity, index_entries, join_indices, positive_p95
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
from facviz.coverage.resampling import weight_shown
from facviz.coverage.sampling import (
    EqualTokens,
    bootstrap_interval,
    bootstrap_shares,
    draw_within,
    equal_token_comparison,
    expected_shares,
    rarefaction,
    share_within,
)
from facviz.coverage.unseen import Unseen, unseen_features

__all__ = [
    "CHANGES",
    "GRIDS",
    "ActivityIndex",
    "Change",
    "CoverageResult",
    "CurvePoint",
    "Difference",
    "EqualTokens",
    "Kind",
    "Unseen",
    "active_features",
    "bootstrap_interval",
    "bootstrap_shares",
    "compute_fac",
    "coverage_curve",
    "dataset_difference",
    "doc_frequency",
    "draw_within",
    "equal_token_comparison",
    "expected_shares",
    "fac_frequency",
    "fac_magnitude",
    "index_activity",
    "index_entries",
    "is_saturated",
    "join_indices",
    "measure_coverage",
    "missing_coverage",
    "missing_features",
    "positive_p95",
    "rarefaction",
    "relative_thresholds",
    "share_within",
    "thresholds",
    "unseen_features",
    "weight_shown",
    "without_always_on",
]
