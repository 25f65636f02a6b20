"""How far the reviewers of an SAE agree: with each other, with themselves, and with the machine, each with its n."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

from facviz.agreement import Agreement, cohen_kappa, in_words, krippendorff_alpha
from facviz.store.queries import Queries
from facviz.views.format import UNKNOWN, count, number, percent
from facviz.views.scope import Looked

Row = Mapping[str, Any]
MOST_PAIRS = 12
"""Of many reviewers, the pairs with the most items in common are listed."""


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison, formatted."""

    what: str
    measure: str
    value: str
    equal: str
    n: str
    words: str


def read_agreement(queries: Queries, looked: Looked) -> list[Line]:
    """Everything that can be compared; empty before anybody looked twice at anything."""
    lines: list[Line] = []
    said = queries.rows("opinions", kind="explanation", sae_id=looked.sae_id, task="")
    judged = queries.rows("opinions", kind="relevance", sae_id=looked.sae_id, task=looked.task)
    for name, rows in (("explanations", said), (f"relevance to {looked.task.replace('_', ' ')}", judged)):
        lines += _between(name, rows)
        lines += _repeats(name, rows)
    machine = {
        row["feature_id"]: row["verdict"]
        for row in queries.rows("relevance", task=looked.task, sae_id=looked.sae_id)
        if row["source"] == looked.source
    }
    lines += _with_machine(looked.source, judged, machine)
    return lines


def seconds_per_person(queries: Queries, looked: Looked) -> list[tuple[str, str]]:
    """Each reviewer's number of explanations and the middle time spent on one."""
    spent: dict[str, list[float]] = defaultdict(list)
    n: dict[str, int] = defaultdict(int)
    for row in queries.rows("opinions", kind="explanation", sae_id=looked.sae_id, task=""):
        n[row["actor"]] += 1
        if row["seconds"] is not None:
            spent[row["actor"]].append(row["seconds"])
    middle = {who: f"{number(median(times))} s each" for who, times in spent.items()}
    return [(who, f"{count(n[who])} decided · {middle.get(who, UNKNOWN)}") for who in sorted(n, key=lambda w: -n[w])]


def _between(name: str, rows: Iterable[Row]) -> list[Line]:
    items: dict[int, dict[str, str]] = defaultdict(dict)
    for row in rows:
        if row["look"] != "repeat":
            items[row["feature_id"]][row["actor"]] = row["label"]
    people = sorted({who for labels in items.values() for who in labels})
    shared = {
        pair: [
            (labels[pair[0]], labels[pair[1]]) for labels in items.values() if pair[0] in labels and pair[1] in labels
        ]
        for pair in combinations(people, 2)
    }
    pairs = sorted(shared, key=lambda p: -len(shared[p]))[:MOST_PAIRS]
    found = []
    if len(people) > 2 and pairs:
        alpha = krippendorff_alpha([list(labels.values()) for labels in items.values()])
        found.append(_line(f"All {count(len(people))} reviewers on {name}", "Krippendorff’s α", alpha))
    return found + [_line(f"{a} and {b} on {name}", "Cohen’s κ", cohen_kappa(shared[a, b])) for a, b in pairs]


def _repeats(name: str, rows: Iterable[Row]) -> list[Line]:
    again: dict[str, list[tuple[Hashable, Hashable]]] = defaultdict(list)
    for row in rows:
        if row["look"] == "repeat" and row["first_label"]:
            again[row["actor"]].append((row["first_label"], row["label"]))
    return [_line(f"{who} asked again on {name}", "Cohen’s κ", cohen_kappa(pairs)) for who, pairs in again.items()]


def _with_machine(source: str, rows: Sequence[Row], machine: Mapping[int, str]) -> list[Line]:
    """People's verdicts against the machine's; those who saw it first are kept apart, since seeing pulls."""
    found = []
    for saw, words in ((False, "unseen"), (True, "seen first")):
        pairs = [
            (row["label"], machine[row["feature_id"]])
            for row in rows
            if row["look"] != "repeat" and row["saw_machine"] is saw and row["feature_id"] in machine
        ]
        if pairs:
            found.append(_line(f"People and the verdict by {source}, {words}", "Cohen’s κ", cohen_kappa(pairs)))
    return found


def _line(what: str, measure: str, found: Agreement) -> Line:
    return Line(what, measure, number(found.value), percent(found.observed), count(found.n_items), in_words(found))
