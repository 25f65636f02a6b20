"""Data sets side by side on the coverage page: at equal tokens, in feature space, and in their wording."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import cast

import streamlit as st

from facviz.coverage import Change, Difference, dataset_difference
from facviz.diversity import MEASURES
from facviz.ui import measured
from facviz.ui.components.address import plain_markdown
from facviz.ui.components.coverage import pick
from facviz.ui.components.waiting import ready
from facviz.ui.frame import Here
from facviz.views.coverage import Question
from facviz.views.coverage_charts import equal_tokens_chart
from facviz.views.format import UNKNOWN, count, interval_percent, number, percent
from facviz.views.live import Live
from facviz.views.missing import explanations
from facviz.views.sets import CHANGE_MEANINGS, CHANGES_SHOWN, SetRow, change_rows
from facviz.views.wording import Wording, most_varied

PAGE_SIZE = 10
_CONFIG = {"displayModeBar": False}


def choose_sets(question: Question, datasets: Sequence[str]) -> tuple[str, ...]:
    """Further data sets to put beside the seed and the anchor set."""
    rest = [name for name in datasets if name not in (*question.seeds, *question.anchors)]
    if not rest:
        return ()
    explanation = "Each is asked the same question as the seed set."
    return tuple(st.multiselect("Beside them", rest, key="beside", help=explanation, bind="query-params"))


def show_sets(here: Here, question: Question, live: Live, names: tuple[str, ...]) -> None:
    """FAC of each set at equal tokens, and the numbers of each."""
    st.subheader(
        "Is it only a matter of size?",
        anchor=False,
        help="FAC grows with every text, so sets are compared by random texts of the same number of content tokens.",
    )
    found = ready("Drawing texts …", measured.compared_sets(here.database, question, live, names))
    if found is None:
        return
    [(budget, rows)] = found
    if not rows:
        st.caption("None of these sets has content tokens to draw.")
        return
    meaning = {" + ".join(question.seeds): "seed", " + ".join(question.anchors): "anchor"}
    figure = equal_tokens_chart([(r.name, meaning.get(r.name, "covered"), r.fac, r.equal) for r in rows], here.mode)
    alt = "; ".join(f"{r.name}: FAC {percent(r.equal.fac)} at equal tokens, {percent(r.fac)} in all" for r in rows)
    st.plotly_chart(figure, theme=None, width="stretch", key="fv_coverage_equal", config=_CONFIG, alt=alt)
    st.caption(f"100 draws of random texts of each set within {count(budget)} content tokens, those of the smallest.")
    st.html(_sets_table(live, rows))


def _sets_table(live: Live, rows: Sequence[SetRow]) -> str:
    head = ("Set", "Texts", "Tokens", "FAC", "FAC-freq", "FAC-magnitude", "Missing", "Of the seed's gap it shows")
    lines = ["".join(f"<th>{name}</th>" for name in head)]
    for row in rows:
        shown = f"{count(row.fills)} of {count(live.n_missing)}"
        cells = (
            f"<b>{escape(row.name)}</b>",
            count(row.n_docs),
            count(row.n_tokens),
            interval_percent(row.fac, *row.interval),
            percent(row.frequency),
            percent(row.magnitude),
            count(row.n_missing),
            shown if live.n_missing else UNKNOWN,
        )
        lines.append("".join(f"<td>{cell}</td>" for cell in cells))
    return f"<table class='fv-table'>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def show_difference(here: Here, question: Question, live: Live, datasets: Sequence[str]) -> None:
    """What one set gains and loses against another, with links to the features."""
    st.subheader("What does one set have that another lacks?", anchor=False)
    left, right = st.columns(2)
    anchor, seed = question.anchor, question.seed
    before = left.selectbox("From", datasets, index=datasets.index(anchor), key="from", bind="query-params")
    after = right.selectbox("To", datasets, index=datasets.index(seed), key="to", bind="query-params")
    if before == after:
        st.caption("Choose two different sets.")
        return
    first, second = (measured.activity(here.database, question.sae_id, (name,)) for name in (before, after))
    found = dataset_difference(first, second, live.target, live.target_threshold)
    words: dict[str, str] = {change: f"{name} {count(found.count(change))}" for change, name in CHANGES_SHOWN.items()}
    chosen = cast(Change, pick("What changed", words, "changed", "lost"))
    st.caption(
        f"{CHANGES_SHOWN[chosen]}: {CHANGE_MEANINGS[chosen]}. Of the {count(live.n_anchor)} counted features, "
        f"{count(found.count('kept'))} are kept and {count(found.count('absent'))} are in neither."
    )
    ids = found.of(chosen)
    n_pages = -(-len(ids) // PAGE_SIZE)
    page = min(st.session_state.get("fv_coverage_diff_page", 1), max(n_pages, 1)) if n_pages > 1 else 1
    _change_list(here, question, found, ids.tolist()[PAGE_SIZE * (page - 1) : PAGE_SIZE * page])
    if n_pages > 1:
        st.pagination(n_pages, key="fv_coverage_diff_page")


def _change_list(here: Here, question: Question, found: Difference, ids: Sequence[int]) -> None:
    if not ids:
        st.caption("None.")
        return
    words, facts = explanations(here.database, question.sae_id, ids), change_rows(found, ids)
    for feature in ids:
        n_before, n_after, ratio, q = facts[feature]
        link, said = st.columns([5, 2], vertical_alignment="center")
        link.page_link(
            "pages/feature.py",
            label=f":primary[{feature}] {plain_markdown(words[feature])}",
            query_params={"feature": str(feature), "sae": question.sae_id},
        )
        per_token = f" · × {number(ratio)} per token" if math.isfinite(ratio) and ratio else ""
        surprise = f" · q {number(q)}" if q < 1 else ""
        said.html(f'<div class="fv-quiet">{count(n_before)} → {count(n_after)} texts{per_token}{surprise}</div>')


def show_wording(here: Here, question: Question, live: Live, names: tuple[str, ...]) -> None:
    """The usual measures of text diversity beside FAC, of the same texts."""
    st.subheader(
        "Does varied wording mean coverage?",
        anchor=False,
        help="The paper finds that FAC follows quality where these measures do not. Both are shown of the same texts.",
    )
    found = ready("Measuring the wording, some seconds …", measured.wording(here.database, question, live, names))
    if found is None:
        return
    [(budget, rows)] = found
    st.html(_wording_table(rows))
    st.caption(
        f"Means over 20 draws of random texts within {count(budget)} content tokens of each set, with the range of 95 "
        "% of the draws; cosine and Vendi score are of at most 300 texts of the first draw. ● marks the most varied "
        "set. Words are runs of letters and digits in lower case. Tag pairs need a tagger (NLTK with its data)."
    )


def _wording_table(rows: Sequence[Wording]) -> str:
    sizes = [f"<span class='fv-quiet'>{number(row.n_docs)} texts</span>" for row in rows]
    names = "".join(f"<th>{escape(row.name)}<br>{size}</th>" for row, size in zip(rows, sizes))
    lines = [f"<th>Measure</th>{names}<th>What it is</th>"]
    best = max(rows, key=lambda row: row.fac[0]).name if len(rows) > 1 else ""
    shares = [interval_percent(*row.fac) if row.fac[1] < row.fac[2] else percent(row.fac[0]) for row in rows]
    cells = "".join(f"<td><b>{share}</b>{' ●' * (row.name == best)}</td>" for row, share in zip(rows, shares))
    definition = "Share of the counted features that these texts activate."
    lines.append(f"<td><b>FAC</b></td>{cells}<td class='fv-quiet'>{definition}</td>")
    for measure in MEASURES:
        best = most_varied(rows, measure)
        cells = "".join(f"<td>{_spread(row, measure.key)}{' ●' * (row.name == best)}</td>" for row in rows)
        lines.append(f"<td>{measure.name}</td>{cells}<td class='fv-quiet'>{escape(measure.definition)}</td>")
    return f"<table class='fv-table'>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _spread(row: Wording, key: str) -> str:
    found = row.measures[key]
    if found is None:
        return f'<span title="not measured">{UNKNOWN}</span>'
    mean, low, high = found
    spread = f" <span class='fv-quiet'>({number(low)}–{number(high)})</span>"
    return number(mean) + ("" if low == high else spread)
