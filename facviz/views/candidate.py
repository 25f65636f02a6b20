"""One candidate in full: what each gate measured, where it comes from, its pair, and how strategies compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from facviz.store.queries import Queries
from facviz.synthesis.gates import EVALUATION_RUN_WORDS, overlaps
from facviz.synthesis.plan import VERIFICATION_MARGIN
from facviz.views.format import UNKNOWN, count, count_of, number, percent, short, visible
from facviz.views.plan import STRATEGIES
from facviz.views.samples import REASONS, Sample, gates_of, share_words

Row = Mapping[str, Any]

PAIR_STATES = {
    "paired": "A strong and a weak text were found.",
    "no_contrast": "No pair: all texts of step 1 fired about equally.",
    "none_active": "No pair: no text of step 1 made the feature fire.",
}
STEPS = {
    "pairs": "step 1, for the pair",
    "guided": "step 2, guided by the pair",
    "one-step": "in one step",
    "tune": "to find the strength of the push",
    "steered": "under the push",
}
_NOT_GATES = (
    "axes", "strength", "kl", "layer", "evidence", "credited", "outcome", "ranked_act", "ranked_share", "verified",
    "prompt", "tuning", "masked_words", "anti_copy", "perplexity_range", "n_features_limit", "evaluation_cosine",
    "embedder", "label_rationale", "label_judge", "label_self_judged", "label_calls", "call_id", "format", "sign",
    "covers", "part",
)  # fmt: skip
"""What stands among the gates and is told elsewhere: of where a text comes from, or beside another measure."""
_FAILS = {
    "length": "n_words",
    "copied": "copied_words",
    "repetitive": "distinct_trigrams",
    "near duplicate": "near_jaccard",
    "near duplicate in meaning": "near_cosine",
    "fires only on copied words": "masked_act",
    "not fluent": "perplexity",
    "degenerate": "perplexity",
    "fires too broadly": "n_features",
    "judged off task": "label_verdict",
    "target does not fire alone": "verified_act",
    "target does not fire": "verified_act",
}
"""Reason of the machine → the gate that gave it, where the names differ."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One thing that was checked: its name, what was measured, and whether the text passed."""

    name: str
    words: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Side:
    """One text of a pair and how strongly it fired."""

    name: str
    text: str
    share: str


@dataclass(frozen=True, slots=True)
class Pair:
    """What step 1 found for a feature; no sides where there was no contrast."""

    words: str
    sides: tuple[Side, ...]
    margin: str


@dataclass(frozen=True, slots=True)
class Compared:
    """One strategy of one synthesis run, in numbers as people read them."""

    name: str
    generator: str
    filled: str
    verified: str
    cost: str


def gate_list(row: Row) -> list[Gate]:
    """Every gate a candidate met, in the order they were asked, each with what it measured."""
    gates, reason = gates_of(row), row.get("reject_reason")
    fails = _failed(str(reason), gates) if reason else ""
    found = [_gate(name, gates, row, fails) for name in gates if name not in _NOT_GATES]
    if reason and all(gate.passed for gate in found):
        found.append(Gate("Turned down", REASONS.get(str(reason), str(reason)), passed=False))
    return found


def _failed(reason: str, gates: Row) -> str:
    """The gate that gave a reason."""
    if reason.startswith(overlaps("")):
        return "evaluation_overlap" if gates.get("evaluation_overlap") else "near_cosine"
    return _FAILS.get(reason, reason.replace(" ", "_"))


def _gate(name: str, gates: Row, row: Row, fails: str) -> Gate:
    label, say = _GATES.get(name, (name.replace("_", " ").capitalize(), None))
    words = _plain(gates[name]) if say is None else say(gates, row)
    is_leak = name == "evaluation_overlap" and bool(gates[name])  # recorded even where an earlier reason counts
    return Gate(label, words, passed=name != fails and not is_leak)


def _plain(value: Any) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        said = [(str(k).replace("_", " "), v) for k, v in value.items() if v not in ("", None)]
        return ", ".join(f"{name} {_plain(v)}" for name, v in said[:6])
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value[:6])
    return short(str(value), 160)


def _length(gates: Row, row: Row) -> str:
    del row
    return f"{count_of(int(gates['n_words']), 'word')}"


def _copying(gates: Row, row: Row) -> str:
    del row
    return f"at most {count_of(int(gates['copied_words']), 'word')} in a row from what the writer was shown"


def _repetition(gates: Row, row: Row) -> str:
    del row
    return f"{percent(gates['distinct_trigrams'])} of its word triples are distinct"


def _near(gates: Row, row: Row) -> str:
    del row
    return f"shares {percent(gates['near_jaccard'])} of its word triples with the nearest known text"


def _tests(gates: Row, row: Row) -> str:
    del row
    found = gates["evaluation_overlap"]
    if found is None:
        return "there is no evaluation set to hold it against"
    return f"stands in part in {found}" if found else f"no {EVALUATION_RUN_WORDS} words in a row of an evaluation set"


def _meaning(gates: Row, row: Row) -> str:
    del row
    if gates["near_cosine"] is None:
        return f"compared by words alone; the embedding model was {gates.get('embedder') or 'left out'}"
    leak = gates.get("evaluation_cosine")
    beside = f", {number(leak)} to the nearest of an evaluation set" if leak is not None else ""
    return f"cosine {number(gates['near_cosine'])} to the nearest known text{beside}"


def _alone(gates: Row, row: Row) -> str:
    bar = VERIFICATION_MARGIN * float(row["act_threshold"])
    return f"{number(gates['verified_act'])}; more than {number(bar)} is needed ({VERIFICATION_MARGIN} × δ)"


def _masked(gates: Row, row: Row) -> str:
    act = gates["masked_act"]
    if act is None:
        return "no words were copied"
    recorded = "" if gates.get("anti_copy", True) else "; only recorded"
    return f"{number(act)}, {share_words(act, row['act_threshold'])}, without the words it copied{recorded}"


def _fluency(gates: Row, row: Row) -> str:
    del row
    limits = gates.get("perplexity_range")
    if gates["perplexity"] is None or not limits:
        return f"perplexity {_plain(gates['perplexity'])}; too few texts of its length to judge it by"
    return f"perplexity {number(gates['perplexity'])}; {number(limits[0])} to {number(limits[1])} is usual"


def _breadth(gates: Row, row: Row) -> str:
    del row
    limit = gates.get("n_features_limit")
    most = f"; at most {count(limit)} for its length" if limit is not None else ""
    return f"{count_of(int(gates['n_features']), 'feature')} above δ{most}"


def _label(gates: Row, row: Row) -> str:
    del row
    by = f" by {gates['label_judge']}" if gates.get("label_judge") else ""
    own = ", which also wrote it" if gates.get("label_self_judged") else ""
    why = f": {short(str(gates['label_rationale']), 120)}" if gates.get("label_rationale") else ""
    return f"{gates['label_verdict']}{by}{own}{why}"


_GATES: dict[str, tuple[str, Callable[[Row, Row], str]]] = {
    "n_words": ("Length", _length),
    "copied_words": ("Copying", _copying),
    "distinct_trigrams": ("Repetition", _repetition),
    "near_jaccard": ("New words", _near),
    "evaluation_overlap": ("Not in a test", _tests),
    "verified_act": ("Read alone", _alone),
    "masked_act": ("Not by copying", _masked),
    "near_cosine": ("New meaning", _meaning),
    "perplexity": ("Fluency", _fluency),
    "n_features": ("Breadth", _breadth),
    "anchor_cosine": ("Like the anchor set", lambda gates, _: f"cosine {_plain(gates['anchor_cosine'])} in features"),
    "label_verdict": ("On task", _label),
}
"""Key in a candidate's gates → its name, and what it measured in words."""


def provenance(sample: Sample, task: str) -> list[tuple[str, str]]:
    """Why and how a text was written, fact by fact."""
    row, gates = sample.row, gates_of(sample.row)
    strategy = STRATEGIES.get(str(row["strategy"]))
    aimed = f"feature {sample.feature_id}, missing from the seed set"
    facts = [
        ("For", aimed if sample.feature_id >= 0 else "no missing feature: it fires none"),
        ("Told", sample.explanation),
        ("Task", task.replace("_", " ")),
        ("Strategy", f"{strategy.label if strategy else row['strategy']}, {STEPS.get(row['step'], row['step'])}"),
        ("Written by", str(row["generator"])),
        ("Prompt", str(row["prompt"])),
        ("Place", f"batch {row['round']}, slot {row['slot']}, seed {row['rng_seed']}"),
    ]
    facts += [(label, _plain(gates[key])) for key, label in _ORIGIN.items() if gates.get(key) not in (None, {}, [])]
    others = [f for f in gates.get("covers") or () if f != sample.feature_id]
    if others:
        facts.append(("Also fires", f"missing features {_plain(others)}"))
    return facts


_ORIGIN = {
    "axes": "Asked to vary",
    "strength": "Push, × usual activation",
    "kl": "Moved predictions by, nats",
    "evidence": "Evidence in place of a pair",
    "credited": "Credited with features",
}


def read_pair(queries: Queries, sample: Sample) -> Pair | None:
    """Step 1 of the sample's feature, strong beside weak."""
    rows = queries.rows("pair_texts", synth_id=sample.synth_id, feature_id=sample.feature_id)
    if not rows:
        return None
    row, bar = rows[0], float(sample.row["act_threshold"])
    found = (("Strong", row["strong_text"], row["strong_act"]), ("Weak", row["weak_text"], row["weak_act"]))
    sides = tuple(Side(name, text, share_words(act, bar)) for name, text, act in found if text)
    margin = share_words(row["margin"], bar) if row["margin"] else ""
    return Pair(PAIR_STATES.get(row["state"], str(row["state"])), sides, margin)


def compare_strategies(queries: Queries, run: Row, feature_id: int | None = None) -> list[Compared]:
    """Every strategy that wrote for this run, or for one feature of it: what it filled and what that took."""
    rows = queries.rows("strategy_counts", coverage_id=run["coverage_id"], feature_id=feature_id)
    return [_compared(row) for row in rows]


def _compared(row: Row) -> Compared:
    strategy = STRATEGIES.get(str(row["strategy"]))
    filled = row["n_filled"]
    return Compared(
        name=f"{strategy.label if strategy else row['strategy']} · {row['synth_id'][:6]}",
        generator=str(row["generator"]),
        filled=f"{count(filled)} of {count(row['n_features'])}",
        verified=f"{count(row['n_accepted'])} of {count(row['n'])} ({percent(row['n_accepted'] / row['n'])})",
        cost=f"{number(row['n'] / filled)}" if filled else "none filled",
    )


def gates_html(gates: Sequence[Gate]) -> str:
    """Gates as a readable list, escaped: a sign, the name and what was measured."""
    if not gates:
        return '<span class="fv-quiet">Nothing was measured of this text.</span>'
    rows = (
        f'<span title="{"passed" if g.passed else "failed"}">{"✓" if g.passed else "✗"}</span>'
        f"<b>{escape(g.name)}</b><span>{escape(visible(g.words))}</span>"
        for g in gates
    )
    return f'<div class="fv-gates">{"".join(rows)}</div>'


def facts_html(facts: Sequence[tuple[str, str]]) -> str:
    """Facts as a list of two columns, escaped."""
    rows = (
        f'<span class="fv-quiet">{escape(name)}</span><span dir="auto">{escape(visible(value))}</span>'
        for name, value in facts
    )
    return f'<div class="fv-origin">{"".join(rows)}</div>'


def compared_html(found: Sequence[Compared]) -> str:
    """Strategies beside each other as an escaped table."""
    head = "".join(
        f"<th>{name}</th>"
        for name in ("Strategy", "Written by", "Features filled", "Texts verified", "Candidates a filled feature")
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td>{escape(visible(v))}</td>" for v in (c.name, c.generator, c.filled, c.verified, c.cost))
        + "</tr>"
        for c in found
    )
    return f'<table class="fv-table"><tr>{head}</tr>{body}</table>'
