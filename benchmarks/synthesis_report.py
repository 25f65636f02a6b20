"""The record of `benchmarks.synthesis` as a section of docs/results.md: tables, and a reading made of their figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.known_gaps import GAP_CHOICES
from benchmarks.markdown import listed, percent, points, row, rule, share
from benchmarks.synthesis_help import evaluation_section
from facviz.files import write_text_atomically

BEGIN, END = "<!-- synthesis: begin -->", "<!-- synthesis: end -->"
GOAL_ARM, GOAL = "paper+steered", 0.8
GAP_BAR, GAP_GOAL = 0.6, 0.8
PAPER = {"0": (69.6, 81.8), "1": (41.1, 45.8), "2": (31.8, 40.7)}
"""Toxicity of the paper, one-step and two-step, in % of the missing features, at absolute δ."""
CLAIMS = (("paper", "one-step"), ("one-step", "plain"))
Record = Mapping[str, Any]


def report(record: Record) -> str:
    """Everything that was measured, as Markdown."""
    parts = [_commands(record), *_studies(record)]
    if record.get("gaps"):
        parts += _gaps(record["gaps"])
    if record.get("evaluation"):
        parts += evaluation_section(record["evaluation"])
    return "\n\n".join(parts)


def _commands(record: Record) -> str:
    """What made the parts that are there."""
    start = "FACVIZ_DATA=FOLDER python -m benchmarks.synthesis"
    made = []
    if record.get("studies"):
        made.append(f"{start}{' --evaluate' if record.get('evaluation') else ''} --seeds {record['n_seeds']}")
    if record.get("gaps"):
        choices = record["gaps"]["choices"]
        of = "" if set(choices) == set(GAP_CHOICES) else f" --choices {' '.join(choices)}"
        made.append(f"{start} --gaps{of}")
    return "\n".join(["```", *made, "```"])


def write_section(page: Path, text: str) -> None:
    """Replace what stands between the marks of a page; a page without marks, or none, gets them at its end."""
    known = page.read_text(encoding="utf-8") if page.is_file() else ""
    before, mark, rest = known.partition(BEGIN)
    if not mark:
        before, rest = before.rstrip() + "\n\n## Does synthesis fill the gap?\n\n", f"{END}\n"
    _, _, after = rest.partition(END)
    write_text_atomically(page, f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def _studies(record: Record) -> list[str]:
    studies, deltas = record.get("studies", {}), record.get("deltas", [])
    if not studies:
        return []
    parts = [_method(record)]
    for study in studies.values():
        parts += [f"### {study['title']}", _gap(study), _coverage_table(study, deltas), _sweep_table(study)]
    parts += ["### What holds", _ordering_table(studies, deltas), _reading(studies, deltas), _paper_table()]
    return parts


def _method(record: Record) -> str:
    return (
        f"Every arm draws {record['n_candidates']} candidates that may be accepted for each target of a study, and "
        f"nothing stops early. {_sampling(record)} What a strategy makes its pair and its push of comes beside them "
        "(after the +), as the paper counts its two steps; the arms “as many in all” draw as many as "
        "`paper+steered` does with all that. Targets are a random draw of the missing features at relative 1.0, the "
        "same for all. A baseline is credited with every target that one of its accepted texts activates.\n\n"
        "**Missing coverage** is the share of the targets that the accepted texts activate, each encoded alone in "
        "float32; the same texts are scored again at other δ. **Accepted** is the share of the drawn candidates that "
        "pass all gates. In brackets 95 % intervals, of a bootstrap over targets and seeds. "
        + _seeds(record)
        + " A target is "
        "**within reach** if some anchor text exceeds its δ by the 5 % that a sample must: where none "
        "does, there is no telling whether one can. *Without the gate* counts the texts, too, that the "
        "gate against copying turned down, whatever later gates would have said."
    )


def _sampling(record: Record) -> str:
    return f"A candidate has at most {record['max_tokens']} tokens, sampled at temperature {record['temperature']:g}."


def _seeds(record: Record) -> str:
    n = record["n_seeds"]
    if n == 1:
        return (
            "Every arm ran **with one seed only**: the intervals do not say how far another seed would lead elsewhere."
        )
    return f"Every arm ran with {n} seeds, those that draw as many in all with one."


def _gap(study: Mapping[str, Any]) -> str:
    gap = study["gap"]
    saturated = [name for name, at in gap["by_delta"].items() if at["saturated"]]
    absolute = gap["by_delta"]["absolute 0"]
    lines = [
        f"{gap['n_missing']:,} of {gap['n_anchor']:,} relevant features are missing (FAC {gap['fac']:.3f}; anchor "
        f"`{gap['anchor']}`, {gap['n_anchor_docs']:,} texts; seed `{gap['seed']}`, {gap['n_seed_docs']:,} texts); "
        f"{study['n_targets']} of them are targets, of which {sum(gap['within_reach'])} are within "
        f"reach. Written by {study['generator']}; its arms took {study['seconds'] / 60:.0f} minutes in all.",
        f"At the paper's absolute δ of 0, {absolute['n_missing']} of {absolute['n_anchor']:,} are missing"
        + (": **saturated**, so nothing is aimed at there." if absolute["saturated"] else "."),
    ]
    others = [name for name in saturated if name != "absolute 0"]
    if others:
        lines.append(f"Saturated as well: relative {', '.join(others)}.")
    return " ".join(lines)


def _coverage_table(study: Mapping[str, Any], deltas: Sequence[float]) -> str:
    head = [
        *(f"at δ {d:g}" for d in deltas),
        "at δ 1, within reach",
        "accepted",
        "at δ 1, without the gate",
        "accepted, without",
    ]
    lines = [row(["arm", "candidates", *head]), rule(len(head) + 2)]
    for name, found in study["arms"].items():
        coverage, accepted = found["missing_coverage"], found["accepted_share"]
        drawn = f"{found['n_drawn']:,}" + (f" + {found['n_beside']:,}" if found["n_beside"] else "")
        measures = [
            *(coverage["with gate"][f"{d:g}"] for d in deltas),
            found.get("within_reach"),
            accepted["with gate"],
        ]
        measures += [coverage["without gate"]["1"], accepted["without gate"]]
        lines.append(
            row([f"`{name}`" if "," not in name else name, drawn, *(share(m) if m else "–" for m in measures)])
        )
    return "\n".join(lines)


def _sweep_table(study: Mapping[str, Any]) -> str:
    parts = list(next(iter(study["arms"].values()))["sweep"])
    lines = [
        "Missing coverage at δ 1 when only a part of the targets, or of the pool, is drawn for:\n",
        row(["arm", *(f"{percent(float(part))}" for part in parts)]),
        rule(len(parts) + 1),
    ]
    lines += [row([name, *(share(found["sweep"][p]) for p in parts)]) for name, found in study["arms"].items()]
    return "\n".join(lines)


def _ordering_table(studies: Mapping[str, Any], deltas: Sequence[float]) -> str:
    lines = [
        "Difference in missing coverage, in points, target by target:\n",
        row(["study", "first − second", *(f"δ {d:g}" for d in deltas)]),
        rule(len(deltas) + 2),
    ]
    for name, study in studies.items():
        for pair in dict.fromkeys((o["first"], o["second"]) for o in study["orderings"]):
            found = [_ordering(study, pair, delta) for delta in deltas]
            lines.append(row([name, " − ".join(pair), *(points(f) for f in found)]))
    return "\n".join(lines)


def _reading(studies: Mapping[str, Any], deltas: Sequence[float]) -> str:
    lines = []
    for name, study in studies.items():
        lines += _goal(name, study)
        for pair in CLAIMS:
            lines += _claim(name, study, pair, deltas)
        lines += [*_best_baseline(name, study), *_copying(name, study), *_beyond(name, study)]
    return "\n".join(f"- {line}" for line in lines)


def _goal(name: str, study: Mapping[str, Any]) -> list[str]:
    if GOAL_ARM not in study["arms"]:
        return [f"`{name}`: {GOAL_ARM} did not run, so its goal of {percent(GOAL)} is open."]
    found = study["arms"][GOAL_ARM]["missing_coverage"]["with gate"]["1"]
    best = max(study["arms"], key=lambda arm: study["arms"][arm]["missing_coverage"]["with gate"]["1"]["value"])
    verdict = "reached" if found["value"] >= GOAL else "**not reached**"
    line = f"`{name}`: the goal of {percent(GOAL)} by {GOAL_ARM} at δ 1 is {verdict}: {share(found)}."
    if best != GOAL_ARM:
        line += f" The most is {share(study['arms'][best]['missing_coverage']['with gate']['1'])}, by {best}."
    reached = study["arms"][GOAL_ARM].get("within_reach")
    if found["value"] < GOAL and reached:
        n = sum(study["gap"]["within_reach"])
        verdict = "reached" if reached["value"] >= GOAL else "**not reached** either"
        line += f" Of the {n} targets within reach it is {verdict}: {share(reached)}."
    return [line]


def _claim(name: str, study: Mapping[str, Any], pair: tuple[str, str], deltas: Sequence[float]) -> list[str]:
    """Whether the first is at least as good as the second wherever the gap is not saturated."""
    if not any((o["first"], o["second"]) == pair for o in study["orderings"]):
        return []
    at = [d for d in deltas if not study["gap"]["by_delta"][f"{d:g}"]["saturated"]]
    found = {d: _ordering(study, pair, d) for d in at}
    even = [d for d, o in found.items() if o["value"] == o["low"] == o["high"] == 0]
    at = [d for d in at if d not in even]
    failed = [d for d in at if found[d]["value"] < 0]
    clear = [d for d, o in found.items() if o["low"] > 0 or o["high"] < 0]
    claim = f"`{name}`: {pair[0]} ≥ {pair[1]}"
    same = f"; at {listed(even)} both cover the same targets" if even else ""
    if not at:
        verdict = "is not decided at any unsaturated δ"
    elif not failed:
        verdict = f"holds at every unsaturated δ that tells them apart ({listed(at)})"
    elif len(failed) == len(at):
        verdict = f"**does not hold** at any unsaturated δ ({listed(at)})"
    else:
        verdict = f"holds at δ {listed([d for d in at if d not in failed])} and **not** at {listed(failed)}"
    unclear = [d for d in at if d not in clear]
    sure = "" if not unclear else f"; at {listed(unclear)} the interval of the difference includes zero"
    return [f"{claim} {verdict}{sure}{same}."]


def _best_baseline(name: str, study: Mapping[str, Any]) -> list[str]:
    baselines = ("plain", "self-instruct", "magpie", "evol", "random-feature")
    ran = [b for b in baselines if b in study["arms"]]
    if not ran or "paper" not in study["arms"]:
        return []

    def value(arm: str) -> float:
        return float(study["arms"][arm]["missing_coverage"]["with gate"]["1"]["value"])

    best = max(ran, key=value)
    word = "above" if value("paper") > value(best) else "**not above**"
    ours, theirs = percent(value("paper")), percent(value(best))
    return [f"`{name}`: the best baseline at δ 1 is {best}, {theirs}; `paper`, {ours}, is {word}."]


def _beyond(name: str, study: Mapping[str, Any]) -> list[str]:
    """What aiming at targets that are not within reach brought, beside the others."""
    aimed = study.get("aimed", {})
    if not aimed or not aimed["beyond"]["n_drawn"]:
        return []

    def told(found: Mapping[str, int]) -> str:
        covered_in = f"covered in {found['n_covered']:,} of {found['n_runs']:,} runs"
        return f"{found['n_accepted']:,} of {found['n_drawn']:,} candidates accepted, {covered_in}"

    return [
        f"`{name}`: arms that aim, at targets not within reach: {told(aimed['beyond'])}; at the others: "
        f"{told(aimed['within'])}."
    ]


def _copying(name: str, study: Mapping[str, Any]) -> list[str]:
    n = {arm: found["n_copied"] for arm, found in study["arms"].items() if found["n_copied"]}
    if not n:
        return [f"`{name}`: the gate against copying turned nothing down that fired."]
    told = ", ".join(f"{count} by {arm} (accepted {study['arms'][arm]['n_accepted']})" for arm, count in n.items())
    return [f"`{name}`: the gate against copying turned down {told}."]


def _paper_table() -> str:
    lines = [
        "Beside it the paper's figures for toxicity, **other model, other scale** (Llama-3.1-8B-Instruct, 65,536 "
        "features, absolute δ): missing coverage of one step → two steps.\n",
        row(["δ", *PAPER]),
        rule(len(PAPER) + 1),
        row(["one-step → two-step", *(f"{a} → {b} %" for a, b in PAPER.values())]),
    ]
    return "\n".join(lines)


def _gaps(gaps: Record) -> list[str]:
    lines = [
        row(
            [
                *("themes taken away", "listed", "targets", "arm", "covered (95 %)", "bar", "goal", "within reach"),
                "accepted",
            ]
        ),
        rule(9),
    ]
    for title, study in gaps["choices"].items():
        for arm, found in study["arms"].items():
            covered = found["missing_coverage"]["with gate"]["1"]
            marks = ["reached" if covered["value"] >= mark else "missed" for mark in (GAP_BAR, GAP_GOAL)]
            reached, n = (
                found.get("within_reach"),
                f"{study['n_targets']} ({sum(study['gap']['within_reach'])} within reach)",
            )
            cells = [title, f"{study['gap']['n_missing']:,}", n, arm, share(covered), *marks]
            cells += [share(reached) if reached else "–", f"{found['n_accepted']:,} of {found['n_drawn']:,}"]
            lines.append(row(cells))
    filled, n_targets = _filled(gaps["choices"].values())
    return [
        "### Are known gaps filled?",
        "The lists of “Does the missing list name a gap that is known?”, as defined, for the first split: anchor half "
        "B, seed half B without the themes, every feature counts that does not fire everywhere. At most 40 of a list, "
        f"drawn at random; for each as many candidates as it takes to accept one, {gaps['n_candidates']} at most in "
        f"each of {gaps['passes']} rounds, and what pairs are made of beside them; a round after the first is for what "
        f"no sample activates yet. {_sampling(gaps)} "
        f"Bar: {percent(GAP_BAR)} of the targets covered, goal {percent(GAP_GOAL)}.",
        "\n".join(lines),
        f"Of all {n_targets} targets together {percent(filled / n_targets)} are covered.",
    ]


def _filled(studies: Iterable[Mapping[str, Any]]) -> tuple[float, int]:
    """Covered targets of all choices, and targets; of the first arm of each."""
    firsts = [(next(iter(study["arms"].values())), study["n_targets"]) for study in studies]
    return sum(arm["missing_coverage"]["with gate"]["1"]["value"] * n for arm, n in firsts), sum(n for _, n in firsts)


def _ordering(study: Mapping[str, Any], pair: tuple[str, str], delta: float) -> Mapping[str, Any]:
    found = (o for o in study["orderings"] if (o["first"], o["second"]) == pair and o["delta"] == delta)
    return next(found)
