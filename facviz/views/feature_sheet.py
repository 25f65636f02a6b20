"""Chosen features as one HTML file that needs nothing else: no script, no font, no picture, no network.

Each span is drawn in light and dark and the style sheet shows one of them, because the text on a heat cell is chosen
for its contrast with that cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from facviz.errors import InputError
from facviz.records import Split
from facviz.store.queries import Queries
from facviz.store.schema import MODE
from facviz.views.decisions import STATUS_WORDS, Said, read_said
from facviz.views.format import UNKNOWN, count, number, percent
from facviz.views.heat import SpanRow, pill, span_html
from facviz.views.html_page import MODES, html_page, html_table, html_text
from facviz.views.palette import Mode

Row = Mapping[str, Any]

MAX_FEATURES = 500
MAX_SPANS = 50
HALVES = {Split.EXPLAIN: "Spans it may have been explained from", Split.SCORE: "Held-out spans"}


def feature_sheet(
    queries: Queries, sae_id: str, dataset: Row, feature_ids: Sequence[int], *, title: str, n_spans: int = 10
) -> str:
    """The whole page: of each feature its explanation and author, statistics by dataset, verdicts, and spans with heat.

    `n_spans` is how many of each half are drawn from the row `dataset`.

    Raises:
        InputError: no feature or too many are asked for, or this SAE has none of that number.
    """
    ids = list(dict.fromkeys(feature_ids))
    if not 0 < len(ids) <= MAX_FEATURES:
        raise InputError(f"Choose between 1 and {MAX_FEATURES} features for one page; give them with --features.")
    body = "".join(_feature(queries, sae_id, dataset, i, min(n_spans, MAX_SPANS)) for i in ids)
    links = " · ".join(f'<a href="#f{i}">{i}</a>' for i in ids)
    return html_page(
        title,
        f'<p class="by">SAE {html_text(sae_id)} · spans of {html_text(dataset["name"])}</p>'
        f"<nav>{links}</nav><main>{body}</main>"
        "<footer><p>Heat: a feature's activation on a token as a share of its own maximum, on a log scale; the token "
        "in a frame is the peak.</p></footer>",
    )


def _feature(queries: Queries, sae_id: str, dataset: Row, feature_id: int, n_spans: int) -> str:
    stats = queries.rows("feature_stats_of", sae_id=sae_id, mode=MODE, feature_id=feature_id)
    if not stats:
        raise InputError(f"SAE {sae_id} has no feature {feature_id}; choose others with --features.")
    top = max(float(row["max_act"] or 0) for row in stats)
    spans = queries.rows(
        "feature_spans", sae_id=sae_id, dataset_id=dataset["dataset_id"], feature_id=feature_id, n=n_spans
    )
    judged = queries.rows("feature_relevance", sae_id=sae_id, feature_id=feature_id)
    halves = [_spans(words, [s for s in spans if s["split"] == half], top) for half, words in HALVES.items()]
    return (
        f'<section id="f{feature_id}"><h2>Feature {feature_id}</h2>{_said(read_said(queries, sae_id, feature_id))}'
        f"{_statistics(stats)}{_verdicts(judged)}{''.join(halves) or '<p>It has no spans here.</p>'}</section>"
    )


def _said(said: Said) -> str:
    text = html_text(said.text) if said.is_explained else "Not explained yet"
    facts = [said.by, STATUS_WORDS.get(said.status, said.status), said.reason]
    facts += [f"embedding AUC {said.score}"] if said.score not in ("", UNKNOWN) else []
    return f'<p dir="auto">{text}</p><p class="by">{" · ".join(html_text(fact) for fact in facts if fact)}</p>'


def _statistics(stats: Sequence[Row]) -> str:
    heads = ("Dataset", "Density", "Texts", "Maximum", "95th percentile", "")
    rows = [
        (
            row["name"],
            percent(row["density"]),
            f"{count(row['n_docs'])} of {count(row['n_all_docs'])}",
            number(row["max_act"]),
            number(row["p95_act"]),
            "dead" if row["is_dead"] else "always on" if row["is_always_on"] else "",
        )
        for row in stats
    ]
    return html_table(heads, rows)


def _verdicts(judged: Sequence[Row]) -> str:
    heads = ("Task", "Relevant", "By", "Why")
    rows = [(r["task"], r["verdict"], r["author"] or r["source"], r["rationale"]) for r in judged]
    return html_table(heads, rows) if rows else ""


def _spans(heading: str, spans: Sequence[Row], feature_max: float) -> str:
    if not spans:
        return ""
    rows = [SpanRow(s["tokens"], s["acts"], feature_max, s["peak"]) for s in spans]
    drawn = "".join(f'<div class="{mode}">{"".join(_row(row, mode) for row in rows)}</div>' for mode in MODES)
    return f"<h3>{heading}</h3>{drawn}"


def _row(row: SpanRow, mode: Mode) -> str:
    span = span_html(row.tokens, row.acts, feature_max=row.feature_max, peak=row.peak, mode=mode)
    left = "" if row.peak is None else pill(row.tokens[row.peak], row.acts[row.peak])
    return f'<div class="fv-row">{left}<div class="fv-body">{span}</div></div>'
