"""`python -m benchmarks.explanations`: do the words alone and the local model hold on spans nobody showed them?

Works on a copy of the demo (or any workspace): explains a random sample of features with the local model, which resumes
where it was stopped, then scores both kinds of explanation on the same held-out spans, each beside another feature's
explanation on the same spans. Writes the tables of docs/explanations.md between its two marks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facviz.cli.progress import choose_progress
from facviz.config import BackboneConfig, ExplainConfig, from_mapping
from facviz.explain.sampling import split_spans
from facviz.explain.scorers import EmbeddingScore, embedding_scores
from facviz.files import write_text_atomically
from facviz.pipeline.explaining import BACKGROUND_FEATURES, explain
from facviz.pipeline.session import Session, sae_row
from facviz.protocols import Embedder
from facviz.records import Explanation, ExplanationOutcome, Span
from facviz.spans import spans_by_feature
from facviz.store.reader import Reader
from facviz.store.workspace import Workspace, open_workspace

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
N_RESAMPLES = 5000
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Held:
    """One explainer's scores by feature, and how its explanations ended."""

    name: str
    outcomes: Mapping[str, int]
    scores: Mapping[int, EmbeddingScore]


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain, score, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explanations", description=__doc__)
    parser.add_argument("--workspace", type=Path, required=True, help="a copy: explanations are added to it")
    parser.add_argument("--dataset", default="messages")
    parser.add_argument("--n", type=int, default=300, help="features, drawn at random")
    parser.add_argument("--rng-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "explanations.md")
    given = parser.parse_args(arguments)
    workspace = open_workspace(given.workspace)
    config = ExplainConfig(provider="local", dataset=given.dataset, max_features=given.n, rng_seed=given.rng_seed)
    summary = explain_sample(workspace, config)
    measured = measure(workspace, summary["sae_id"], config, summary["model"], _embedder())
    table = report(measured, summary, config)
    write_between(given.out, table)
    print(table)
    return 0


def explain_sample(workspace: Workspace, config: ExplainConfig) -> dict[str, Any]:
    """The stage as `facviz explain --provider local` runs it."""
    row = sae_row(workspace, None)
    backbone = {k: v for k, v in json.loads(row["provenance"])["backbone"].items() if v is not None}
    with workspace.lock():
        session = Session(workspace, from_mapping(BackboneConfig, backbone, where="the SAE"), choose_progress(False))
        return explain(session, row["sae_id"], config)


def measure(
    workspace: Workspace, sae_id: str, config: ExplainConfig, model: str, embedder: Embedder
) -> tuple[Held, Held]:
    """Words alone and the local model on the same features, held-out spans and background."""
    with workspace.reader() as reader:
        dataset_id = reader.dataset(config.dataset)["dataset_id"]
        spans = spans_by_feature(reader.rows("dataset_spans", sae_id=sae_id, dataset_id=dataset_id))
        local = [e for e in explanations(reader, sae_id, "llm") if e.author == model]
        sampled = {e.feature_id for e in local}
        words = [e for e in explanations(reader, sae_id, "lexical") if e.feature_id in sampled]
    held_out = {f: list(split_spans(found)[1].spans[: config.scored_spans]) for f, found in spans.items()}
    live = sorted(feature for feature, found in held_out.items() if found)
    drawn = np.random.default_rng(config.rng_seed).permutation(live)[:BACKGROUND_FEATURES]
    background = [span for feature in drawn for span in held_out[int(feature)]]
    return (
        _held("words alone", words, held_out, background, embedder, config.rng_seed),
        _held(model, local, held_out, background, embedder, config.rng_seed),
    )


def explanations(reader: Reader, sae_id: str, author_kind: str) -> list[Explanation]:
    """As written, whichever is shown."""
    names = ("feature_id", "text", "author_kind", "author", "prompt", "version")
    rows = reader.rows("explanations_by", sae_id=sae_id, wrote_by=author_kind)
    return [Explanation(outcome=ExplanationOutcome(r["outcome"]), **{n: r[n] for n in names}) for r in rows]


def _held(
    name: str,
    written: Sequence[Explanation],
    held_out: Mapping[int, Sequence[Span]],
    background: Sequence[Span],
    embedder: Embedder,
    rng_seed: int,
) -> Held:
    scores = embedding_scores(written, held_out, background, embedder, rng_seed=rng_seed)
    return Held(name, Counter(str(e.outcome) for e in written), scores)


def report(measured: tuple[Held, Held], summary: Mapping[str, Any], config: ExplainConfig) -> str:
    """Markdown: what came of the features, the distributions, the paired differences."""
    words, local = measured
    n = sum(local.outcomes.values())
    lines = [
        f"{n} features of SAE `{summary['sae_id']}` drawn with seed {config.rng_seed} from those that fire in "
        f"`{config.dataset}`; up to {config.scored_spans} held-out spans of each against as many of other features.",
        "",
        "| explainer | explained | cannot tell | failed | scored |",
        "|---|---|---|---|---|",
        *(f"| {h.name} | {_counts(h)} | {len(h.scores)} |" for h in measured),
        "",
        "| embedding AUROC on held-out spans | n | 10 % | 25 % | median | 75 % | 90 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for held in measured:
        lines.append(_spread(held.name, [s.auroc for s in held.scores.values()]))
        shuffled = [s.shuffled_auroc for s in held.scores.values() if s.shuffled_auroc is not None]
        lines.append(_spread(f"{held.name}, another feature's label", shuffled))
    lines += [
        "",
        "| paired by feature | n | median difference | 95 % interval | better / equal / worse |",
        "|---|---|---|---|---|",
        *(_difference(f"{h.name} − another feature's label", *_beside_shuffled(h), config.rng_seed) for h in measured),
        _difference(f"{local.name} − {words.name}", *_both(local, words), config.rng_seed),
    ]
    return "\n".join(lines)


def _counts(held: Held) -> str:
    return " | ".join(str(held.outcomes.get(name, 0)) for name in ("explained", "cannot_tell", "failed"))


def _spread(name: str, values: Sequence[float]) -> str:
    points = np.percentile(values, [10, 25, 50, 75, 90]) if values else []
    return f"| {name} | {len(values)} | " + " | ".join(f"{point:.2f}" for point in points) + " |"


def _beside_shuffled(held: Held) -> tuple[Numbers, Numbers]:
    pairs = [(s.auroc, s.shuffled_auroc) for s in held.scores.values() if s.shuffled_auroc is not None]
    return _columns(pairs)


def _both(a: Held, b: Held) -> tuple[Numbers, Numbers]:
    return _columns([(a.scores[f].auroc, b.scores[f].auroc) for f in sorted(a.scores.keys() & b.scores.keys())])


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[Numbers, Numbers]:
    first, second = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return first, second


def _difference(name: str, a: Numbers, b: Numbers, rng_seed: int) -> str:
    difference = np.round(a - b, 9)
    if not len(difference):
        return f"| {name} | 0 | – | – | – |"
    low, high = median_interval(difference, rng_seed)
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    sides = f"{better} / {len(difference) - better - worse} / {worse}"
    return f"| {name} | {len(difference)} | {np.median(difference):+.3f} | {low:+.3f} to {high:+.3f} | {sides} |"


def median_interval(values: Numbers, rng_seed: int, n_resamples: int = N_RESAMPLES) -> tuple[float, float]:
    """Percentile bootstrap over features, 95 %."""
    rng = np.random.default_rng(rng_seed)
    drawn = values[rng.integers(len(values), size=(n_resamples, len(values)))]
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return float(low), float(high)


def write_between(path: Path, table: str) -> None:
    """Replace what stands between the marks of a page."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_text_atomically(path, f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")


def _embedder() -> Embedder:
    from facviz.embeddings import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder()


if __name__ == "__main__":
    sys.exit(main())
