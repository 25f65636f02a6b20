"""Tables of a workspace as Arrow schemas (design §4): the one place that knows column names and types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 5
"""Raised with every change of a table; a workspace written by a newer facviz is refused."""

MODE = "inference"
"""The mode in which the pipeline encodes: the SAE's own sparsity on."""

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

TABLES: dict[str, pa.Schema] = {
    "dataset": pa.schema(
        [
            ("dataset_id", pa.string()),
            ("name", pa.string()),
            ("role", pa.string()),
            ("source", pa.string()),
            ("licence", pa.string()),
            ("roles", pa.list_(pa.string())),
            ("mapping", pa.string()),
            ("n_docs", pa.int64()),
            ("n_duplicates", pa.int64()),
            ("n_dropped", pa.int64()),
            ("n_content_tokens", pa.int64()),
            ("n_cut_tokens", pa.int64()),
            ("sha256", pa.string()),
        ]
    ),
    "document": pa.schema(
        [
            ("dataset_id", pa.string()),
            ("doc_no", pa.int32()),
            ("doc_id", pa.string()),
            ("text", pa.string()),
            ("messages", _MESSAGES),
            ("label", pa.string()),
            ("split", pa.string()),
            ("n_content_tokens", pa.int32()),
        ]
    ),
    "sae": pa.schema(
        [
            ("sae_id", pa.string()),
            ("backbone", pa.string()),
            ("layer", pa.int32()),
            ("architecture", pa.string()),
            ("d_in", pa.int32()),
            ("d_sae", pa.int32()),
            ("k", pa.int32()),
            ("metrics", pa.string()),
            ("provenance", pa.string()),
        ]
    ),
    "sae_evaluation": pa.schema(
        [
            ("sae_id", pa.string()),
            ("dataset", pa.string()),
            ("kind", pa.string()),
            ("measures", pa.string()),
            ("at", pa.string()),
        ]
    ),
    "feature": pa.schema(
        [
            ("sae_id", pa.string()),
            ("feature_id", pa.int32()),
            ("top_tokens", pa.list_(pa.string())),
            ("top_logits", pa.list_(pa.float32())),
            ("low_tokens", pa.list_(pa.string())),
            ("low_logits", pa.list_(pa.float32())),
            ("logit_mean", pa.float32()),
            ("logit_std", pa.float32()),
            ("neighbours", pa.list_(pa.int32())),
            ("neighbour_cosines", pa.list_(pa.float32())),
        ]
    ),
    "feature_map": pa.schema(
        [
            ("sae_id", pa.string()),
            ("feature_id", pa.int32()),
            ("umap_x", pa.float32()),
            ("umap_y", pa.float32()),
            ("cluster", pa.int32()),
        ]
    ),
    "feature_cluster": pa.schema(
        [
            ("sae_id", pa.string()),
            ("cluster", pa.int32()),
            ("name", pa.string()),
            ("n_features", pa.int32()),
        ]
    ),
    "feature_stats": pa.schema(
        [
            ("sae_id", pa.string()),
            ("dataset_id", pa.string()),
            ("mode", pa.string()),
            ("feature_id", pa.int32()),
            ("density", pa.float64()),
            ("n_docs", pa.int64()),
            ("max_act", pa.float32()),
            ("p95_act", pa.float32()),
            ("is_dead", pa.bool_()),
            ("is_always_on", pa.bool_()),
        ]
    ),
    "encoded_document": pa.schema(
        [
            ("sae_id", pa.string()),
            ("dataset_id", pa.string()),
            ("mode", pa.string()),
            ("doc_no", pa.int32()),
            ("n_content_tokens", pa.int32()),
            ("n_cut_tokens", pa.int32()),
        ]
    ),
    "doc_activation": pa.schema(
        [
            ("sae_id", pa.string()),
            ("dataset_id", pa.string()),
            ("mode", pa.string()),
            ("feature_id", pa.int32()),
            ("doc_no", pa.int32()),
            ("max_act", pa.float32()),
            ("peak_token", pa.int32()),
        ]
    ),
    "span": pa.schema(
        [
            ("sae_id", pa.string()),
            ("dataset_id", pa.string()),
            ("feature_id", pa.int32()),
            ("rank", pa.int32()),
            ("quantile", pa.float32()),
            ("split", pa.string()),
            ("doc_no", pa.int32()),
            ("start_token", pa.int32()),
            ("end_token", pa.int32()),
            ("start_char", pa.int32()),
            ("end_char", pa.int32()),
            ("peak_token", pa.int32()),
            ("act", pa.float32()),
            ("tokens", pa.list_(pa.string())),
            ("acts", pa.list_(pa.float32())),
        ]
    ),
    "explanation": pa.schema(
        [
            ("sae_id", pa.string()),
            ("feature_id", pa.int32()),
            ("version", pa.int32()),
            ("text", pa.string()),
            ("author_kind", pa.string()),
            ("author", pa.string()),
            ("prompt", pa.string()),
            ("outcome", pa.string()),
            ("scores", pa.string()),
        ]
    ),
    "explanation_score": pa.schema(
        [
            ("sae_id", pa.string()),
            ("dataset_id", pa.string()),
            ("feature_id", pa.int32()),
            ("kind", pa.string()),
            ("judge", pa.string()),
            ("explainer", pa.string()),
            ("text", pa.string()),
            ("negatives", pa.string()),
            ("chance", pa.float64()),
            ("n", pa.int32()),
            ("n_invalid", pa.int32()),
            ("n_positive", pa.int32()),
            ("accuracy", pa.float64()),
            ("low", pa.float64()),
            ("high", pa.float64()),
            ("sensitivity", pa.float64()),
            ("specificity", pa.float64()),
            ("shuffled", pa.float64()),
            ("n_shuffled", pa.int32()),
            ("intervals", pa.string()),
            ("at", pa.string()),
        ]
    ),
    "relevance": pa.schema(
        [
            ("task", pa.string()),
            ("sae_id", pa.string()),
            ("feature_id", pa.int32()),
            ("source", pa.string()),
            ("verdict", pa.string()),
            ("score", pa.float64()),
            ("rationale", pa.string()),
            ("author", pa.string()),
            ("theme", pa.string()),
        ]
    ),
    "coverage_run": pa.schema(
        [
            ("coverage_id", pa.string()),
            ("task", pa.string()),
            ("sae_id", pa.string()),
            ("anchor", pa.string()),
            ("seed", pa.string()),
            ("mode", pa.string()),
            ("threshold_kind", pa.string()),
            ("act_threshold", pa.float64()),
            ("level", pa.string()),
            ("relevance_source", pa.string()),
            ("fac", pa.float64()),
            ("fac_low", pa.float64()),
            ("fac_high", pa.float64()),
            ("n_relevant", pa.int32()),
            ("n_anchor", pa.int32()),
            ("n_missing", pa.int32()),
            ("saturated", pa.bool_()),
            ("details", pa.string()),
        ]
    ),
    "missing_feature": pa.schema(
        [
            ("coverage_id", pa.string()),
            ("feature_id", pa.int32()),
            ("n_anchor_docs", pa.int32()),
            ("act_threshold", pa.float64()),
            ("relevance_score", pa.float64()),
        ]
    ),
    "synthesis_feature": pa.schema(
        [
            ("synth_id", pa.string()),
            ("coverage_id", pa.string()),
            ("feature_id", pa.int32()),
            ("state", pa.string()),
            ("n_candidates", pa.int32()),
            ("n_accepted", pa.int32()),
        ]
    ),
    "candidate": pa.schema(
        [
            ("candidate_id", pa.string()),
            ("synth_id", pa.string()),
            ("feature_id", pa.int32()),
            ("strategy", pa.string()),
            ("step", pa.string()),
            ("round", pa.int32()),
            ("slot", pa.int32()),
            ("text", pa.string()),
            ("messages", _MESSAGES),
            ("act", pa.float64()),
            ("act_threshold", pa.float64()),
            ("peak_token", pa.int32()),
            ("gates", pa.string()),
            ("fields", pa.string()),  # JSON of what the task's format holds beside the text, null where that is nothing
            ("accepted", pa.bool_()),
            ("reject_reason", pa.string()),
            ("generator", pa.string()),
            ("prompt", pa.string()),
            ("rng_seed", pa.int64()),
        ]
    ),
    "pair": pa.schema(
        [
            ("synth_id", pa.string()),
            ("feature_id", pa.int32()),
            ("strong_id", pa.string()),
            ("weak_id", pa.string()),
            ("margin", pa.float64()),
            ("state", pa.string()),
        ]
    ),
    "evaluation": pa.schema(
        [
            ("eval_id", pa.string()),
            ("task", pa.string()),
            ("arm", pa.string()),
            ("rng_seed", pa.int64()),  # null where several seeds were averaged
            ("n_train", pa.int32()),
            ("n_added", pa.int32()),
            ("metric", pa.string()),
            ("value", pa.float64()),
            ("low", pa.float64()),
            ("high", pa.float64()),
            ("settings", pa.string()),
        ]
    ),
}

EVENT_COLUMNS = {
    "event_id": "VARCHAR",
    "at": "VARCHAR",
    "actor": "VARCHAR",
    "target": "VARCHAR",
    "kind": "VARCHAR",
    "payload": "JSON",
    "undoes": "VARCHAR",
}
"""Columns of `review_event`, read from `events/*.jsonl`."""

DECISION_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("sae_id", pa.string()),
        ("feature_id", pa.int32()),
        ("task", pa.string()),
        ("candidate_id", pa.string()),
        ("list_id", pa.string()),
        ("status", pa.string()),
        ("text", pa.string()),
        ("measured", pa.string()),  # JSON: what was measured of an edited sample's text
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("author", pa.string()),
        ("at", pa.string()),
        ("event_id", pa.string()),
        ("n_events", pa.int32()),
    ]
)
"""Columns of `decision`: per target, what its events that hold add up to."""

OPINION_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("sae_id", pa.string()),
        ("feature_id", pa.int32()),
        ("task", pa.string()),
        ("candidate_id", pa.string()),
        ("actor", pa.string()),
        ("look", pa.string()),
        ("label", pa.string()),
        ("text", pa.string()),
        ("reason", pa.string()),
        ("first_label", pa.string()),
        ("is_blind", pa.bool_()),
        ("saw_machine", pa.bool_()),
        ("seconds", pa.float64()),
        ("at", pa.string()),
        ("event_id", pa.string()),
    ]
)
"""Columns of `opinion`: per target and person, what that person decided on their own."""


def to_arrow(table: str, columns: Mapping[str, Any], n_rows: int) -> pa.Table:
    """Columns (arrays, lists, or one scalar for all rows) as a table of exactly the declared schema."""
    schema = TABLES[table]
    missing = set(schema.names) - set(columns)
    unknown = set(columns) - set(schema.names)
    if missing or unknown:
        raise ValueError(f"{table}: missing columns {sorted(missing)}, unknown columns {sorted(unknown)}")
    arrays = [_column(columns[f.name], f.type, n_rows) for f in schema]
    return pa.table(arrays, schema=schema)


def _column(value: Any, kind: pa.DataType, n_rows: int) -> pa.Array:
    if isinstance(value, str) or value is None or not hasattr(value, "__len__"):
        return pa.repeat(pa.scalar(value, kind), n_rows)
    return value if isinstance(value, pa.Array) else pa.array(value, kind)


def rows_to_arrow(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Row dictionaries as a table of the declared schema."""
    return pa.Table.from_pylist([dict(r) for r in rows], schema=TABLES[table])
