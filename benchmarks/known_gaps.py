"""`python -m benchmarks.known_gaps`: does the missing list name a gap that is known? Writes JSON, a chart and a table.

Each corpus is split in halves A and B by document. The truth comes from A alone: features active at relative 1.0 in at
least three texts of the themes taken away and in none of the others. Anchor and seed come from B alone: all of B, and B
without the themes. The list of missing features is then held against the truth, over five splits, beside a list of the
same length drawn at random from the anchor's features.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.gap_chart import gap_chart
from benchmarks.gap_texts import Encoded, demo_texts, encode, general_texts
from facviz.backbone.packaged import cache_root
from facviz.coverage import doc_frequency, index_activity, thresholds
from facviz.records import Bools

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "known_gaps.json"
CHART = HERE.parent / "docs" / "images" / "known-gaps.svg"
N_SPLITS = 5
FEWEST_TRUTH_TEXTS = 3
DELTA = 1.0
BAR, TIMES_RANDOM, GOAL = 0.5, 5.0, 0.8
NOT_ENDED = 75

LEISURE = (
    "fitness and yoga", "parties and weddings", "recipes and cooking", "restaurants and food", "trips and travel",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """Themes of one corpus that are taken away together; those of the bar are the first three."""

    name: str
    corpus: str
    themes: tuple[str, ...]
    counts_for_bar: bool = True


CHOICES = (
    Choice("code", "general", ("gpteacher:codegen",)),
    Choice("reviews", "general", ("amazon_polarity", "app_reviews", "imdb", "rotten_tomatoes", "yelp")),
    Choice("news", "general", ("ag_news", "cnn_dailymail", "gigaword", "multi_news", "xsum")),
    Choice("role play", "general", ("gpteacher:roleplay",), counts_for_bar=False),
    Choice("harmless dialogue", "general", ("hh_harmless",), counts_for_bar=False),
    Choice("leisure (demo corpus)", "demo", LEISURE, counts_for_bar=False),
)

GAP_CHOICES = tuple(choice.name for choice in CHOICES if choice.counts_for_bar)


@dataclass(frozen=True, slots=True)
class Rule:
    """What puts a feature on the list: enough anchor texts activate it, and fewer seed texts than would cover it."""

    name: str
    anchor_texts: int
    covering_texts: int
    delta: float = DELTA


RULES = (
    Rule("as defined", 1, 1),
    Rule("at δ 0.9", 1, 1, 0.9),
    Rule("at δ 1.1", 1, 1, 1.1),
    Rule("in 3 anchor texts", 3, 1),
    Rule("in 3 anchor texts, covered by 2", 3, 2),
)
"""The first is FAC's own missing set; the others ask what misleads it: δ, or single texts on either side."""


@dataclass(frozen=True, slots=True)
class Split:
    """One split of one choice under one rule; `random_*` is what a list of that length is expected to reach."""

    n_truth: int
    n_listed: int
    recall: float
    precision: float
    random_recall: float
    random_precision: float


def recover(corpus: Encoded, themes: Sequence[str], rng_seed: int) -> dict[str, Split]:
    """Each rule's list against the truth, for one split in halves."""
    is_gone = np.isin(np.array(corpus.themes), themes)
    in_a = halves(len(corpus.themes), rng_seed)
    truth = known_gap(corpus, in_a & is_gone, in_a & ~is_gone)
    anchor = corpus.acts[~in_a]
    p95 = index_activity(anchor).p95()
    found = {}
    for rule in RULES:
        row = thresholds("relative", rule.delta, p95)
        in_anchor, in_seed = (doc_frequency(acts, row) for acts in (anchor, corpus.acts[~in_a & ~is_gone]))
        found[rule.name] = _score(truth, in_anchor >= rule.anchor_texts, in_seed < rule.covering_texts)
    return found


def halves(n_docs: int, rng_seed: int) -> Bools:
    """Which documents form half A: every second one of a random order."""
    chosen = np.zeros(n_docs, dtype=bool)
    chosen[np.random.default_rng(rng_seed).permutation(n_docs)[::2]] = True
    return chosen


def known_gap(corpus: Encoded, with_themes: Bools, others: Bools) -> Bools:
    """Features that half A shows to belong to the themes and to nothing else."""
    row = thresholds("relative", DELTA, index_activity(corpus.acts[with_themes | others]).p95())
    of_themes, of_others = (doc_frequency(corpus.acts[rows], row) for rows in (with_themes, others))
    return (of_themes >= FEWEST_TRUTH_TEXTS) & (of_others == 0)


def _score(truth: Bools, candidates: Bools, not_covered: Bools) -> Split:
    listed = candidates & not_covered
    n_truth, n_listed, n_candidates = int(truth.sum()), int(listed.sum()), int(candidates.sum())
    n_right, n_reachable = int((truth & listed).sum()), int((truth & candidates).sum())
    return Split(
        n_truth=n_truth,
        n_listed=n_listed,
        recall=n_right / max(n_truth, 1),
        precision=n_right / max(n_listed, 1),
        random_recall=n_listed * n_reachable / max(n_candidates * n_truth, 1),
        random_precision=n_reachable / max(n_candidates, 1),
    )


def summarise(splits: Sequence[Split]) -> dict[str, Any]:
    """Means over splits, with the range of recall and precision."""
    rows = [asdict(split) for split in splits]
    means = {key: round(mean(row[key] for row in rows), 4) for key in rows[0]}
    ranges = {
        f"{key}_range": [round(f(row[key] for row in rows), 4) for f in (min, max)] for key in ("recall", "precision")
    }
    return means | ranges | {"n_splits": len(splits)}


def reaches_bar(found: Mapping[str, Any]) -> bool:
    """Recall of at least a half, and at least five times that of a random list."""
    return bool(found["recall"] >= BAR and found["recall"] >= TIMES_RANDOM * found["random_recall"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 the bar is reached, 1 it is not, 75 time ran out while encoding: run again to go on."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.known_gaps", description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("FACVIZ_DATA"), help="holds general_instructions")
    parser.add_argument("--cache", type=Path, default=cache_root() / "known_gaps", help="where activations are kept")
    parser.add_argument("--stop-after", type=float, default=float("inf"), metavar="SECONDS", help="of encoding")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--chart", type=Path, default=CHART)
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error("name the folder that holds general_instructions with --data, or in FACVIZ_DATA")
    texts = {"demo": demo_texts(), "general": general_texts(options.data)}
    corpora = {name: encode(found, options.cache, stop_after=options.stop_after) for name, found in texts.items()}
    complete = {name: corpus for name, corpus in corpora.items() if corpus is not None}
    if len(complete) < len(corpora):
        print("time ran out before everything was encoded; run it again to go on", file=sys.stderr)
        return NOT_ENDED
    record = measure(complete)
    options.out.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    options.chart.write_text(gap_chart(record), encoding="utf-8")
    print(table(record))
    return 0 if record["passed"] else 1


def measure(corpora: Mapping[str, Encoded]) -> dict[str, Any]:
    """Every choice under every rule."""
    choices = []
    for choice in CHOICES:
        corpus = corpora[choice.corpus]
        splits = [recover(corpus, choice.themes, rng_seed) for rng_seed in range(N_SPLITS)]
        rules = {rule.name: summarise([split[rule.name] for split in splits]) for rule in RULES}
        n_gone = int(np.isin(np.array(corpus.themes), choice.themes).sum())
        choices.append(asdict(choice) | {"n_texts": len(corpus.themes), "n_texts_of_themes": n_gone, "rules": rules})
    plain = [c["rules"][RULES[0].name] for c in choices if c["counts_for_bar"]]
    return {
        "bar": {"recall": BAR, "times_random": TIMES_RANDOM, "goal": GOAL},
        "delta": {"kind": "relative", "value": DELTA},
        "tokens": {name: int(corpus.n_tokens.sum()) for name, corpus in corpora.items()},
        "passed": all(reaches_bar(found) for found in plain),
        "choices": choices,
    }


def table(record: Mapping[str, Any]) -> str:
    """The record for people, as Markdown."""
    head = (
        "| themes taken away | rule | truth | listed | recall (range) | precision | random recall | random precision |"
    )
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for choice in record["choices"]:
        for place, (rule, found) in enumerate(choice["rules"].items()):
            low, high = found["recall_range"]
            name = f"{choice['name']}, {choice['n_texts_of_themes']:,} of {choice['n_texts']:,}" if not place else ""
            lines.append(
                f"| {name} | {rule} | {found['n_truth']:.0f} | {found['n_listed']:.0f} | {found['recall']:.2f} "
                f"({low:.2f}–{high:.2f}) | {found['precision']:.2f} | {found['random_recall']:.3f} | "
                f"{found['random_precision']:.3f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
