"""The named queries every reader of a workspace answers, whether from shards in memory or from the dashboard's file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

import numpy as np
from scipy import sparse

from facviz.errors import InputError
from facviz.store.sample_queries import SAMPLE_QUERIES

NAMED_QUERIES = {
    **SAMPLE_QUERIES,
    "features": """
        SELECT s.*, f.* EXCLUDE (sae_id, feature_id), e.text AS explanation, e.outcome AS explanation_outcome
        FROM feature_stats s LEFT JOIN feature f USING (sae_id, feature_id)
        LEFT JOIN current_explanation e USING (sae_id, feature_id)
        WHERE $sae_id IS NULL OR s.sae_id = $sae_id ORDER BY s.sae_id, s.dataset_id, s.feature_id""",
    "spans": """
        SELECT * FROM span WHERE feature_id = $feature_id AND ($sae_id IS NULL OR sae_id = $sae_id)
        ORDER BY sae_id, dataset_id, split, rank""",
    "explanations": """
        SELECT * FROM current_explanation WHERE $sae_id IS NULL OR sae_id = $sae_id ORDER BY sae_id, feature_id""",
    "coverage": "SELECT * FROM coverage_run",
    "samples": """
        SELECT * FROM current_candidate WHERE accepted AND review <> 'rejected'
        ORDER BY synth_id, feature_id, step, round, slot""",
    "datasets": "SELECT * FROM dataset",
    "documents": "SELECT * FROM document WHERE dataset_id = $dataset_id ORDER BY doc_no",
    "stats": """
        SELECT * FROM feature_stats WHERE sae_id = $sae_id AND dataset_id = $dataset_id AND mode = $mode
        ORDER BY feature_id""",
    "encoded_documents": """
        SELECT doc_no, n_content_tokens, n_cut_tokens FROM encoded_document
        WHERE sae_id = $sae_id AND dataset_id = $dataset_id AND mode = $mode ORDER BY doc_no""",
    "doc_activations": """
        SELECT feature_id, doc_no, max_act FROM doc_activation
        WHERE sae_id = $sae_id AND dataset_id = $dataset_id AND mode = $mode""",
    "doc_quantiles": """
        SELECT feature_id, count(*) AS n_docs, max(max_act) AS max_act, quantile_cont(max_act, 0.95) AS p95_act
        FROM doc_activation WHERE sae_id = $sae_id AND dataset_id = $dataset_id AND mode = $mode
        GROUP BY feature_id ORDER BY feature_id""",
    "dataset_spans": """
        SELECT * FROM span WHERE sae_id = $sae_id AND dataset_id = $dataset_id
        ORDER BY feature_id, split, rank""",
    "written_explanations": """
        SELECT feature_id, author_kind, author, outcome, text,
            TRY(CAST(scores ->> '$.embedding_auroc' AS DOUBLE)) AS score,
            TRY(CAST(scores ->> '$.embedding_auroc_shuffled' AS DOUBLE)) AS shuffled,
            TRY(CAST(scores ->> '$.embedding_auroc_lexical' AS DOUBLE)) AS words
        FROM explanation WHERE sae_id = $sae_id AND ($author IS NULL OR author = $author) ORDER BY feature_id""",
    "explanations_by": """
        SELECT feature_id, version, text, author_kind, author, prompt, outcome, scores FROM explanation
        WHERE sae_id = $sae_id AND author_kind = $wrote_by ORDER BY feature_id""",
    "documents_of": """
        SELECT feature_id, doc_no FROM doc_activation
        WHERE sae_id = $sae_id AND dataset_id = $dataset_id AND mode = $mode
            AND feature_id IN (SELECT unnest($ids::INTEGER[]))""",
    "texts_of": """
        SELECT doc_no, text FROM document WHERE dataset_id = $dataset_id
            AND doc_no IN (SELECT unnest($ids::INTEGER[])) ORDER BY doc_no""",
    "messages_of": """
        SELECT doc_no, messages FROM document WHERE dataset_id = $dataset_id
            AND doc_no IN (SELECT unnest($ids::INTEGER[])) ORDER BY doc_no""",
    "spans_of": """
        SELECT * FROM span WHERE sae_id = $sae_id AND dataset_id = $dataset_id
            AND feature_id IN (SELECT unnest($ids::INTEGER[])) ORDER BY feature_id, split, rank""",
    "feature_directions": "SELECT * FROM feature WHERE sae_id = $sae_id ORDER BY feature_id",
    "relevance": """
        SELECT * FROM current_relevance WHERE task = $task AND sae_id = $sae_id ORDER BY feature_id, source""",
    "task_verdicts": """
        SELECT feature_id, source, verdict, score, '' AS rationale, theme FROM current_relevance
        WHERE task = $task AND sae_id = $sae_id AND (source IN ($source, 'human') OR theme <> '')
            AND feature_id IN (SELECT feature_id FROM current_relevance WHERE task = $task AND sae_id = $sae_id
                AND source IN ($source, 'human') AND verdict <> 'no')
        ORDER BY feature_id, source""",
    "relevance_tasks": "SELECT DISTINCT task, sae_id, source FROM relevance WHERE sae_id = $sae_id ORDER BY ALL",
    "missing": """
        SELECT * FROM missing_feature WHERE coverage_id = $coverage_id
        ORDER BY relevance_score DESC, feature_id""",
    "candidates": """
        SELECT * FROM current_candidate WHERE synth_id = $synth_id ORDER BY feature_id, step DESC, round, slot""",
    "candidate": """
        SELECT c.*, f.coverage_id FROM candidate c
        JOIN (SELECT DISTINCT synth_id, coverage_id FROM synthesis_feature) f USING (synth_id)
        WHERE c.candidate_id = $candidate_id""",
    "pairs": "SELECT * FROM pair WHERE synth_id = $synth_id ORDER BY feature_id",
    "synthesis_features": "SELECT * FROM synthesis_feature WHERE synth_id = $synth_id ORDER BY feature_id",
    "syntheses": """
        SELECT synth_id, any_value(coverage_id) AS coverage_id, count(*) AS n_attempted,
            count(*) FILTER (state = 'filled') AS n_filled, sum(n_candidates) AS n_candidates,
            sum(n_accepted) AS n_accepted
        FROM synthesis_feature GROUP BY synth_id ORDER BY synth_id""",
    "measured_datasets": """
        SELECT d.name, d.role, count(*) AS n_encoded, sum(e.n_content_tokens)::BIGINT AS n_tokens
        FROM encoded_document e JOIN dataset d USING (dataset_id)
        WHERE e.sae_id = $sae_id AND e.mode = $mode GROUP BY d.name, d.role ORDER BY d.name""",
    "explanations_of": """
        SELECT feature_id, text, outcome, status FROM current_explanation
        WHERE sae_id = $sae_id AND list_contains($ids::INTEGER[], feature_id) ORDER BY feature_id""",
    "themes_of": """
        SELECT feature_id, max(theme) AS theme FROM relevance WHERE sae_id = $sae_id AND task = $task AND theme <> ''
            AND feature_id IN (SELECT unnest($ids::INTEGER[])) GROUP BY feature_id ORDER BY feature_id""",
    "clusters_of": """
        SELECT m.feature_id, c.name AS theme FROM feature_map m JOIN feature_cluster c USING (sae_id, cluster)
        WHERE m.sae_id = $sae_id AND c.name <> '' AND m.feature_id IN (SELECT unnest($ids::INTEGER[]))
        ORDER BY m.feature_id""",
    "strongest_spans": """
        SELECT * FROM span WHERE sae_id = $sae_id AND dataset_id = $dataset_id
            AND feature_id IN (SELECT unnest($ids::INTEGER[]))
        QUALIFY row_number() OVER (PARTITION BY feature_id ORDER BY act DESC, split, rank) = 1 ORDER BY feature_id""",
    "attempts": """
        SELECT c.feature_id, max(c.act) FILTER (c.accepted AND c.review <> 'rejected') AS best_act
        FROM current_candidate c JOIN (SELECT DISTINCT synth_id, coverage_id FROM synthesis_feature) s USING (synth_id)
        JOIN coverage_run r USING (coverage_id)
        WHERE r.sae_id = $sae_id AND r.task = $task AND r.anchor = $anchor AND r.seed = $seed
        GROUP BY c.feature_id ORDER BY c.feature_id""",
    "synthesis_states": """
        SELECT synth_id, feature_id, state, n_candidates, n_accepted FROM synthesis_feature
        WHERE coverage_id = $coverage_id ORDER BY synth_id, feature_id""",
    "candidate_counts": """
        SELECT synth_id, feature_id, step, accepted, coalesce(reject_reason, '') AS reason, review, count(*) AS n
        FROM current_candidate
        WHERE synth_id IN (SELECT synth_id FROM synthesis_feature WHERE coverage_id = $coverage_id)
        GROUP BY ALL ORDER BY ALL""",
    "coverage_candidates": """
        SELECT candidate_id, synth_id, feature_id, strategy, text, messages, accepted, review,
            coalesce(reject_reason, '') AS reason
        FROM current_candidate
        WHERE synth_id IN (SELECT synth_id FROM synthesis_feature WHERE coverage_id = $coverage_id)
        ORDER BY candidate_id""",
    "sample_records": """
        SELECT c.*, r.coverage_id, r.task, r.sae_id, r.anchor, r.seed, s.backbone, s.layer, p.state AS pair_state,
            p.strong_id, p.weak_id, p.margin AS pair_margin, w.messages AS weak_messages, w.act AS weak_act,
            e.text AS explanation, e.version AS explanation_version, e.author AS explanation_author,
            coalesce(t.theme, '') AS theme
        FROM current_candidate c JOIN (SELECT DISTINCT synth_id, coverage_id FROM synthesis_feature) f USING (synth_id)
        LEFT JOIN coverage_run r USING (coverage_id) LEFT JOIN sae s USING (sae_id)
        LEFT JOIN pair p ON p.synth_id = c.synth_id AND p.feature_id = c.feature_id
        LEFT JOIN candidate w ON w.candidate_id = p.weak_id
        LEFT JOIN current_explanation e ON e.sae_id = r.sae_id AND e.feature_id = c.feature_id
        LEFT JOIN (SELECT sae_id, task, feature_id, max(theme) AS theme FROM relevance GROUP BY ALL) t
            ON t.sae_id = r.sae_id AND t.task = r.task AND t.feature_id = c.feature_id
        WHERE c.accepted AND c.review <> 'rejected'
        ORDER BY c.synth_id, c.feature_id, c.step, c.round, c.slot""",
    "evaluations": """
        SELECT * FROM evaluation WHERE $eval_id IS NULL OR eval_id = $eval_id
        ORDER BY eval_id, metric, arm, n_added, rng_seed NULLS FIRST""",
    "pair_texts": """
        SELECT p.state, p.margin, s.text AS strong_text, s.act AS strong_act, w.text AS weak_text, w.act AS weak_act
        FROM pair p LEFT JOIN candidate s ON s.candidate_id = p.strong_id
        LEFT JOIN candidate w ON w.candidate_id = p.weak_id
        WHERE p.synth_id = $synth_id AND p.feature_id = $feature_id""",
    "saes": "SELECT * FROM sae",
    "sae": "SELECT * FROM sae WHERE sae_id = $sae_id",
    "sae_evaluations": """
        SELECT * FROM sae_evaluation WHERE $sae_id IS NULL OR sae_id = $sae_id
        QUALIFY row_number() OVER (PARTITION BY sae_id, kind, dataset ORDER BY "at" DESC) = 1
        ORDER BY sae_id, kind, dataset""",
    "encoded_datasets": """
        SELECT sae_id, dataset_id, count(*) AS n_features, count(*) FILTER (NOT is_dead) AS n_active,
            count(*) FILTER (is_always_on) AS n_always_on
        FROM feature_stats WHERE mode = $mode GROUP BY ALL ORDER BY ALL""",
    "label_counts": """
        SELECT label, count(*) AS n_docs FROM document WHERE dataset_id = $dataset_id
        GROUP BY label ORDER BY n_docs DESC, label""",
    "length_counts": """
        SELECT n_content_tokens, count(*) AS n_docs FROM document WHERE dataset_id = $dataset_id
        GROUP BY n_content_tokens ORDER BY n_content_tokens""",
    "document_matches": """
        SELECT dataset_id, count(*) AS n_docs FROM document WHERE dataset_id = $dataset_id
            AND ($label IS NULL OR coalesce(label, '') = $label)
            AND ($search IS NULL OR contains(lower(text), lower($search::VARCHAR)))
        GROUP BY dataset_id""",
    "document_page": """
        SELECT doc_no, label, n_content_tokens, len(messages) AS n_messages, length(text) AS n_chars,
            [{'role': m.role, 'content': left(m.content, 1500)} FOR m IN messages[:8]] AS messages
        FROM document WHERE dataset_id = $dataset_id AND ($label IS NULL OR coalesce(label, '') = $label)
            AND ($search IS NULL OR contains(lower(text), lower($search::VARCHAR)))
        ORDER BY doc_no LIMIT $n OFFSET $offset""",
    "explanation_states": """
        SELECT status, outcome, count(*) AS n FROM current_explanation WHERE sae_id = $sae_id GROUP BY ALL
        ORDER BY ALL""",
    "relevance_counts": """
        SELECT task, source, verdict, count(*) AS n FROM current_relevance WHERE sae_id = $sae_id GROUP BY ALL
        ORDER BY ALL""",
    "sample_states": """
        SELECT synth_id, review, count(*) AS n FROM current_candidate WHERE accepted AND synth_id = $synth_id
        GROUP BY ALL ORDER BY ALL""",
    "events_of": 'SELECT * FROM review_event WHERE target = $target ORDER BY "at", rowid',
    "opinions": """
        SELECT * FROM opinion WHERE kind = $kind AND sae_id = $sae_id AND (kind <> 'relevance' OR task = $task)
        ORDER BY feature_id, task, actor, look""",
    "opinions_of": """
        SELECT * FROM opinion WHERE sae_id = $sae_id AND feature_id = $feature_id ORDER BY "at", actor""",
    "queue_events": """
        SELECT * FROM review_event WHERE starts_with(target, 'queue/') AND kind IN ('save', 'remove')
        ORDER BY "at", rowid""",
    "recent_decisions_by": """
        SELECT * FROM review_event WHERE actor = $actor AND kind <> 'undo'
            AND split_part(target, '/', 1) IN ('explanation', 'relevance') ORDER BY "at" DESC, rowid DESC LIMIT $n""",
    "events_of_many": """
        SELECT * FROM review_event WHERE target IN (SELECT unnest($among::VARCHAR[])) ORDER BY "at", rowid""",
    "recent_events": 'SELECT * FROM review_event ORDER BY "at" DESC LIMIT $n',
    "decisions": 'SELECT * FROM decision WHERE kind = $kind AND ($sae_id IS NULL OR sae_id = $sae_id) ORDER BY "at"',
    "feature_stats_of": """
        SELECT s.*, d.name, d.role, d.n_docs AS n_all_docs FROM feature_stats s JOIN dataset d USING (dataset_id)
        WHERE s.sae_id = $sae_id AND s.mode = $mode AND s.feature_id = $feature_id ORDER BY d.role, d.name""",
    "feature_scales": """
        SELECT feature_id, max(max_act) AS max_act, max(density) AS density,
            bool_or(is_always_on AND dataset_id = $dataset_id) AS is_always_on
        FROM feature_stats WHERE sae_id = $sae_id AND mode = $mode AND feature_id IN (SELECT unnest($ids::INTEGER[]))
        GROUP BY feature_id ORDER BY feature_id""",
    "explained_texts": """
        SELECT feature_id, text, author_kind FROM current_explanation
        WHERE sae_id = $sae_id AND text <> '' AND outcome = 'explained' ORDER BY feature_id""",
    "feature_places": "SELECT feature_id, cluster FROM feature_map WHERE sae_id = $sae_id ORDER BY feature_id",
    "feature_clusters": "SELECT * FROM feature_cluster WHERE sae_id = $sae_id ORDER BY cluster",
    "document_numbers": "SELECT doc_no, doc_id FROM document WHERE dataset_id = $dataset_id ORDER BY doc_no",
    "activations_on": """
        SELECT feature_id, doc_no, max_act FROM doc_activation
        WHERE sae_id = $sae_id AND dataset_id = $dataset_id AND mode = $mode
            AND doc_no IN (SELECT unnest($doc_nos::INTEGER[]))""",
    "live_features": """
        SELECT feature_id FROM feature_stats
        WHERE sae_id = $sae_id AND dataset_id = $dataset_id AND mode = $mode AND NOT is_dead ORDER BY feature_id""",
    "feature_direction": "SELECT * FROM feature WHERE sae_id = $sae_id AND feature_id = $feature_id",
    "feature_explanation": """
        SELECT * FROM current_explanation WHERE sae_id = $sae_id AND feature_id = $feature_id""",
    "written_explanation": """
        SELECT * FROM explanation WHERE sae_id = $sae_id AND feature_id = $feature_id
        ORDER BY author_kind = 'llm' AND prompt = '' DESC, outcome = 'explained' DESC,
            coalesce(TRY(CAST(scores ->> '$.embedding_auroc' AS DOUBLE)), 0) DESC, author_kind = 'lexical' DESC,
            version DESC LIMIT 1""",
    "explanation_texts": """
        SELECT feature_id, text FROM current_explanation WHERE sae_id = $sae_id AND text <> '' ORDER BY feature_id""",
    "feature_doc_maxima": """
        SELECT doc_no, max_act FROM doc_activation
        WHERE sae_id = $sae_id AND dataset_id = $dataset_id AND mode = $mode AND feature_id = $feature_id""",
    "feature_spans": """
        SELECT s.split, s.rank, s.doc_no, s.tokens, s.acts, s.act, s.peak_token - s.start_token AS peak, d.label,
            substring(d.text, greatest(s.start_char - 2000, 1), least(s.start_char, 2001)) AS text_before,
            substring(d.text, s.end_char + 1, 2001) AS text_after
        FROM span s LEFT JOIN document d USING (dataset_id, doc_no)
        WHERE s.sae_id = $sae_id AND s.dataset_id = $dataset_id AND s.feature_id = $feature_id AND s.rank < $n
        ORDER BY s.split, s.rank""",
    "explainable_features": """
        SELECT s.feature_id, coalesce(any_value(e.outcome) = 'explained', false) AS is_explained
        FROM span s LEFT JOIN current_explanation e USING (sae_id, feature_id)
        WHERE s.sae_id = $sae_id AND s.dataset_id = $dataset_id AND s.split <> 'score'
        GROUP BY s.feature_id ORDER BY s.feature_id""",
    "held_out_features": """
        SELECT DISTINCT feature_id FROM span WHERE sae_id = $sae_id AND dataset_id = $dataset_id
            AND split <> 'explain' ORDER BY feature_id""",
    "neighbours_of": """
        SELECT feature_id, neighbours FROM feature
        WHERE sae_id = $sae_id AND feature_id IN (SELECT unnest($ids::INTEGER[])) ORDER BY feature_id""",
    "scores_of": """
        SELECT * FROM explanation_score WHERE sae_id = $sae_id AND feature_id IN (SELECT unnest($ids::INTEGER[]))
        QUALIFY row_number() OVER (PARTITION BY feature_id, kind, judge ORDER BY "at" DESC) = 1
        ORDER BY feature_id, kind""",
    "feature_scores": """
        SELECT s.*, coalesce(s.text = '' OR s.text = e.text, false) AS is_current FROM explanation_score s
        LEFT JOIN current_explanation e USING (sae_id, feature_id)
        WHERE s.sae_id = $sae_id AND s.feature_id = $feature_id
        QUALIFY row_number() OVER (PARTITION BY s.kind, s.judge ORDER BY is_current DESC, s."at" DESC) = 1
        ORDER BY s.kind, s.judge""",
    "feature_lists": """
        SELECT list_id, name, author, "at", (SELECT count(*) FROM listed_feature i
            WHERE i.list_id = l.list_id AND ($sae_id IS NULL OR i.sae_id = $sae_id)) AS n_features
        FROM feature_list l ORDER BY lower(name), list_id""",
    "lists_of_feature": """
        SELECT * FROM listed_feature WHERE sae_id = $sae_id AND feature_id = $feature_id
        ORDER BY lower(name), list_id""",
    "listed_features": """
        SELECT i.*, e.text AS explanation FROM listed_feature i
        LEFT JOIN current_explanation e USING (sae_id, feature_id)
        WHERE ($list_id IS NULL OR i.list_id = $list_id) AND ($sae_id IS NULL OR i.sae_id = $sae_id)
        ORDER BY lower(i.name), i.list_id, i.sae_id, i."at", i.feature_id""",
    "feature_versions": """
        SELECT * FROM explanation WHERE sae_id = $sae_id AND feature_id = $feature_id
        ORDER BY version, author_kind, author""",
    "feature_relevance": """
        SELECT * FROM current_relevance WHERE sae_id = $sae_id AND feature_id = $feature_id ORDER BY task, source""",
    "feature_decisions": "SELECT * FROM decision WHERE sae_id = $sae_id AND feature_id = $feature_id ORDER BY ALL",
    "feature_candidates": """
        SELECT c.* FROM current_candidate c WHERE c.feature_id = $feature_id AND EXISTS (
            SELECT 1 FROM synthesis_feature f JOIN coverage_run r USING (coverage_id)
            WHERE f.synth_id = c.synth_id AND r.sae_id = $sae_id)
        ORDER BY c.accepted DESC, c.act DESC, c.candidate_id""",
    "saved_view_events": 'SELECT * FROM review_event WHERE starts_with(target, $prefix) ORDER BY "at"',
    "batches_by": """
        SELECT payload ->> '$.batch' AS batch, max("at") AS "at" FROM review_event
        WHERE actor = $actor AND kind <> 'undo' AND batch IS NOT NULL GROUP BY batch ORDER BY "at" DESC LIMIT 20""",
    "events_of_batch": """
        SELECT * FROM review_event WHERE target IN (
            SELECT target FROM review_event WHERE payload ->> '$.batch' = $batch) ORDER BY "at" """,
}


class Queries(ABC):
    """Answers named queries with drained results; a subclass says from which connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Free the connection."""

    @abstractmethod
    def _answer(self, sql: str, parameters: dict[str, object]) -> Any:
        """Run one statement and return its rows as an Arrow table."""

    def named(self, query: str, **parameters: object) -> Any:
        """Result of a named query as an Arrow table."""
        return self.select(NAMED_QUERIES[query], **parameters)

    def select(self, sql: str, **parameters: object) -> Any:
        """Result of a statement written inside `facviz.store`; values only ever travel as parameters."""
        return self._answer(sql, {k: v for k, v in parameters.items() if f"${k}" in sql})

    def kept(self, sql: str, **_: object) -> str:
        """Where to read the rows of a statement over machine-made tables alone, as SQL; its reader passes the values.

        Here the statement itself; the dashboard's file works it out once and keeps the rows.
        """
        return f"({sql})"

    def rows(self, query: str, **parameters: object) -> list[dict[str, Any]]:
        """Result of a named query as dictionaries."""
        return list(self.named(query, **parameters).to_pylist())

    def dataset(self, name: str) -> dict[str, Any]:
        """The dataset row of this name; InputError names the known ones."""
        rows = self.rows("datasets")
        for row in rows:
            if row["name"] == name:
                return row
        known = ", ".join(r["name"] for r in rows) or "none yet"
        raise InputError(
            f"There is no dataset {name!r} in this workspace (known: {known}); add it with `facviz data add`."
        )

    def activation_matrix(self, sae_id: str, dataset_id: str, mode: str, d_sae: int) -> sparse.csr_matrix:
        """`g_i(x)` of a dataset, documents × features."""
        encoded = self.named("encoded_documents", sae_id=sae_id, dataset_id=dataset_id, mode=mode)
        rows = self.named("doc_activations", sae_id=sae_id, dataset_id=dataset_id, mode=mode)
        coordinates = (rows["doc_no"].to_numpy(), rows["feature_id"].to_numpy())
        shape = (encoded.num_rows, d_sae)
        matrix = sparse.coo_matrix((rows["max_act"].to_numpy(), coordinates), shape=shape, dtype=np.float32)
        return matrix.tocsr()
