"""`facviz evaluate` on ToxicChat with the texts that the arms wrote, and its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.markdown import auprc, percent, row, rule
from benchmarks.synthesis_scores import EQUAL_TOTAL
from benchmarks.synthesis_studies import Prepared
from facviz.config import EvaluationConfig
from facviz.pipeline.evaluating import evaluate

Record = Mapping[str, Any]
MIN_ADDED = 25
"""An arm with fewer verified texts would shrink what every other arm may add."""


def evaluate_arms(prepared: Prepared, arms: Sequence[Record], min_added: int = MIN_ADDED) -> dict[str, Any]:
    """AUPRC of a head for the verified texts that a strategy's arms wrote with all seeds, beside seed set and gold.

    Arms that draw as many in all are left out, so that strategies are compared at their own budget.
    """
    config = EvaluationConfig(
        coverage=prepared.gap["coverage_id"],
        syntheses=tuple(arm["synth_id"] for arm in arms if arm["arm"] not in EQUAL_TOTAL),
        test=prepared.study.test,
        min_added=min_added,
    )
    with prepared.session.workspace.lock():
        return evaluate(prepared.session, prepared.gap["task"], config)


def evaluation_section(found: Record) -> list[str]:
    """What `facviz evaluate` found, as Markdown."""
    lines = [
        row(
            [
                "arm", "positives added", "AUPRC (95 %)", "gain", "AUPRC, generated negatives",
                "synthetic or real, AUROC", "missing coverage", "FAC",
            ]
        ),
        rule(8),
    ]  # fmt: skip
    for arm in found["arms"]:
        gain, probe, mixed = arm["gain"], arm["probe"], arm["mixed"]
        missing = "–" if arm["missing_coverage"] is None else f"{percent(arm['missing_coverage'])}"
        lines.append(
            row(
                [
                    arm["arm"],
                    str(arm["n_added"]),
                    auprc(arm),
                    "–" if gain is None else f"{gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})",
                    "–" if mixed is None else auprc(mixed),
                    "–" if probe is None else f"{probe['auroc']:.2f}",
                    missing,
                    f"{arm['fac']:.3f}",
                ]
            )
        )
    ceiling = found["ceiling"]
    lines.append(row(["prevalence (floor)", "–", f"{found['prevalence']:.3f}", *"–––––"]))
    if ceiling:
        lines.append(row([f"ceiling, all {ceiling['n_train']:,} real texts", "–", auprc(ceiling), *"–––––"]))
    parts = [
        "### Does it help?",
        f"A logistic head on frozen states of layer {found['layer']} (mean and last content token), every arm with "
        f"{found['n_negative']:,} negatives and {found['n_added']} added positives ({_alone(found)}), "
        f"{found['n_seeds']} seeds. AUPRC on "
        f"{found['n_test']:,} test messages ({found['n_test_positive']} toxic, prevalence {found['prevalence']:.3f}), "
        f"without {found['n_exact_duplicates']} exact and {found['n_near_duplicates']} near copies of training texts. "
        f"`facviz evaluate` took {found['seconds']:.0f} s." + _generated(found),
        "\n".join(lines),
        "\n".join(f"- {line}" for line in [*_correlations(found), *_left_out(found)]),
    ]
    if found["frontier"]:
        parts += ["Fewer texts, AUPRC (95 %) / missing coverage:", _frontier(found)]
    return parts


def _alone(found: Record) -> str:
    """What the seed set alone has in place of what others add."""
    if found["n_seed_positive"]:
        return "the seed set alone with its own repeated"
    return "the seed set alone with none, for it has none"


def _generated(found: Record) -> str:
    n = found["n_generated_negative"]
    if not n:
        return ""
    return (
        f" *Generated negatives*: {n} of the negatives are texts that the same model wrote unasked (`magpie`) and that "
        "activate no missing feature, so that a text's origin tells less of its class (of the gold arm's it tells "
        "more); nobody judged them."
    )


def _correlations(found: Record) -> list[str]:
    lines = []
    for c in found["correlation"]:
        if c["r"] is None:
            continue
        without = f" without {' and '.join(c['without'])}" if c["without"] else ""
        bounds = "" if c["low"] is None else f" ({c['low']:.2f} to {c['high']:.2f})"
        lines.append(f"r(FAC, AUPRC) over {c['over']}{without}: {c['r']:.2f}{bounds}, n = {c['n']}.")
    return lines


def _left_out(found: Record) -> list[str]:
    arms = found["left_out"]
    told = ", ".join(f"{arm['arm']} ({arm['n']})" for arm in arms)
    return [f"Left out for want of texts: {told}."] if arms else []


def _frontier(found: Record) -> str:
    sizes = sorted({p["n_added"] for p in found["frontier"]})
    lines = [row(["arm", *map(str, sizes)]), rule(len(sizes) + 1)]
    for arm in dict.fromkeys(p["arm"] for p in found["frontier"]):
        at = {p["n_added"]: p for p in found["frontier"] if p["arm"] == arm}
        cells = [f"{auprc(at[n])} / {percent(at[n]['missing_coverage'] or 0)}" if n in at else "–" for n in sizes]
        lines.append(row([arm, *cells]))
    return "\n".join(lines)
