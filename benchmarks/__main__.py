"""`python -m benchmarks`: run the benches, print a table, write `results.json`; exit 1 when a bar is missed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.capture import bench_capture
from benchmarks.coverage import bench_interval, bench_move
from benchmarks.generation import bench_generation
from benchmarks.machine import describe_machine, machine_line
from benchmarks.pages import bench_pages
from benchmarks.results import Bound, Result
from benchmarks.sae import bench_decode, bench_step
from benchmarks.spans import bench_spans
from benchmarks.synthesis_speed import bench_synthesis
from benchmarks.texts import pseudo_documents
from facviz.activations import faster_dtype
from facviz.backbone import Backbone, load_backbone

RESULTS = Path(__file__).with_name("results.json")
N_DOCUMENTS = 200
PROMPT = (
    "Write one short message that a person could send to a chat assistant about planning a garden in spring. It must "
    "mention the weather, the soil and the seeds that were bought last year, ask one clear question, and sound as if "
    "it was typed in a hurry on a phone. Do not answer the question yourself, and do not explain what you wrote."
)


class Models:
    """The backbone in float32 and in whatever precision is measured to be faster here, loaded when first needed."""

    def __init__(self, name: str) -> None:
        self._name = name

    @cached_property
    def slow(self) -> Backbone:
        """Float32, as the published code runs on a CPU."""
        return load_backbone(self._name, dtype=torch.float32)

    @cached_property
    def fast(self) -> Backbone:
        """The bfloat16 copy if it is clearly faster, else the float32 one again."""
        copy = load_backbone(self._name, dtype=torch.bfloat16)
        chosen, self.bf16_speedup = faster_dtype(self.slow, copy)
        return copy if chosen == torch.bfloat16 else self.slow

    bf16_speedup: float | None = None


BENCHES: dict[str, Callable[[Models], Result | Sequence[Bound]]] = {
    "capture": lambda m: bench_capture(m.slow, m.fast, pseudo_documents(N_DOCUMENTS)),
    "spans": lambda m: bench_spans(m.slow, m.fast, pseudo_documents(N_DOCUMENTS // 2)),
    "sae-step": lambda _: bench_step(),
    "sparse-decode": lambda _: bench_decode(),
    "generation": lambda m: bench_generation(m.fast, PROMPT),
    "synthesis": lambda m: bench_synthesis(m.slow, m.fast, pseudo_documents(N_DOCUMENTS // 2)),
    "coverage-move": lambda _: bench_move(),
    "coverage-interval": lambda _: bench_interval(),
    "pages": lambda m: bench_pages(lambda: m.fast),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 every bar is reached, 1 one is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--backbone", default="default", help="hub id, folder or GGUF file; default: the packaged one")
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES), help="run only these")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    machine = describe_machine()  # before our own load shows in it
    models = Models(options.backbone)
    results: list[Result | Bound] = []
    for name in options.only:
        print(f"{name} …", file=sys.stderr, flush=True)
        found = BENCHES[name](models)
        results += [found] if isinstance(found, Result) else found
    record = {
        "machine": machine | {"bf16_speedup": models.bf16_speedup},
        "seconds": round(time.perf_counter() - started, 1),
        "passed": all(r.passed for r in results),
        "benches": [r.as_json() for r in results],
    }
    options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(table(record))
    return 0 if record["passed"] else 1


def table(record: dict[str, Any]) -> str:
    """The record for people."""
    lines = [f"{machine_line(record['machine'])}, {record['seconds']:.0f} s in all"]
    ratios = [bench for bench in record["benches"] if "ratio" in bench]
    bounds = [bench for bench in record["benches"] if "ratio" not in bench]
    if ratios:
        lines.append(f"{'bench':<16}{'ours':>12}{'reference':>12}  {'unit':<17}{'ratio':>7}{'range':>16}{'bar':>6}")
        lines += [_row(bench) for bench in ratios]
    if bounds:
        lines.append(f"{'bench':<28}{'ours':>12}{'at most':>12}  unit")
        lines += [_bound_row(bench) for bench in bounds]
    return "\n".join(lines)


def _row(bench: dict[str, Any]) -> str:
    spread = f"{bench['ratio_low']:.3g}–{bench['ratio_high']:.3g}"
    verdict = "pass" if bench["passed"] else "MISSED"
    return (
        f"{bench['bench']:<16}{bench['ours']:>12,.4g}{bench['reference']:>12,.4g}  {bench['unit']:<17}"
        f"{bench['ratio']:>7.3g}{spread:>16}{bench['bar']:>6g} {verdict}"
    )


def _bound_row(bench: dict[str, Any]) -> str:
    verdict = "pass" if bench["passed"] else "MISSED"
    return f"{bench['bench']:<28}{bench['ours']:>12,.4g}{bench['at_most']:>12,.4g}  {bench['unit']:<4} {verdict}"


if __name__ == "__main__":
    sys.exit(main())
