"""Views over the tables of a workspace that every reader has: what people said beside what machines wrote."""

from __future__ import annotations

DERIVED_VIEWS = {
    "best_explanation": """
        SELECT * FROM (SELECT *, TRY(CAST(scores ->> '$.embedding_auroc' AS DOUBLE)) AS auroc,
            max(TRY(CAST(scores ->> '$.embedding_auroc_lexical' AS DOUBLE))) OVER feature AS words
            FROM explanation WINDOW feature AS (PARTITION BY sae_id, feature_id))
        QUALIFY row_number() OVER (PARTITION BY sae_id, feature_id
            ORDER BY author_kind = 'llm' AND prompt = '' DESC, CASE
                WHEN author_kind = 'llm' THEN if(outcome = 'explained', coalesce(auroc, 0), -1)
                ELSE if(outcome = 'explained', coalesce(words, auroc, 1), 0.5) END DESC,
            author_kind = 'lexical' DESC, outcome = 'explained' DESC, version DESC) = 1""",
    "span_peak": """
        SELECT sae_id, dataset_id, feature_id, peak, near FROM (
            SELECT sae_id, dataset_id, feature_id,
                lower(trim(list_extract(tokens, peak_token - start_token + 1))) AS peak,
                lower(array_to_string(list_slice(tokens, greatest(peak_token - start_token - 2, 1),
                    peak_token - start_token + 4), '')) AS near
            FROM span)
        WHERE peak <> ''""",
    "current_explanation": """
        SELECT coalesce(e.sae_id, d.sae_id) AS sae_id, coalesce(e.feature_id, d.feature_id) AS feature_id,
            coalesce(e.version, 0) AS version, coalesce(d.text, e.text, '') AS text, coalesce(e.text, '') AS written,
            CASE WHEN d.text IS NULL THEN e.author_kind ELSE 'human' END AS author_kind,
            CASE WHEN d.text IS NULL THEN e.author ELSE d.author END AS author, coalesce(e.prompt, '') AS prompt,
            CASE WHEN d.text IS NULL THEN e.outcome ELSE 'explained' END AS outcome,
            CASE WHEN d.text IS NULL THEN coalesce(e.scores, '{}') ELSE '{}' END AS scores,
            coalesce(d.status, 'unreviewed') AS status, d.reason, d.author AS reviewer, d."at" AS reviewed_at
        FROM best_explanation e
        FULL JOIN (SELECT * FROM decision WHERE kind = 'explanation') d USING (sae_id, feature_id)""",
    "current_relevance": """
        SELECT task, sae_id, feature_id, source, verdict, score, rationale, author, coalesce(theme, '') AS theme
        FROM relevance
        UNION ALL SELECT d.task, d.sae_id, d.feature_id, 'human', d.verdict, 1.0, '', d.author, coalesce(m.theme, '')
        FROM decision d LEFT JOIN (SELECT task, sae_id, feature_id, max(theme) AS theme FROM relevance
            GROUP BY ALL) m USING (task, sae_id, feature_id) WHERE d.kind = 'relevance'""",
    "current_candidate": """
        SELECT c.* REPLACE (coalesce(d.measured ->> '$.text', d.text, c.text) AS text,
                CASE WHEN d.text IS NULL THEN c.messages ELSE
                    from_json(d.measured -> '$.messages', '[{"role": "VARCHAR", "content": "VARCHAR"}]')
                    END AS messages,
                CASE WHEN d.text IS NULL THEN c.fields ELSE
                    nullif(CAST(d.measured -> '$.fields' AS VARCHAR), 'null') END AS fields,
                coalesce(CAST(d.measured ->> '$.act' AS DOUBLE), c.act) AS act,
                coalesce(CAST(d.measured ->> '$.peak_token' AS INTEGER), c.peak_token) AS peak_token,
                coalesce(CAST(d.measured -> '$.gates' AS VARCHAR), c.gates) AS gates,
                d.text IS NOT NULL OR c.accepted AS accepted,
                if(d.text IS NULL, c.reject_reason, NULL) AS reject_reason),
            if(d.text IS NULL, NULL, c.text) AS written_text,
            coalesce(d.status, 'unreviewed') AS review, d.reason AS review_reason, d.author AS reviewer,
            d."at" AS reviewed_at
        FROM candidate c LEFT JOIN (SELECT * FROM decision WHERE kind = 'candidate') d USING (candidate_id)""",
    "run_candidate": """
        SELECT c.*, f.coverage_id FROM current_candidate c
        JOIN (SELECT DISTINCT synth_id, coverage_id FROM synthesis_feature) f USING (synth_id)""",
    "feature_list": """
        SELECT list_id, text AS name, author, "at" FROM decision WHERE kind = 'list' AND status = 'kept'""",
    "listed_feature": """
        SELECT l.list_id, l.name, d.sae_id, d.feature_id, d.text AS note, d.author, d."at"
        FROM (SELECT * FROM decision WHERE kind = 'listed' AND status = 'listed') d
        JOIN (SELECT list_id, text AS name FROM decision WHERE kind = 'list' AND status = 'kept') l USING (list_id)""",
}
"""Tables joined with what people decided: a person's words win over a machine's. Each may read those before it.

A sample that a person edited stands there with that text and what was measured of it: only verified edits come here.

Of several explanations the one with the better held-out score is shown, and words alone win a tie. What a model wrote
must have scored better: words alone that nobody scored (the model's stage does) are not beaten, and "no clear pattern"
counts as chance, .5.
Imported ones, which no prompt of ours asked for, somebody wanted to see: they come first, unscored as they are.
"""
