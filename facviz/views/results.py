"""What a finished stage reports, in one sentence for people; what it leaves out stays in its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from facviz.views.format import count, number, percent

Result = Mapping[str, Any]


def describe_result(arguments: Sequence[str], result: Result) -> str:
    """One sentence about the result of `facviz ARGUMENTS`; "" for a stage without one or a result of another shape."""
    command = " ".join(word for word in arguments[:2] if word.isidentifier())
    describe = next((f for name, f in _SENTENCES.items() if command == name or command.startswith(f"{name} ")), None)
    try:
        return describe(result) if describe else ""
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""


def _data(result: Result) -> str:
    left_out = f", {count(result['n_duplicates'])} duplicates and {count(result['n_dropped'])} rows left out"
    texts = f"{count(result['n_docs'])} texts with {count(result['n_content_tokens'])} content tokens"
    return f"{result['name']}: {texts}{left_out if result['n_duplicates'] or result['n_dropped'] else ''}."


def _sae(result: Result) -> str:
    measured = "" if result["fvu"] is None else f", FVU {number(result['fvu'])}, L0 {number(result['l0'])}"
    return f"SAE {result['sae_id'][:6]}: {count(result['d_sae'])} features at layer {result['layer']}{measured}."


def _measured(result: Result) -> str:
    quality = f"FVU {number(result['fvu'])}, L0 {number(result['l0'])}, {count(result['dead'])} dead features"
    return f"SAE {result['sae_id'][:6]} on {result['dataset']}: {quality}."


def _spans(result: Result) -> str:
    parts = [f"{count(r['n_active_features'])} features fire on {r['dataset']}" for r in result["spans"]]
    return "; ".join(parts) + "."


def _explain(result: Result) -> str:
    return f"{count(result['n_explained'])} of {count(result['n_features'])} features explained."


def _relevance(result: Result) -> str:
    relevant = sum(int(result[level]) for level in ("yes", "probably", "maybe"))
    return f"{count(relevant)} of {count(result['n_judged'])} features matter to {result['task']}."


def _coverage(result: Result) -> str:
    missing = f"{count(result['n_missing'])} of {count(result['n_anchor'])} features are missing from {result['seed']}"
    return f"FAC {percent(result['fac'])}: {missing}."


def _synthesis(result: Result) -> str:
    filled = f"{count(result['n_filled'])} of {count(result['n_attempted'])} features filled"
    texts = f"by {count(result['n_accepted'])} verified texts out of {count(result['n_candidates'])} candidates"
    return f"{filled} {texts}: FAC {percent(result['fac_before'])} → {percent(result['fac_after'])}."


def _evaluation(result: Result) -> str:
    arms = ", ".join(f"{arm['arm']} {number(arm['auprc'])}" for arm in result["arms"])
    return f"AUPRC on {result['test']}: {arms}; floor {number(result['prevalence'])}."


_SENTENCES: dict[str, Callable[[Result], str]] = {
    "data": _data,
    "sae train": _sae,
    "sae load": _sae,
    "sae eval": _measured,
    "spans": _spans,
    "explain": _explain,
    "relevance": _relevance,
    "coverage": _coverage,
    "synthesize": _synthesis,
    "evaluate": _evaluation,
}
