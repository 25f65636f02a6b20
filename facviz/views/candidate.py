"""One candidate in full: what each gate measured, where it comes from, its pair, and how strategies compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from facviz.store.queries import Queries
from facviz.synthesis.gates import COPY_RUN_WORDS, MAX_WORDS, MIN_DISTINCT_TRIGRAMS, MIN_WORDS
from facviz.synthesis.plan import VERIFICATION_MARGIN
from facviz.views.format import count, count_of, number, percent, short, visible
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
_NOT_GATES = ("axes", "strength", "kl", "layer", "evidence", "credited", "outcome", "ranked_act", "verified", "prompt")
"""What stands among the gates and tells where a text comes from instead."""
_FAILS = {
    "length": "n_words",
    "copied": "copied_words",
    "repetitive": "distinct_trigrams",
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
    fails = _FAILS.get(str(reason), str(reason).replace(" ", "_")) if reason else ""
    found = [_gate(name, value, row, fails) for name, value in gates.items() if name not in _NOT_GATES]
    if reason and all(gate.passed for gate in found):
        found.append(Gate("Turned down", REASONS.get(str(reason), str(reason)), passed=False))
    return found


def _gate(name: str, value: Any, row: Row, fails: str) -> Gate:
    label, say = _GATES.get(name, (name.replace("_", " ").capitalize(), _plain))
    return Gate(label, say(value, row), passed=name != fails)


def _plain(value: Any, row: Row) -> str:
    del row
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(
            f"{str(k).replace('_', ' ')} {_plain(v, {})}" for k, v in list(value.items())[:6] if v not in ("", None)
        )
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v, {}) for v in value[:6])
    return short(str(value), 160)


def _needs(value: Any, row: Row) -> str:
    bar = VERIFICATION_MARGIN * float(row["act_threshold"])
    return f"{number(value)}; more than {number(bar)} is needed ({VERIFICATION_MARGIN} × δ)"


def _masked(value: Any, row: Row) -> str:
    act = value.get("act") if isinstance(value, Mapping) else value
    return f"{number(act)}, {share_words(act, row['act_threshold'])}, once the words it copied are taken out"


_GATES: dict[str, tuple[str, Callable[[Any, Row], str]]] = {
    "n_words": ("Length", lambda v, _: f"{count_of(int(v), 'word')}; {MIN_WORDS} to {MAX_WORDS} are allowed"),
    "copied_words": (
        "Copying",
        lambda v, _: (
            f"at most {count_of(int(v), 'word')} in a row from what was shown; from {COPY_RUN_WORDS} on it "
            "is a copy, unless the corpus speaks so"
        ),
    ),
    "distinct_trigrams": (
        "Repetition",
        lambda v, _: f"{percent(v)} of its word triples are distinct; at least {percent(MIN_DISTINCT_TRIGRAMS)}",
    ),
    "verified_act": ("Read alone", _needs),
    "masked_act": ("Not by copying", _masked),
}
"""Key in a candidate's gates → its name, and what it measured in words."""


def provenance(sample: Sample, task: str) -> list[tuple[str, str]]:
    """Why and how a text was written, fact by fact."""
    row, gates = sample.row, gates_of(sample.row)
    strategy = STRATEGIES.get(str(row["strategy"]))
    facts = [
        ("For", f"feature {sample.feature_id}, missing from the seed set"),
        ("Told", sample.explanation),
        ("Task", task.replace("_", " ")),
        ("Strategy", f"{strategy.label if strategy else row['strategy']}, {STEPS.get(row['step'], row['step'])}"),
        ("Written by", str(row["generator"])),
        ("Prompt", str(row["prompt"])),
        ("Place", f"batch {row['round']}, slot {row['slot']}, seed {row['rng_seed']}"),
    ]
    facts += [
        (label, _plain(gates[key], row)) for key, label in _ORIGIN.items() if gates.get(key) not in (None, {}, [])
    ]
    return facts


_ORIGIN = {
    "axes": "Asked to vary",
    "strength": "Push, × usual activation",
    "kl": "Moved predictions by, nats",
    "evidence": "Evidence in place of a pair",
    "credited": "Also activates",
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
