"""From single runs to the comparison: the best learning rate of each side, the ratios, the bars and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

OURS = "facviz"
BAR_PEER = "sae-lens"
MIN_ALIVE = 0.95


@dataclass(frozen=True, slots=True)
class Bar:
    """What ours must reach against `BAR_PEER` at one width."""

    speed: float
    """Tokens/s, ours through theirs, at least."""
    fvu: float
    """FVU, ours through theirs, at most."""


BARS = {4096: Bar(3.0, 0.97), 16_384: Bar(4.0, 0.87)}


def best_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The run of lowest FVU, with the median tokens/s of all that finished; None if none did."""
    finished = [run for run in runs if "failed" not in run]
    if not finished:
        return None
    best = min(finished, key=lambda run: run["fvu"])
    rates = {key: median(run[key] for run in finished) for key in ("tokens_per_second", "steady_tokens_per_second")}
    return dict(best) | rates


def compare(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry per architecture, width and peer, in the order of the runs, with the bars it has to reach."""
    cases = dict.fromkeys((run["architecture"], run["d_sae"]) for run in runs)
    entries = []
    for case in cases:
        here = [run for run in runs if (run["architecture"], run["d_sae"]) == case]
        sides = {
            side: best_of([r for r in here if r["side"] == side]) for side in dict.fromkeys(r["side"] for r in here)
        }
        ours = sides.pop(OURS, None)
        entries += [_entry(case, peer, ours, theirs) for peer, theirs in sides.items()]
    return entries


def _entry(
    case: tuple[str, int], peer: str, ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None
) -> dict[str, Any]:
    entry: dict[str, Any] = {"architecture": case[0], "d_sae": case[1], "peer": peer, "ours": ours, "theirs": theirs}
    if ours is None or theirs is None:
        missing = OURS if ours is None else peer
        return entry | {"bars": {f"no run of {missing} finished": False} if peer == BAR_PEER else {}}
    entry["ratios"] = {
        "speed": ours["tokens_per_second"] / theirs["tokens_per_second"],
        "steady_speed": ours["steady_tokens_per_second"] / theirs["steady_tokens_per_second"],
        "fvu": ours["fvu"] / theirs["fvu"],
    }
    return entry | {"bars": _bars(entry)}


def _bars(entry: Mapping[str, Any]) -> dict[str, bool]:
    bar = BARS.get(entry["d_sae"])
    if entry["peer"] != BAR_PEER or bar is None:
        return {}
    return {
        f"speed ≥ {bar.speed:g}×": entry["ratios"]["speed"] >= bar.speed,
        f"FVU ≤ {bar.fvu:g}×": entry["ratios"]["fvu"] <= bar.fvu,
        f"alive ≥ {MIN_ALIVE:.0%}": entry["ours"]["alive"] >= MIN_ALIVE,
    }


def passed(comparisons: Sequence[Mapping[str, Any]]) -> bool:
    """Every bar is reached, and there was something to reach."""
    bars = [reached for entry in comparisons for reached in entry["bars"].values()]
    return bool(bars) and all(bars)


def table(record: Mapping[str, Any], machine: str) -> str:
    """The record for people: machine, best runs, ratios and bars, and what could not be measured."""
    header = (
        f"{'architecture':<13}{'d_sae':>7}  {'library':<20}{'setting':<18}{'lr':>8}{'tokens/s':>10}"
        f"{'FVU':>8}{'L0':>7}{'alive':>7}"
    )
    lines = [
        machine,
        f"{record['seconds']:.0f} s in all{', --quick: too short for the bars' if record['quick'] else ''}",
        header,
    ]
    shown: set[tuple[str, int]] = set()
    for entry in record["comparisons"]:
        case = (entry["architecture"], entry["d_sae"])
        if case not in shown and entry["ours"] is not None:
            lines.append(_row(entry, OURS, entry["ours"]))
        shown.add(case)
        if entry["theirs"] is not None:
            lines.append(_row(entry, entry["peer"], entry["theirs"]))
        lines += _verdicts(entry)
    lines += [f"{name} {reason}" for name, reason in record["missing"].items()]
    lines += [
        f"failed: {r['side']} {r['architecture']} {r['d_sae']} {r['setting']} lr {r['learning_rate']:g}: {r['failed']}"
        for r in [*record["probes"], *record["runs"]]
        if "failed" in r
    ]
    return "\n".join(lines + [_interop_row(check) for check in record["interop"]])


def _row(entry: Mapping[str, Any], side: str, run: Mapping[str, Any]) -> str:
    return (
        f"{entry['architecture']:<13}{entry['d_sae']:>7}  {side:<20}{run['setting']:<18}{run['learning_rate']:>8.2g}"
        f"{run['tokens_per_second']:>10,.0f}{run['fvu']:>8.4f}{run['l0']:>7.1f}{run['alive']:>7.1%}"
    )


def _verdicts(entry: Mapping[str, Any]) -> list[str]:
    ratios = entry.get("ratios")
    said = [f"{name} {'pass' if reached else 'MISSED'}" for name, reached in entry["bars"].items()]
    if ratios is None:
        return [f"{'':<22}{entry['peer']}: {', '.join(said) or 'no run finished'}"]
    measured = f"ours is {ratios['speed']:.2f}× as fast ({ratios['steady_speed']:.2f}× once warm), "
    measured += f"FVU {ratios['fvu']:.3f}×"
    return [f"{'':<22}against {entry['peer']}: {'; '.join([measured, *said])}"]


def _interop_row(check: Mapping[str, Any]) -> str:
    if "failed" in check:
        return f"interop {check['name']}: {check['failed']}"
    verdict = "pass" if check["passed"] else "MISSED"
    return (
        f"interop {check['name']}: features differ by {check['features']:.1e}, "
        f"reconstructions by {check['reconstruction']:.1e}, L0 {check['l0']:.1f}: {verdict}"
    )
