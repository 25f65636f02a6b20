"""What the feature table and the review queue both ask of a coverage run, as common table expressions.

Parameters: `coverage_id`, `sae_id`, `mode`.
"""

from __future__ import annotations

COVERAGE_PARTS = """
run AS (
    SELECT c.threshold_kind, c.act_threshold, a.dataset_id AS anchor_id, s.dataset_id AS seed_id,
        CASE c.level WHEN 'yes' THEN 3 WHEN 'probably' THEN 2 ELSE 1 END AS lowest,
        CASE c.level WHEN 'yes' THEN 0.5 WHEN 'probably' THEN 0.4 ELSE 0.3 END AS lowest_cosine
    FROM coverage_run c JOIN dataset a ON a.name = c.anchor JOIN dataset s ON s.name = c.seed
    WHERE c.coverage_id = $coverage_id LIMIT 1),
stats AS (SELECT * FROM feature_stats WHERE sae_id = $sae_id AND mode = $mode),
reach AS (
    SELECT a.feature_id, a.is_always_on, a.max_act > delta AS in_anchor, s.max_act > delta AS in_seed,
        delta > 0 AND (abs(a.max_act / delta - 1) <= 0.2 OR abs(s.max_act / delta - 1) <= 0.2) AS is_near
    FROM (SELECT t.*, CASE threshold_kind WHEN 'relative' THEN act_threshold * p95_act ELSE act_threshold END AS delta
        FROM stats t JOIN run ON t.dataset_id = run.anchor_id) a
    JOIN (SELECT t.* FROM stats t JOIN run ON t.dataset_id = run.seed_id) s USING (feature_id)),
tried AS (
    SELECT feature_id, bool_or(state = 'filled') AS is_filled,
        bool_or(state IN ('exhausted', 'refused')) AS is_exhausted
    FROM synthesis_feature WHERE coverage_id = $coverage_id GROUP BY feature_id)"""
"""`run`: its datasets, kind and level; `stats`: the SAE's features in every dataset; `reach`: which fire above δ in
anchor and seed, and nearly; `tried`: what synthesis made of a feature."""
