"""What the loop came to: FAC before and after, the sentence to repeat, and the one thing to do next."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from html import escape
from typing import Literal

from facviz.errors import FacvizError
from facviz.prompts import load_task
from facviz.store.manifest import Manifest
from facviz.store.queries import Queries
from facviz.views.format import count, interval_percent, percent, signed_points
from facviz.views.loop import (
    Facts,
    Row,
    Stage,
    coverage_runs,
    describe_threshold,
    explain_arguments,
    list_stages,
    read_facts,
    spans_arguments,
)

EVERY_LABEL = "*"
_SIDE_SOURCE = "embedding"


@dataclass(frozen=True, slots=True)
class Headline:
    """A coverage run and what synthesis made of it; `fac_after` None until something was written."""

    fac: float
    interval: tuple[float, float] | None
    fac_after: float | None
    before: str
    before_interval: str
    after: str
    gain: str
    missing: str
    of_anchor: str
    sentence_html: str
    measured: str
    warning: str


@dataclass(frozen=True, slots=True)
class NextStep:
    """The one thing to do next: a job to start, a choice to make first, or a page to go to."""

    stage: str
    title: str
    why: str
    button: str
    page: str = ""
    arguments: tuple[str, ...] = ()
    asks: Literal["", "relevance"] = ""


@dataclass(frozen=True, slots=True)
class RunChoice:
    """A coverage run by its id and in words."""

    coverage_id: str
    label: str


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything the page shows."""

    runs: tuple[RunChoice, ...]
    coverage_id: str
    headline: Headline | None
    stages: tuple[Stage, ...]
    next_step: NextStep | None
    n_reviewed: str
    n_explained: str
    facts: Facts


def read_overview(
    queries: Queries, manifest: Manifest, coverage_id: str = "", running: Collection[str] = ()
) -> Overview:
    """The walk-through of the newest coverage run, or of the one named; an unknown name is the newest."""
    runs = coverage_runs(queries, manifest)
    known = {r["coverage_id"] for r in runs}
    facts = read_facts(queries, manifest, coverage_id if coverage_id in known else "")
    stages = list_stages(facts, running)
    chosen = facts.run["coverage_id"] if facts.run else ""
    return Overview(
        runs=tuple(RunChoice(r["coverage_id"], _describe_run(r)) for r in reversed(runs)),
        coverage_id=chosen,
        headline=_headline(facts, facts.run) if facts.run else None,
        stages=tuple(stages),
        next_step=_next_step(facts, stages),
        n_reviewed=count(facts.n_reviewed()) if facts.n_explained else "–",
        n_explained=count(facts.n_explained),
        facts=facts,
    )


def relevance_arguments(facts: Facts, task: str, positive: str) -> tuple[str, ...]:
    """`facviz relevance` on the anchor's labels, or by the explanations where it has none (`positive` empty)."""
    if facts.sae is None or facts.anchor is None:
        return ()
    words = ("relevance", f"--sae={facts.sae['sae_id']}", f"--task={task}", f"--labels={facts.anchor['name']}")
    return (*words, f"--positive={positive}") if positive else (*words, f"--source={_SIDE_SOURCE}")


def label_choices(queries: Queries, facts: Facts) -> list[str]:
    """What `--positive` may be: every label in turn, or one of the anchor's; empty where it has no labels."""
    if facts.anchor is None:
        return []
    counts = queries.rows("label_counts", dataset_id=facts.anchor["dataset_id"])
    labels = [r["label"] for r in counts if r["label"] is not None]
    if len(labels) < 2:
        return []
    return ["1", *(x for x in labels if x != "1")] if set(labels) == {"0", "1"} else [EVERY_LABEL, *labels]


def _describe_run(run: Row) -> str:
    names = f"{run['seed']} against {run['anchor']}"
    return f"{names} · {run['task']} · {describe_threshold(run)} · FAC {percent(run['fac'])} · {run['coverage_id'][:6]}"


def _headline(facts: Facts, run: Row) -> Headline:
    done = facts.synthesis
    after = None if done is None else done["fac_after"]
    bounds = None if run["fac_low"] is None else (run["fac_low"], run["fac_high"])
    measured = f"{describe_threshold(run)}, level {run['level']}, by {run['relevance_source']}, SAE {run['sae_id'][:6]}"
    return Headline(
        fac=run["fac"],
        interval=bounds,
        fac_after=after,
        before=percent(run["fac"]),
        before_interval=interval_percent(run["fac"], run["fac_low"], run["fac_high"]),
        after=percent(after),
        gain="" if after is None else signed_points(after - run["fac"]),
        missing=count(run["n_missing"]),
        of_anchor=count(run["n_anchor"]),
        sentence_html=_sentence_html(run, done),
        measured=measured,
        warning=_saturation(run),
    )


def _sentence_html(run: Row, done: Row | None) -> str:
    """The sentence a stakeholder would repeat, escaped; the gap and what fills it carry their colours."""
    seed, anchor = (f"<b>{escape(run[k])}</b>" for k in ("seed", "anchor"))
    covered = f"{count(run['n_anchor'] - run['n_missing'])} of the {count(run['n_anchor'])} features"
    first = f"{seed} activates {covered} that matter in {anchor} for the task {escape(_task_title(run['task']))}."
    missing = f'<b class="fv-missing">{count(run["n_missing"])} are missing.</b>'
    if done is None:
        return f"{first} {missing}"
    texts = f"{count(done['n_accepted'])} new verified text{'s' * (done['n_accepted'] != 1)}"
    fills = f"fill{'s' * (done['n_accepted'] == 1)} {count(done['n_filled'])} of the {count(done['n_attempted'])} tried"
    change = f"FAC {percent(run['fac'])} → {percent(done['fac_after'])}"
    return f'{first} {missing} <b class="fv-filled">{texts} {fills}</b>: {change}.'


def _task_title(task: str) -> str:
    try:
        title = load_task(task).title
    except FacvizError:  # a task of another version
        return task
    return f"“{title}”"


def _saturation(run: Row) -> str:
    if not run["saturated"]:
        return ""
    better = json.loads(run["details"] or "{}").get("unsaturated_threshold")
    advice = f"at δ {better:g} it would not be" if better is not None else "no δ of the grid changes that"
    return f"Saturated: too few features are missing to mean anything at this threshold; {advice}."


def _next_step(facts: Facts, stages: list[Stage]) -> NextStep | None:
    """Of the first stage that is not done; None while one runs or when everything is."""
    stage = next((s for s in stages if s.state == "next"), None)
    return _STEPS[stage.key](facts) if stage else None


def _sae_id(facts: Facts) -> str:
    return str(facts.sae["sae_id"]) if facts.sae else ""


def _data_step(facts: Facts) -> NextStep:
    lacks = "a second data set" if facts.datasets else "the first data set"
    why = "An anchor set that stands for the whole task, and the seed set whose gaps you want to see."
    return NextStep("data", f"Add {lacks}", why, "Add a data set", page="data")


def _sae_step(_: Facts) -> NextStep:
    why = "The sparse autoencoder splits the model's activations into features that can be named and counted."
    return NextStep("sae", "Train or load an SAE", why, "Go to SAE", page="sae")


def _spans_step(facts: Facts) -> NextStep:
    names = [d["name"] for d in facts.unread]
    why = "One pass of the model over the texts finds where every feature fires, and how strongly."
    arguments = spans_arguments(_sae_id(facts), names)
    return NextStep("spans", f"Read the features of {' and '.join(names)}", why, "Read features", arguments=arguments)


def _explanations_step(facts: Facts) -> NextStep:
    name = facts.anchor["name"] if facts.anchor else ""
    why = f"Written from the strongest spans in {name} and scored on spans it was not written from."
    arguments = explain_arguments(_sae_id(facts), name)
    return NextStep("explanations", "Explain the features", why, "Explain features", arguments=arguments)


def _relevance_step(facts: Facts) -> NextStep:
    name = facts.anchor["name"] if facts.anchor else ""
    why = f"Only features that matter to a task count; the labels of {name} tell which."
    return NextStep("relevance", "Judge which features matter", why, "Judge relevance", asks="relevance")


def _coverage_step(facts: Facts) -> NextStep:
    if facts.anchor is None or facts.seed is None:
        return _data_step(facts)
    task, source = (facts.relevance[-1][k] for k in ("task", "source"))
    names = f"--anchor={facts.anchor['name']}", f"--seed={facts.seed['name']}"
    arguments = ("coverage", f"--sae={_sae_id(facts)}", f"--task={task}", *names, f"--relevance-source={source}")
    why = f"Which features of {facts.anchor['name']} that matter does {facts.seed['name']} never activate?"
    return NextStep("coverage", "Measure the coverage", why, "Measure coverage", arguments=arguments)


def _synthesis_step(facts: Facts) -> NextStep:
    if facts.run is not None and facts.run["saturated"]:
        why = "Almost nothing is missing at this δ, so filling it would prove nothing."
        return NextStep("synthesis", "Choose another threshold", why, "Go to Coverage", page="coverage")
    if facts.run is not None and not facts.run["n_missing"]:
        why = "No relevant feature is missing from this seed set; review what the features mean."
        return NextStep("synthesis", "Nothing is missing", why, "Go to Review", page="review")
    why = "New texts are written for the missing features and kept only when they activate them on the same model."
    return NextStep("synthesis", "Fill the gap", why, "Choose features", page="synthesis")


def _review_step(facts: Facts) -> NextStep:
    waiting = count(facts.n_explained - facts.n_reviewed())
    why = "A person's word wins over the machine's, and every decision can be undone."
    return NextStep("review", f"{waiting} explanations wait for a reader", why, "Go to Review", page="review")


_STEPS = {
    "data": _data_step,
    "sae": _sae_step,
    "spans": _spans_step,
    "explanations": _explanations_step,
    "relevance": _relevance_step,
    "coverage": _coverage_step,
    "synthesis": _synthesis_step,
    "review": _review_step,
}
