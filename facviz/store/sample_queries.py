"""The named queries behind reading a run's candidates: lists with places in them, the best of a feature, strategies."""

from __future__ import annotations

SAMPLE_QUERIES = {
    "candidate_page": """
        SELECT * FROM run_candidate
        WHERE coverage_id = $coverage_id AND ($accepted IS NULL OR accepted = $accepted)
            AND ($review IS NULL OR review = $review) AND ($reason IS NULL OR coalesce(reject_reason, '') = $reason)
            AND ($feature_id IS NULL OR feature_id = $feature_id)
        ORDER BY synth_id, feature_id, step DESC, round, slot LIMIT $n OFFSET $offset""",
    "candidate_place": """
        SELECT * FROM (SELECT candidate_id, row_number() OVER plan AS place, lag(candidate_id) OVER plan AS before,
                lead(candidate_id) OVER plan AS after
            FROM run_candidate
            WHERE coverage_id = $coverage_id AND ($accepted IS NULL OR accepted = $accepted)
                AND ($review IS NULL OR review = $review) AND ($reason IS NULL OR coalesce(reject_reason, '') = $reason)
                AND ($feature_id IS NULL OR feature_id = $feature_id)
            WINDOW plan AS (ORDER BY synth_id, feature_id, step DESC, round, slot))
        WHERE candidate_id = $candidate_id OR ($candidate_id = '' AND place = 1)""",
    "read_candidate": "SELECT * FROM run_candidate WHERE candidate_id = $candidate_id AND coverage_id = $coverage_id",
    "feature_bests": """
        SELECT feature_id, count(*) AS n, count(*) FILTER (accepted AND review <> 'rejected') AS n_accepted,
            max(act / nullif(act_threshold, 0)) AS share, max(act) AS act
        FROM run_candidate WHERE coverage_id = $coverage_id GROUP BY feature_id ORDER BY feature_id""",
    "strongest": """
        SELECT feature_id, max_act FROM feature_stats
        WHERE sae_id = $sae_id AND dataset_id = $dataset_id AND mode = $mode
            AND feature_id IN (SELECT unnest($ids::INTEGER[])) ORDER BY feature_id""",
    "beyond_anchor": """
        SELECT m.feature_id FROM missing_feature m JOIN feature_stats s USING (feature_id)
        WHERE m.coverage_id = $coverage_id AND s.sae_id = $sae_id AND s.dataset_id = $dataset_id AND s.mode = $mode
            AND s.max_act <= greatest($margin * m.act_threshold, 0) ORDER BY m.feature_id""",
    "best_candidates": """
        SELECT * FROM run_candidate
        WHERE coverage_id = $coverage_id AND feature_id IN (SELECT unnest($ids::INTEGER[])) AND text <> ''
        QUALIFY row_number() OVER (PARTITION BY feature_id ORDER BY act DESC, candidate_id) = 1 ORDER BY feature_id""",
    "strategy_counts": """
        SELECT synth_id, strategy, any_value(generator) AS generator, count(DISTINCT feature_id) AS n_features,
            count(DISTINCT feature_id) FILTER (accepted AND review <> 'rejected') AS n_filled, count(*) AS n,
            count(*) FILTER (accepted AND review <> 'rejected') AS n_accepted
        FROM run_candidate WHERE coverage_id = $coverage_id AND ($feature_id IS NULL OR feature_id = $feature_id)
        GROUP BY synth_id, strategy ORDER BY n_filled DESC, n, synth_id""",
    "waiting_candidates": """
        SELECT c.candidate_id, c.feature_id, coalesce(d.event_id, '') AS event_id FROM run_candidate c
        LEFT JOIN (SELECT candidate_id, event_id FROM decision WHERE kind = 'candidate') d USING (candidate_id)
        WHERE c.accepted AND c.review = 'unreviewed' AND c.coverage_id = $coverage_id
        ORDER BY c.synth_id, c.feature_id, c.step DESC, c.round, c.slot""",
    "credited_features": """
        SELECT DISTINCT unnest(from_json(gates -> '$.credited', '["INTEGER"]')) AS feature_id FROM run_candidate
        WHERE coverage_id = $coverage_id AND accepted AND review <> 'rejected' ORDER BY feature_id""",
}
