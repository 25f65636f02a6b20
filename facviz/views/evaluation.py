"""An evaluation as people read it: arms with intervals, differences in words, what each number follows from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from facviz.errors import InputError
from facviz.store.manifest import Manifest
from facviz.store.queries import Queries
from facviz.views.format import count, count_of, number, percent, short

Summary = Mapping[str, Any]
Meaning = Literal["seed", "generated", "anchor", "exhausted"]

HEADLINE_FIRST = ("paper+steered", "paper")
"""The strategy whose number stands on top where there are several."""
CHANCE = 0.5
TELLS = 0.6
"""AUROC from which on a head is said to tell generated from real."""
_NAMES = {"seed": "Seed set alone", "gold": "+ real texts", "unverified": "+ turned-down texts"}
_LEFT_OUT = {"gold": "real texts", "seed": "the seed set alone"}
_MEANINGS: dict[str, Meaning] = {"seed": "seed", "gold": "anchor", "unverified": "exhausted"}
_HELP = {
    "seed": "Its own positives, repeated until the arm is as large as the others.",
    "gold": "As many real texts of the positive class, of the gold set's training half.",
    "unverified": "Texts the same generator wrote for the same features, which did not make them fire.",
}


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm, ready to draw and to list."""

    key: str
    name: str
    meaning: Meaning
    auprc: float
    low: float
    high: float
    fac: float
    row: Mapping[str, str]
    sentence: str


@dataclass(frozen=True, slots=True)
class Point:
    """One mix: an arm with so many texts added."""

    key: str
    name: str
    meaning: Meaning
    n_added: int
    auprc: float
    low: float
    high: float
    fac: float
    missing_coverage: float | None


@dataclass(frozen=True, slots=True)
class Result:
    """One evaluation."""

    summary: Summary
    arms: tuple[Arm, ...]
    points: tuple[Point, ...]
    prevalence: float
    ceiling: float | None
    metrics: tuple[tuple[str, str, str, str], ...]
    sentence: str
    inputs: tuple[str, ...]
    labels: str
    correlations: tuple[str, ...]
    limits: tuple[str, ...]


def list_evaluations(manifest: Manifest) -> dict[str, Summary]:
    """Finished evaluations by id, the newest first."""
    return dict(reversed(manifest.latest_done("evaluate").items()))


def evaluation_label(summary: Summary) -> str:
    """One of several in a list."""
    return (
        f"{summary['task']} · {summary['seed']} against {summary['anchor']} · tested on {summary['test']} · "
        f"{count(summary['n_added'])} texts added · {summary['eval_id'][:6]}"
    )


def read_evaluation(summary: Summary) -> Result:
    """Everything the page says of one evaluation."""
    n_generated = _n_generated_negative(summary)
    arms = tuple(_arm(row, n_generated) for row in summary["arms"])
    points = tuple(_point(row) for row in summary["frontier"])
    ceiling = summary["ceiling"]
    return Result(
        summary=summary,
        arms=arms,
        points=points,
        prevalence=summary["prevalence"],
        ceiling=None if ceiling is None else ceiling["auprc"],
        metrics=_metrics(summary, arms),
        sentence=_sentence(summary, arms),
        inputs=_inputs(summary),
        labels=_labels(summary),
        correlations=tuple(_correlation(c) for c in summary["correlation"]),
        limits=_limits(summary),
    )


def arm_name(key: str) -> str:
    """What an arm is called on the page."""
    return _NAMES.get(key, f"+ samples ({key})")


def arm_help(key: str) -> str:
    """What an arm adds, in one sentence."""
    return _HELP.get(key, f"Verified texts of the strategy {key} that nobody rejected.")


def meaning_of(key: str) -> Meaning:
    """Whose colour an arm has."""
    return _MEANINGS.get(key, "generated")


def best_generated(arms: Sequence[Arm]) -> Arm | None:
    """The arm the page speaks of first: of the verified strategies the paper's, else the first."""
    verified = [arm for arm in arms if arm.meaning == "generated"]
    wanted = [arm for key in HEADLINE_FIRST for arm in verified if arm.key == key]
    return next(iter([*wanted, *verified]), None)


def _n_generated_negative(summary: Summary) -> int:
    """Negatives that are generated, in the control of every arm; 0 where there is none, as in older evaluations."""
    return int(summary.get("n_generated_negative", 0))


def _arm(row: Mapping[str, Any], n_generated: int) -> Arm:
    gain, probe, mixed = row["gain"], row["probe"], row.get("mixed")
    shown = {
        "Arm": arm_name(row["arm"]),
        "AUPRC": _interval(row["auprc"], row["low"], row["high"]),
        "To the seed set alone": "–" if gain is None else _signed(gain),
        "Positives": _amount(row["n_positive"], row["n_distinct_positive"]),
        "FAC": percent(row["fac"]),
        "Missing covered": percent(row["missing_coverage"]),
        "Told from real": "–" if probe is None else _interval(probe["auroc"], probe["lowest"], probe["highest"]),
    }
    if n_generated:
        shown[f"With {n_generated} generated negatives"] = "–" if mixed is None else _interval(*_bounds(mixed))
    key = row["arm"]
    return Arm(key, arm_name(key), meaning_of(key), *_bounds(row), row["fac"], shown, _arm_sentence(row, n_generated))


def _bounds(row: Mapping[str, Any]) -> tuple[float, float, float]:
    return row["auprc"], row["low"], row["high"]


def _point(row: Mapping[str, Any]) -> Point:
    key = row["arm"]
    values = row["n_added"], row["auprc"], row["low"], row["high"], row["fac"], row["missing_coverage"]
    return Point(key, arm_name(key), meaning_of(key), *values)


def _metrics(summary: Summary, arms: Sequence[Arm]) -> tuple[tuple[str, str, str, str], ...]:
    """Label, value, what stands beside it, and its explanation."""
    by_key, best, ceiling = {arm.key: arm for arm in arms}, best_generated(arms), summary["ceiling"]
    n = count(summary["n_added"])
    found = [
        (
            "Seed set alone",
            number(by_key["seed"].auprc),
            f"floor {number(summary['prevalence'])}",
            "AUPRC of a head trained on the seed set's own texts. The floor is the share of positives in the test set: "
            "what any constant score reaches.",
        )
    ]
    if best is not None:
        found.append((f"With {n} samples", number(best.auprc), _range(best), arm_help(best.key)))
    if gold := by_key.get("gold"):
        found.append((f"With {n} real texts", number(gold.auprc), _range(gold), arm_help("gold")))
    if ceiling:
        words = f"{count(ceiling['n_train'])} labelled texts"
        found.append(
            ("All real texts", number(ceiling["auprc"]), words, "The ceiling: everything labelled that may train.")
        )
    return tuple(found)


def _sentence(summary: Summary, arms: Sequence[Arm]) -> str:
    """What a stakeholder would repeat."""
    by_key, best = {arm.key: arm for arm in arms}, best_generated(arms)
    if best is None:
        return "No verified samples were among the arms."
    raw = next(row for row in summary["arms"] if row["arm"] == best.key)
    gain = raw["gain"]
    n = count(summary["n_added"])
    if gain["low"] > 0:
        said = f"Adding {n} verified samples lifts AUPRC from {number(by_key['seed'].auprc)} to {number(best.auprc)}"
    elif gain["high"] < 0:
        said = f"Adding {n} verified samples lowers AUPRC from {number(by_key['seed'].auprc)} to {number(best.auprc)}"
    else:
        said = f"Adding {n} verified samples changes AUPRC by {_signed(gain)}: no clear difference"
    if gold := by_key.get("gold"):
        room = gold.auprc - by_key["seed"].auprc
        if room > 0 and gain["low"] > 0:
            said += f", {percent(min(1.0, gain['value'] / room))} of what as many real texts bring"
    return f"{said}."


def _arm_sentence(row: Mapping[str, Any], n_generated: int) -> str:
    name = arm_name(row["arm"])
    if row["arm"] == "seed":
        if row["is_trained"]:
            n = count(row["n_distinct_positive"])
            return f"{name}: {n} positives of its own, repeated to the size of the others."
        return (
            f"{name}: it has no text of the positive class, so there is nothing to learn and every text scores alike."
        )
    gain = row["gain"]
    clear = "a clear gain" if gain["low"] > 0 else "a clear loss" if gain["high"] < 0 else "no clear difference"
    said = (
        f"{name}: {_signed(gain)} to the seed set alone, {clear}; above it in {percent(gain['share_above'])} of draws."
    )
    if mixed := row.get("mixed"):
        said += f" With {count(n_generated)} of the negatives generated it has {number(mixed['auprc'])}."
    probe = row["probe"]
    if probe is None:
        return said
    tells = "tells them from" if probe["auroc"] >= TELLS else "cannot tell them from"
    return f"{said} A head {tells} {probe['against']} (AUROC {number(probe['auroc'])}, {number(CHANCE)} is chance)."


def _inputs(summary: Summary) -> tuple[str, ...]:
    """What every number follows from."""
    positive = ", ".join(short(label, 40) for label in summary["positive"])
    half = " (the half no explanation or prompt was written from)" if summary["is_split"] else ""
    dropped = f"{count(summary['n_exact_duplicates'])} exact and {count(summary['n_near_duplicates'])} near duplicates"
    return (
        f"Test: {summary['test']}{half}, {count(summary['n_test'])} texts, {count(summary['n_test_positive'])} of them "
        f"positive, prevalence {number(summary['prevalence'])}; {dropped} of texts that may train left out",
        f"Positive class: {positive}",
        f"Every arm: {count(summary['n_positive'])} positives and {count(summary['n_negative'])} negatives, classes "
        f"weighted equally; {count(summary['n_seeds'])} seeds",
        f"Head: logistic regression on the mean and the last content token's state of {summary['backbone']} at layer "
        f"{summary['layer']}, frozen; regularisation by cross-validation inside the training set",
        f"Intervals: 95 %, {count(summary['n_bootstrap'])} draws of test texts and seeds, the same for every arm",
        f"Coverage run {summary['coverage_id'][:6]}, SAE {summary['sae_id'][:6]}, evaluation {summary['eval_id'][:6]}",
    )


def _labels(summary: Summary) -> str:
    said = (
        "Generated texts carry no label of their own. As in the published code, a text written for a relevant missing "
        "feature counts as positive; nobody judged it. All positives such an arm adds are generated and all "
        "negatives are "
        "real, so a head could win by style alone: the real positives of the test set and the probe guard against that"
    )
    if n := _n_generated_negative(summary):
        said += (
            f", and a control in which {count(n)} of the negatives are texts that the same writer made unasked and "
            "that activate no missing feature"
        )
    said += "."
    n_other = summary["n_other_themes"]
    return f"{said} {count(n_other)} samples for features of other themes are in no arm." if n_other else said


def _correlation(found: Mapping[str, Any]) -> str:
    over = "arms of equal size" if found["over"] == "arms" else "all sizes of all arms"
    left_out = " and ".join(_LEFT_OUT.get(arm, arm) for arm in found["without"])
    over += f", without {left_out}" if left_out else ""
    if found["r"] is None:
        return f"Over {over}: not defined for {count_of(found['n'], 'point')}."
    interval = "no interval for so few points"
    if found["low"] is not None:
        interval = f"95 % interval {number(found['low'])} to {number(found['high'])}"
    return f"Over {over}: r = {number(found['r'])}, {count(found['n'])} points, {interval}."


def _limits(summary: Summary) -> tuple[str, ...]:
    said = [
        "A head on frozen states is the cheapest form of training; a fine-tuned model may profit more or less.",
        "Points of one arm at several sizes share texts, so their correlation is more certain on paper than in truth.",
    ]
    if summary["is_split"]:
        said.append(
            "Missing features were found on the whole gold set, the half for testing included: which themes are "
            "missing "
            "was known before."
        )
    return tuple(said)


def _amount(n: int, n_different: int) -> str:
    return count(n) if n == n_different else f"{count(n)}, {count(n_different)} different"


def _interval(value: float, low: float | None, high: float | None) -> str:
    return f"{number(value)} ({number(low)}–{number(high)})"


def _signed(gain: Mapping[str, float]) -> str:
    parts = [f"{'+' if v > 0 else ''}{number(v)}" for v in (gain["value"], gain["low"], gain["high"])]
    return f"{parts[0]} ({parts[1]} to {parts[2]})"


def _range(arm: Arm) -> str:
    return f"{number(arm.low)}–{number(arm.high)}"


@dataclass(frozen=True, slots=True)
class Choices:
    """What can be asked for: runs with samples, labelled data sets, and their labels."""

    runs: tuple[Mapping[str, Any], ...]
    datasets: tuple[str, ...]
    labels: tuple[str, ...]


def evaluation_choices(queries: Queries, runs: Sequence[Mapping[str, Any]]) -> Choices:
    """Coverage runs with verified samples, newest first, and data sets that have labels."""
    with_samples = {r["coverage_id"] for r in queries.rows("syntheses") if r["n_accepted"]}
    labels: dict[str, None] = {}
    datasets = []
    for row in queries.rows("datasets"):
        found = [
            r["label"] for r in queries.rows("label_counts", dataset_id=row["dataset_id"]) if r["label"] is not None
        ]
        if found:
            datasets.append(row["name"])
            labels |= dict.fromkeys(sorted(found)[:200])
    return Choices(tuple(r for r in runs if r["coverage_id"] in with_samples), tuple(datasets), tuple(labels))


def evaluation_arguments(
    run: Mapping[str, Any], *, test: str = "", gold: str = "", positive: Sequence[str] = (), n_seeds: int = 5
) -> list[str]:
    """`facviz evaluate` of one coverage run."""
    if any("," in label for label in positive):
        raise InputError("A label with a comma cannot be chosen here; run `facviz run` with an [evaluation] table.")
    flags = ["evaluate", f"--task={run['task']}", f"--coverage={run['coverage_id']}", f"--n-seeds={n_seeds}"]
    flags += [f"--test={test}"] if test else []
    flags += [f"--gold={gold}"] if gold else []
    return [*flags, *([f"--positive={','.join(positive)}"] if positive else [])]
