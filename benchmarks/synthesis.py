"""`python -m benchmarks.synthesis`: does synthesis fill the gap, by which strategy, and does what it wrote help?

Every strategy and baseline draws the same number of candidates for the same missing features, with several seeds, on
ToxicChat (`$FACVIZ_DATA`) by labels and on `general_instructions` by themes; `--small` on the demo's messages alone.
An arm's record is written when it ends and found again; a killed arm goes on by its own ledger. `--gaps` fills the
lists of `benchmarks.known_gaps`, `--evaluate` trains heads on what was written. Writes JSON and a section of
docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.known_gaps import GAP_CHOICES
from benchmarks.synthesis_arms import ARMS, Plan, run_arm
from benchmarks.synthesis_help import evaluate_arms
from benchmarks.synthesis_report import report, write_section
from benchmarks.synthesis_scores import EQUAL_TOTAL, summarise
from benchmarks.synthesis_studies import RESCORED, Prepared, Study, demo, general, known_gaps, prepare, toxicchat
from facviz.backbone.packaged import cache_root
from facviz.errors import FacvizError
from facviz.files import write_text_atomically
from facviz.heap import freed_memory_kept

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "synthesis.json"
PAGE = HERE.parent / "docs" / "results.md"
NOT_ENDED = 75

FULL = Plan()
SMALL = Plan(n_targets=8, n_seeds=1)
GAPS = Plan(n_candidates=96, n_wanted=1, passes=2, max_tokens=128, temperature=1.0, batch=16, n_seeds=1)
GAP_ARM = "paper"


class Clock:
    """Says when a part that was promised to end has to."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raises TimeoutError once the time is up; what is done is kept."""
        if time.monotonic() > self._end:
            raise TimeoutError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 75 time ran out: run it again to go on."""
    options = _options(arguments)
    clock = Clock(options.stop_after)
    record = _known(options.out)
    try:
        with freed_memory_kept():  # as every command has it
            if options.gaps:
                record["gaps"] = fill_known_gaps(options, clock)
            else:
                record |= measure(options, clock)
    except TimeoutError:
        print("time ran out before everything was measured; run it again to go on", file=sys.stderr)
        return NOT_ENDED
    write_text_atomically(options.out, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    text = report(record)
    if options.page is not None:
        write_section(options.page, text)
    print(text)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthesis", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("FACVIZ_DATA"), help="toxicchat, general_instructions"
    )
    parser.add_argument("--work", type=Path, default=cache_root() / "synthesis", help="workspaces and records of arms")
    parser.add_argument("--small", action="store_true", help="the demo's messages, 8 targets, one seed: minutes")
    parser.add_argument("--studies", nargs="+", choices=("toxicchat", "general"), default=["toxicchat", "general"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, help="default: all")
    parser.add_argument("--seeds", type=int, help="seeds of every arm")
    parser.add_argument("--gaps", action="store_true", help="only fill the lists of benchmarks.known_gaps")
    parser.add_argument("--choices", nargs="+", choices=GAP_CHOICES, default=list(GAP_CHOICES), help="of --gaps")
    parser.add_argument("--evaluate", action="store_true", help="also train heads on ToxicChat with what was written")
    parser.add_argument("--stop-after", type=float, default=float("inf"), metavar="SECONDS", help="start no arm after")
    parser.add_argument("--out", type=Path, help="JSON; default: benchmarks/synthesis.json, or with --small WORK")
    parser.add_argument(
        "--page", type=Path, help="page whose section is rewritten; default: docs/results.md, not --small"
    )
    options = parser.parse_args(arguments)
    if options.data is None and not options.small:
        parser.error("name the folder that holds toxicchat and general_instructions with --data, or in FACVIZ_DATA")
    if options.gaps and options.arms:
        parser.error(f"--gaps runs {GAP_ARM} alone; leave --arms out")
    options.arms = options.arms or list(ARMS)
    options.out = options.out or (options.work / "small.json" if options.small else RESULTS)
    options.page = options.page or (None if options.small else PAGE)
    options.work.mkdir(parents=True, exist_ok=True)
    return options


def _known(path: Path) -> dict[str, Any]:
    """What earlier runs measured of other parts."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def measure(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """Every arm on every study, and the evaluation where it is asked for."""
    plan = SMALL if options.small else FULL
    n_seeds = options.seeds or plan.n_seeds
    found: dict[str, Any] = {"studies": {}, "deltas": list(RESCORED), "n_seeds": n_seeds} | _of_plan(plan)
    for study in _studies(options):
        prepared = prepare(study, options.work, plan.n_targets)
        arms = run_arms(prepared, options.arms, range(n_seeds), plan, options.work, clock)
        found["studies"][study.name] = describe_study(prepared, arms, RESCORED)
        if options.evaluate and study.test:
            found["evaluation"] = evaluate_arms(prepared, arms)
    return found


def _of_plan(plan: Plan) -> dict[str, Any]:
    return {"n_candidates": plan.n_candidates, "max_tokens": plan.max_tokens, "temperature": plan.temperature}


def _studies(options: argparse.Namespace) -> list[Study]:
    if options.small:
        return [demo()]
    makers = {"toxicchat": lambda: toxicchat(options.data), "general": lambda: general(options.data, options.work)}
    return [makers[name]() for name in options.studies]


def run_arms(
    prepared: Prepared, names: Sequence[str], seeds: Sequence[int], plan: Plan, work: Path, clock: Clock
) -> list[dict[str, Any]]:
    """Seed after seed, so that what a stopped run has compares all arms; one that cannot run says why.

    Controls that draw more than three times as much have one seed.
    """
    arms, broken = [], set[str]()
    for place, rng_seed in enumerate(seeds):
        for name in (n for n in names if n not in broken and not (place and n in EQUAL_TOTAL)):
            clock.check()
            print(f"{prepared.study.name}, {name}, seed {rng_seed}", file=sys.stderr, flush=True)
            try:
                arms.append(run_arm(prepared, name, rng_seed, plan, work))
            except FacvizError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
                broken.add(name)
    return arms


def describe_study(prepared: Prepared, arms: Sequence[dict[str, Any]], deltas: Sequence[float]) -> dict[str, Any]:
    """Gap and figures of one study."""
    described = {"title": prepared.study.title, "n_targets": len(prepared.targets), "gap": prepared.gap}
    described["generator"] = arms[0]["generator"]
    described["seconds"] = round(sum(arm["seconds"] for arm in arms), 1)
    return described | summarise(arms, deltas, prepared.gap["within_reach"])


def fill_known_gaps(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """The share of each list that samples cover: at most 40 features of it, drawn at random."""
    found = {}
    for study in known_gaps(options.data, options.work):
        if study.title not in options.choices:
            continue
        prepared = prepare(study, options.work, GAPS.n_targets)
        arms = run_arms(prepared, [GAP_ARM], range(options.seeds or GAPS.n_seeds), GAPS, options.work, clock)
        found[study.title] = describe_study(prepared, arms, (1.0,))
    return _of_plan(GAPS) | {"passes": GAPS.passes, "choices": found}


if __name__ == "__main__":
    sys.exit(main())
