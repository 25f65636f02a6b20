"""The report for stakeholders: one HTML file with the gap, what filled it, whether it helped, and its limits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from facviz.errors import InputError
from facviz.store.gap import TaskFeatures, read_activity, read_task_features
from facviz.store.manifest import Manifest
from facviz.store.queries import Queries
from facviz.views.charts import ThemeShare
from facviz.views.coverage import Question, filled_and_tried, theme_shares
from facviz.views.evaluation import Result, list_evaluations, read_evaluation
from facviz.views.format import count, interval_percent, number, percent
from facviz.views.html_page import html_page, html_table, html_text
from facviz.views.live import Live, make_lens, measure_live
from facviz.views.loop import coverage_runs, describe_threshold
from facviz.views.missing import NO_THEME, explanations
from facviz.views.samples import reason_words
from facviz.views.synthesis import Closing, closing
from facviz.views.targets import groups_by_feature

Row = Mapping[str, Any]
MAX_SAMPLES = 60
_METHOD = (
    "A sparse autoencoder splits what one layer of a language model holds into features. A feature counts where its "
    "activation on a content token exceeds δ. Of the features that matter to the task and that the anchor set "
    "activates, "
    "Feature Activation Coverage (FAC) is the share that the seed set activates too; the rest is missing. For each "
    "missing "
    "feature a generator wrote texts, and the same model read each of them again, alone: it was kept only if its "
    "feature "
    "fired above 1.05 δ and it was no copy. The method is that of arXiv 2602.10388."
)
_LIMITS = (
    "FAC depends on the autoencoder, the anchor set, the task and δ; numbers are comparable only where these are "
    "equal.",
    "A verified text makes its feature fire. It is not verified to be good prose, true or harmless.",
    "One layer is read; what a model computes across layers can escape it.",
)


def stakeholder_report(queries: Queries, manifest: Manifest, coverage_id: str = "") -> tuple[str, dict[str, Any]]:
    """The page about one coverage run, the newest unless named, and what it counts.

    Raises:
        InputError: there is no such run.
    """
    runs = [r for r in coverage_runs(queries, manifest) if coverage_id in ("", r["coverage_id"])]
    if not runs:
        raise InputError("There is nothing to report yet; run `facviz coverage` first.")
    run = {**runs[-1], "details": json.loads(runs[-1]["details"])}
    task, live, question = _measured(queries, run)
    filled, tried = filled_and_tried(queries, question, live)
    themes = task.theme or groups_by_feature(queries, run["sae_id"], live.target.tolist())
    shares = theme_shares(themes, live, filled, tried, NO_THEME)
    closed = closing(queries, run, manifest.latest_done("synthesize"))
    samples = [r for r in queries.rows("sample_records") if r["coverage_id"] == run["coverage_id"]]
    evaluations = [e for e in list_evaluations(manifest).values() if e["coverage_id"] == run["coverage_id"]]
    result = read_evaluation(evaluations[0]) if evaluations else None
    parts = [
        _answer(run, closed),
        _section("The gap, by theme", _themes(shares)),
        _section("Whether it helps", _evaluation(result)) if result else "",
        _section("The texts", _samples(queries, run, samples)) if samples else "",
        _section("What remains", _remains(queries, run, closed)),
        _section("Method", f"<p>{html_text(_METHOD)}</p>"),
        _section("Inputs", _inputs(queries, run)),
        _section("Limits", _items([*_LIMITS, *(result.limits if result else ())])),
    ]
    title = f"What {run['seed']} misses, and what fills it"
    counts = {"coverage_id": run["coverage_id"], "n_samples": len(samples), "n_evaluations": len(evaluations)}
    return html_page(title, f"<main>{''.join(parts)}</main>"), counts


def _measured(queries: Queries, run: Row) -> tuple[TaskFeatures, Live, Question]:
    names = run["sae_id"], run["task"], run["relevance_source"], run["anchor"], run["seed"], run["level"]
    question = Question(*names)
    always_on = bool(run["details"].get("config", {}).get("include_always_on", False))
    asked = (question.sae_id, question.task, question.source, question.anchors)
    task = read_task_features(queries, *asked, include_always_on=always_on)
    anchor, seed = (read_activity(queries, question.sae_id, name) for name in (question.anchor, question.seed))
    live = measure_live(make_lens(task, anchor, seed), question.level, run["threshold_kind"], run["act_threshold"])
    return task, live, question


def _answer(run: Row, closed: Closing) -> str:
    before = interval_percent(run["fac"], run["fac_low"], run["fac_high"])
    said = (
        f"{run['seed']} shows the model {count(run['n_anchor'] - run['n_missing'])} of the {count(run['n_anchor'])} "
        f"features that the task {run['task']} needs and {run['anchor']} has: FAC {before}. "
        f"{count(run['n_missing'])} are missing."
    )
    if closed.fac_after is not None:
        least = "" if closed.is_exact else "at least "
        said += (
            f" {count(closed.n_accepted - closed.n_rejected)} verified texts fill {count(closed.n_filled)} of them: "
            f"FAC {least}{percent(closed.fac_after)}."
        )
    return f"<section><p>{html_text(said)}</p></section>"


def _themes(shares: Sequence[ThemeShare]) -> str:
    rows = [
        (s.theme, count(s.covered + s.gap), count(s.covered), count(s.gap), count(s.filled), count(s.exhausted))
        for s in sorted(shares, key=lambda s: (-s.gap, s.theme))
    ]
    return html_table(("Theme", "Features", "Covered", "Missing at first", "Filled since", "Tried in vain"), rows)


def _evaluation(result: Result) -> str:
    heads = list(result.arms[0].row)
    table = html_table(heads, [[arm.row[head] for head in heads] for arm in result.arms])
    lines = [arm.sentence for arm in result.arms] + [result.labels, *result.inputs]
    ceiling = "" if result.ceiling is None else f" With all real labelled texts it reaches {number(result.ceiling)}."
    floor = f"The floor, any constant score, is {number(result.prevalence)}.{ceiling}"
    return f"<p>{html_text(result.sentence)} {html_text(floor)}</p>{table}{_items(lines)}"


def _samples(queries: Queries, run: Row, samples: Sequence[Row]) -> str:
    words = explanations(queries, run["sae_id"], {s["feature_id"] for s in samples})
    parts = []
    for sample in samples[:MAX_SAMPLES]:
        fires = f"fires at {number(sample['act'])}, δ {number(sample['act_threshold'])}"
        facts = [f"feature {sample['feature_id']}", fires, f"written by {sample['generator']}", sample["review"]]
        facts += [f"by {sample['reviewer']}"] if sample["reviewer"] else []
        parts.append(
            f'<h3>{html_text(words[sample["feature_id"]])}</h3><p dir="auto">{html_text(sample["text"])}</p>'
            f'<p class="by">{" · ".join(html_text(fact) for fact in facts)}</p>'
        )
    n_more = len(samples) - MAX_SAMPLES
    more = f'<p class="by">{count(n_more)} more are in the exported data set.</p>' if n_more > 0 else ""
    return "".join(parts) + more


def _remains(queries: Queries, run: Row, closed: Closing) -> str:
    left = closed.n_missing - closed.n_filled
    tried = closed.n_tried - closed.n_filled
    said = f"{count(left)} features stay missing; {count(max(0, tried))} of them were tried in vain."
    rows = queries.rows("candidate_counts", coverage_id=run["coverage_id"])
    reasons = Counter[str]()
    for row in rows:
        if not row["accepted"] and row["reason"] != "step one":
            reasons[reason_words(row["reason"])] += row["n"]
    table = html_table(("Why texts were turned down", "Texts"), [(r, count(n)) for r, n in reasons.most_common()])
    return f"<p>{html_text(said)}</p>{table if reasons else ''}"


def _inputs(queries: Queries, run: Row) -> str:
    [sae] = queries.rows("sae", sae_id=run["sae_id"])
    fvu = json.loads(sae["metrics"] or "{}").get("fvu")
    rows: list[tuple[str, object]] = [
        ("Task", f"{run['task']}, relevance by {run['relevance_source']}, level {run['level']}"),
        ("Threshold", describe_threshold(run)),
        ("Model", f"{sae['backbone']}, layer {sae['layer']}"),
        ("Autoencoder", f"{run['sae_id']}, {count(sae['d_sae'])} features, FVU {number(fvu)}"),
        ("Coverage run", run["coverage_id"]),
    ]
    for role in ("anchor", "seed"):
        found = queries.dataset(run[role])
        origin = ", ".join(str(found[k]) for k in ("source", "licence") if found[k]) or "origin not recorded"
        rows.append((f"{role.title()} set", f"{found['name']}, {count(found['n_docs'])} texts; {origin}"))
    return html_table(("What", "Which"), rows)


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{html_text(heading)}</h2>{body}</section>"


def _items(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{html_text(line)}</li>' for line in lines)}</ul>"
