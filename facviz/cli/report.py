"""Results for people: the few numbers that matter of each command, the rest as plain `key: value`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def describe(command: str, result: Mapping[str, Any]) -> str:
    """Text for stdout without `--json`."""
    if command == "run":
        helped = [_evaluation(result["evaluation"])] if "evaluation" in result else []
        return "\n\n".join([_coverage(result["coverage"]), _synthesis(result["synthesis"]), *helped, _sae(result)])
    if command == "coverage":
        return _coverage(result)
    if command == "tsv-coverage":
        return _tsv_coverage(result)
    if command == "synthesize" and "n_filled" in result:  # a dry run fills nothing
        return _synthesis(result)
    if command == "evaluate":
        return _evaluation(result)
    if command == "sae":
        return "\n".join([*_lines(_shortened(result)), *_verdict(result.get("health"))])
    return "\n".join(_lines(result))


def _shortened(result: Mapping[str, Any]) -> dict[str, Any]:
    """Without the verdict, which comes last, and what only a chart can show; pairs of features on one line each."""
    hidden = ("health", "density_counts", *(("health_note",) if result.get("health") else ()))
    shown = {key: value for key, value in result.items() if key not in hidden}
    for key in ("best", "worst"):
        if key in shown:
            shown[key] = [f"{pair['a']} and {pair['b']}: cosine {pair['cosine']:.3f}" for pair in shown[key]]
    return shown


def _verdict(health: Mapping[str, Any] | None) -> list[str]:
    return [f"verdict: {health['verdict']}", health["sentence"]] if health else []


def _coverage(c: Mapping[str, Any]) -> str:
    interval = "" if c["fac_low"] is None else f" (95 % interval {c['fac_low']:.3f} to {c['fac_high']:.3f})"
    text = (
        f"FAC {c['fac']:.3f}{interval}: {c['seed']} activates {c['n_anchor'] - c['n_missing']} of the {c['n_anchor']} "
        f"features relevant to {c['task']} that {c['anchor']} activates; {c['n_missing']} are missing "
        f"(δ {c['threshold_kind']} {c['act_threshold']}, relevance by {c['relevance_source']}, SAE {c['sae_id']})."
    )
    if "unseen" in c:
        more = c["unseen"]
        text += (
            f"\nWeighted by anchor documents FAC is {c['fac_freq']:.3f}, by strength {c['fac_magnitude']:.3f}. More "
            f"texts of the same kind would show about {more['estimate']:.0f} of the missing features "
            f"({more['low']:.0f} to {more['high']:.0f})."
        )
    if c["saturated"]:
        better = c["unsaturated_threshold"]
        text += (
            f"\nSaturated: nearly nothing is missing at this δ; try --threshold {better}."
            if better is not None
            else ("\nSaturated: nearly nothing is missing at any δ; use another seed or anchor set.")
        )
    return text


def _tsv_coverage(c: Mapping[str, Any]) -> str:
    said = (
        f"FAC {c['fac']:.3f}: {c['seed']} activates {c['n_anchor'] - c['n_missing']} of the {c['n_anchor']} relevant "
        f"features that {c['anchor']} activates; {c['n_missing']} are missing (relevance by {c['column']}, down to "
        f"{c['level']}).\nThe files hold no activations: {c['anchor']} activates {c['anchor_activated']}; {c['seed']} "
        f"activates {c['seed_activated']}."
    )
    told = [*c["malformed"], *c["unreadable_verdicts"]]
    return "\n".join([said, *(f"{p['file']}, line {p['line']}: {p['reason']}" for p in told)])


def _synthesis(s: Mapping[str, Any]) -> str:
    return (
        f"Synthesis: {s['n_filled']} of {s['n_attempted']} features filled by {s['n_accepted']} verified samples "
        f"out of {s['n_candidates']} candidates; FAC {s['fac_before']:.3f} → {s['fac_after']:.3f}, "
        f"missing coverage {s['missing_coverage']:.1%}."
        + (f"\nIt ended early: {s['stopped']}" if s.get("stopped") else "")
    )


def _evaluation(e: Mapping[str, Any]) -> str:
    lines = [
        f"Head on frozen states of {e['backbone']} at layer {e['layer']}: AUPRC on {e['test']}, {e['n_test']} texts of "
        f"which {e['n_test_positive']} are {', '.join(e['positive'])} (prevalence {e['prevalence']:.3f}); "
        f"{e['n_positive']} positives and {e['n_negative']} negatives in every arm, {e['n_seeds']} seeds, "
        f"95 % intervals over documents and seeds."
    ]
    for arm in e["arms"]:
        gain = arm["gain"]
        said = (
            "" if gain is None else f", {gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f}) to seed alone"
        )
        probe = arm["probe"]
        said += "" if probe is None else f"; told from {probe['against']} at AUROC {probe['auroc']:.2f}"
        lines.append(f"  {arm['arm']}: {arm['auprc']:.3f} ({arm['low']:.3f} to {arm['high']:.3f}){said}")
    if ceiling := e["ceiling"]:
        lines.append(f"  all {ceiling['n_train']} real labelled texts: {ceiling['auprc']:.3f}")
    return "\n".join(lines)


def _sae(result: Mapping[str, Any]) -> str:
    sae = result["sae"]
    quality = ""
    if sae.get("fvu") is not None:
        quality = f", held-out FVU {sae['fvu']:.3f}, L0 {sae['l0']:.1f}, dead {sae['dead']}"
    return f"SAE {sae['sae_id']} at layer {sae['layer']}{quality}. {result['seconds']:.0f} s. {result['workspace']}"


def _lines(value: Any, indent: str = "") -> list[str]:
    if isinstance(value, Mapping):
        lines = []
        for key, inner in value.items():
            if isinstance(inner, (Mapping, list)) and inner:
                lines += [f"{indent}{key}:", *_lines(inner, indent + "  ")]
            else:
                lines.append(f"{indent}{key}: {inner}")
        return lines
    if isinstance(value, list):
        return [line for inner in value for line in _lines(inner, indent)]
    return [f"{indent}{value}"]
