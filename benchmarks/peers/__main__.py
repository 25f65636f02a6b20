"""`python -m benchmarks.peers`: facviz against other libraries on the same activations; exit 1 if a bar is missed."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import describe_machine, machine_line
from benchmarks.peers.activations import captured, corpus_path
from benchmarks.peers.environment import PEERS, failure, prepare
from benchmarks.peers.interop import check_interop
from benchmarks.peers.job import REPORT_FILE, WEIGHTS_FOLDER, Job
from benchmarks.peers.measure import check_own, measure
from benchmarks.peers.report import OURS, compare, passed, table
from facviz.backbone.packaged import cache_root
from facviz.errors import FacvizError
from facviz.sae.formats import load_sae

RESULTS = Path(__file__).with_name("results.json")
ARCHITECTURES = ("topk", "batchtopk")
LEARNING_RATES = (3e-4, 9e-4, 2.7e-3)
TOKENS = {4096: 400_000, 16_384: 120_000}
QUICK_LEARNING_RATES = (9e-4,)
QUICK_TOKENS = {4096: 65_536, 16_384: 32_768}
PROBE_STEPS = 5
SETTINGS = {  # SAELens says that `sparse` pays in float32 only; BatchTopK has none
    "topk": ("float32", "sparse", "autocast", "compile+autocast"),
    "batchtopk": ("float32", "autocast", "compile+autocast"),
}
_FORMATS = {OURS: "saelens", "sae-lens": "saelens", "dictionary-learning": "dictionary_learning"}
_INSIDE = {"dictionary-learning": "trainer_0"}


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """A library that takes part, and the interpreter that has it."""

    name: str
    python: Path
    child: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 every bar is reached, 1 one is missed or could not be measured, 2 bad input."""
    options = _parser().parse_args(arguments)
    started = time.perf_counter()
    machine = describe_machine()
    try:
        record = _measure_all(options)
    except FacvizError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    record |= {"machine": machine, "seconds": round(time.perf_counter() - started, 1), "quick": options.quick}
    interop_passed = all(check["passed"] for check in record["interop"])
    record["passed"] = passed(record["comparisons"]) and interop_passed
    options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(table(record, machine_line(machine)))
    return 0 if record["passed"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--corpus", type=Path, help="texts to take activations of; default: FACVIZ_DATA's instructions")
    parser.add_argument("--environments", type=Path, default=cache_root() / "peers", help="folder of the environments")
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS), help="measure only these peers")
    parser.add_argument("--sizes", nargs="+", type=int, choices=TOKENS, default=list(TOKENS), help="widths d_sae")
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--quick", action="store_true", help="one learning rate and few tokens: to see that all works")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written")
    return parser


def _measure_all(options: argparse.Namespace) -> dict[str, Any]:
    sides, missing = _sides(options)
    tokens = QUICK_TOKENS if options.quick else TOKENS
    corpus = corpus_path(options.corpus)
    _say("activations")
    folder = captured(corpus, cache_root() / "peers" / "activations", max(tokens.values()))
    rates = QUICK_LEARNING_RATES if options.quick else LEARNING_RATES
    runs: list[dict[str, Any]] = []
    probes: list[dict[str, Any]] = []
    for architecture in options.architectures:
        for d_sae in options.sizes:
            job = Job(str(folder), "", architecture, d_sae, tokens[d_sae], rates[0])
            settings = {side.name: _fastest_setting(side, job, probes) for side in sides}
            for rate in rates:  # the sides take turns, so that a busy hour slows all of them
                for side in sides:
                    chosen = dataclasses.replace(job, learning_rate=rate, setting=settings[side.name])
                    runs.append(run_job(side, chosen))
    return {
        "peers": {side.name: PEERS[side.name].requirement for side in sides if side.name in PEERS},
        "missing": missing,
        "probes": probes,
        "runs": runs,
        "comparisons": compare(runs),
        "interop": _interop(sides),
    }


def _sides(options: argparse.Namespace) -> tuple[list[Side], dict[str, str]]:
    """Ours and every peer that works, and why the others do not."""
    sides, missing = [Side(OURS, Path(sys.executable), "benchmarks.peers.ours")], {}
    for name in options.only:
        _say(f"environment of {name}")
        environment = prepare(PEERS[name], options.environments, torch.__version__)
        if environment.python is None:
            missing[name] = environment.reason
        else:
            sides.append(Side(name, environment.python, PEERS[name].child))
    return sides, missing


def _fastest_setting(side: Side, job: Job, probes: list[dict[str, Any]]) -> str:
    """The setting of SAELens that ends this run soonest, by a few steps of each, compilation counted."""
    if side.name != "sae-lens":
        return job.setting
    tried = []
    for setting in SETTINGS[job.architecture]:
        short = dataclasses.replace(job, setting=setting, n_tokens=PROBE_STEPS * job.batch_tokens)
        probe = run_job(side, short, measured=False)
        if "failed" not in probe:
            probe["expected_seconds"] = expected_seconds(probe, job.n_tokens, job.batch_tokens)
            tried.append(probe)
        probes.append(probe)
    return min(tried, key=lambda probe: probe["expected_seconds"])["setting"] if tried else job.setting


def expected_seconds(probe: dict[str, Any], n_tokens: int, batch_tokens: int) -> float:
    """How long a run of `n_tokens` takes that starts like the probe and goes on at its steady rate."""
    return float(probe["warm_seconds"] + (n_tokens - 2 * batch_tokens) / probe["steady_tokens_per_second"])


def run_job(side: Side, job: Job, *, measured: bool = True) -> dict[str, Any]:
    """Train in a child process and, if `measured`, evaluate what it saved; a failure is told in `failed`."""
    described = {key: getattr(job, key) for key in ("architecture", "d_sae", "n_tokens", "learning_rate", "setting")}
    result: dict[str, Any] = {"side": side.name, **described}
    _say(" ".join(str(value) for value in result.values()))
    with tempfile.TemporaryDirectory(prefix="facviz-peers-") as out:
        given = json.dumps(dataclasses.asdict(dataclasses.replace(job, out=out)))
        if reason := failure([str(side.python), "-m", side.child, given]):
            return result | {"failed": reason}
        result |= json.loads(Path(out, REPORT_FILE).read_text(encoding="utf-8"))
        try:
            return result | (_evaluate(side, job, Path(out), result) if measured else {})
        except FacvizError as error:
            return result | {"failed": str(error)}


def _evaluate(side: Side, job: Job, out: Path, report: dict[str, Any]) -> dict[str, Any]:
    sae = load_sae(out / WEIGHTS_FOLDER / _INSIDE.get(side.name, ""), _FORMATS[side.name])
    heldout = torch.from_numpy(np.load(Path(job.activations, "heldout.npy")))
    found = measure(sae, heldout, job.k)
    check_own(report, found)
    return found


def _interop(sides: Sequence[Side]) -> list[dict[str, Any]]:
    python = next((side.python for side in sides if side.name == "sae-lens"), None)
    if python is None:
        return []
    _say("interop")
    with tempfile.TemporaryDirectory(prefix="facviz-peers-") as folder:
        return check_interop(python, Path(folder))


def _say(what: str) -> None:
    print(f"{what} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
