"""What an evaluation compares: test, seed and gold documents with their labels, and the texts of every arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facviz.config import EvaluationConfig
from facviz.errors import InputError
from facviz.evaluation.arms import GOLD_ARM, SEED_ARM, UNVERIFIED_ARM
from facviz.overlap import exact_duplicates, near_duplicates, words_of
from facviz.pipeline.session import load_documents
from facviz.prompts import load_task
from facviz.records import Bools, Document, Message, Split, split_of
from facviz.store.manifest import Manifest
from facviz.store.reader import Reader
from facviz.synthesis.pool import NOTHING_FIRES, NOTHING_FIRES_ALONE

Row = Mapping[str, Any]
TRUE_LABEL = "1"
NOT_FIRING = ("target does not fire", "target does not fire alone")
"""Reasons that make a text one of the `unverified` arm: written for the feature, turned down by the model alone."""
UNASKED = "magpie"
"""The strategy that is told nothing of the task."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Documents of a dataset and whether each is of the positive class."""

    documents: tuple[Document, ...]
    is_positive: Bools

    def where(self, keep: Bools) -> Labelled:
        """Those that a mask keeps."""
        return Labelled(tuple(d for d, kept in zip(self.documents, keep) if kept), self.is_positive[keep])


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Everything an evaluation reads from the workspace, duplicates already out of the test set."""

    run: Row
    names: Mapping[str, str]  # test, gold and seed
    positive: tuple[str, ...]
    test: Labelled
    seed: Labelled
    gold: Labelled
    added: Mapping[str, tuple[Document, ...]]
    unasked: tuple[Document, ...]  # what the generator writes when it is told nothing, as negatives of its own origin
    n_exact: int
    n_near: int
    n_other_themes: int

    @property
    def is_split(self) -> bool:
        """Whether test and gold are two halves of one dataset."""
        return self.names["test"] == self.names["gold"]


def find_run(reader: Reader, manifest: Manifest, task: str, coverage_id: str) -> Row:
    """The coverage run named, or the newest of a task."""
    name = load_task(task).name
    order = list(manifest.latest_done("coverage"))
    runs = {r["coverage_id"]: r for r in reader.rows("coverage") if r["task"] == name}
    if coverage_id and coverage_id not in runs:
        raise InputError(f"There is no coverage run {coverage_id!r} of the task {name}; known: {', '.join(runs)}.")
    found = [runs[c] for c in order if c in runs]
    if not found:
        raise InputError(f"There is no coverage run of the task {name} yet; run `facviz coverage` first.")
    return runs[coverage_id] if coverage_id else found[-1]


def read_material(reader: Reader, run: Row, themes: Mapping[int, str], config: EvaluationConfig) -> Material:
    """Documents, labels and texts, with every test document left out that somebody may have trained on.

    Raises:
        InputError: labels are missing, one class is empty, or there is no text to add.
    """
    gold_name = config.gold or run["anchor"]
    test_name = config.test or _test_set(reader) or gold_name
    names = {"test": test_name, "gold": gold_name, "seed": run["seed"]}
    read = {name: load_documents(reader, reader.dataset(name)["dataset_id"]) for name in set(names.values())}
    for name, documents in read.items():
        if not any(d.label is not None for d in documents):
            raise InputError(f"The dataset {name} has no labels; add it again with --label-field, or name another.")
    seed, gold, test = (_labelled_only(read[names[role]]) for role in ("seed", "gold", "test"))
    positive = config.positive or _lacking(seed, [*gold, *test], names)
    if test_name == gold_name:
        gold, test = (_half(gold, half) for half in (Split.EXPLAIN, Split.SCORE))
    known = {d.doc_id for d in seed}
    gold = [d for d in gold if d.doc_id not in known]
    rows = _candidates(reader, run, config.syntheses)
    added, n_other = _added(rows, run, themes, positive)
    unasked = _unasked(rows, added)
    pools = [*seed, *gold, *unasked, *(d for arm in added.values() for d in arm)]
    words, others = ([words_of(d.text) for d in part] for part in (test, pools))
    exact = exact_duplicates(words, others)
    near = near_duplicates(words, others, min_jaccard=config.min_jaccard) | exact
    kept, known_seed, known_gold = _label(test, positive).where(~near), _label(seed, positive), _label(gold, positive)
    _check_sides(kept, known_seed, names, positive)
    if known_gold.is_positive.any():
        added |= {GOLD_ARM: known_gold.where(known_gold.is_positive).documents}
    return Material(
        run=run,
        names=names,
        positive=positive,
        test=kept,
        seed=known_seed,
        gold=known_gold,
        added=_chosen(added, config),
        unasked=unasked,
        n_exact=int(exact.sum()),
        n_near=int((near & ~exact).sum()),
        n_other_themes=n_other,
    )


def _test_set(reader: Reader) -> str:
    return next((d["name"] for d in reversed(reader.rows("datasets")) if d["role"] == "eval"), "")


def _labelled_only(documents: Sequence[Document]) -> list[Document]:
    return [d for d in documents if d.label is not None]


def _half(documents: Sequence[Document], half: Split) -> list[Document]:
    """By document hash: spans of the other half were evidence for explanations and synthesis."""
    return [d for d in documents if split_of(d.doc_id) is half]


def _label(documents: Sequence[Document], positive: Sequence[str]) -> Labelled:
    return Labelled(tuple(documents), np.array([d.label in positive for d in documents], bool))


def _lacking(seed: Sequence[Document], others: Sequence[Document], names: Mapping[str, str]) -> tuple[str, ...]:
    """The labels nothing in the seed set has; where it has all, the one that means "yes"."""
    known = {str(d.label) for d in others}
    lacking = known - {str(d.label) for d in seed}
    if not lacking and TRUE_LABEL in known:
        lacking = {TRUE_LABEL}
    if not lacking or lacking == known:
        raise InputError(
            f"Which label is the positive class? The labels of {names['test']} do not tell; give --positive, one of "
            f"{', '.join(sorted(known)[:12])}."
        )
    return tuple(sorted(lacking))


def _check_sides(test: Labelled, seed: Labelled, names: Mapping[str, str], positive: Sequence[str]) -> None:
    wanted = ", ".join(positive)
    if not 0 < test.is_positive.sum() < len(test.documents):
        raise InputError(
            f"The test set {names['test']} has {int(test.is_positive.sum())} documents labelled {wanted} among "
            f"{len(test.documents)} that are no duplicates; AUPRC needs both classes, so choose --test or --positive."
        )
    if seed.is_positive.all():
        raise InputError(
            f"All documents of the seed set {names['seed']} are labelled {wanted}; a head needs negatives."
        )


def _candidates(reader: Reader, run: Row, syntheses: Sequence[str]) -> list[dict[str, Any]]:
    rows = reader.rows("coverage_candidates", coverage_id=run["coverage_id"])
    known = {row["synth_id"] for row in rows}
    for synth_id in syntheses:
        if synth_id not in known:
            raise InputError(
                f"There is no synthesis run {synth_id!r} of coverage run {run['coverage_id']}; known: "
                f"{', '.join(sorted(known)) or 'none'}."
            )
    return [row for row in rows if not syntheses or row["synth_id"] in syntheses]


def _unasked(rows: Sequence[Row], added: Mapping[str, Sequence[Document]]) -> tuple[Document, ...]:
    """Texts that were asked for by nothing and brought no sample, each once and none that an arm adds.

    They were held against the features of their synthesis only; which activate no missing one shows when they are read.
    """
    known = {d.text for found in added.values() for d in found}
    found = dict[str, Document]()
    for row in rows:
        if row["strategy"] == UNASKED and row["reason"] in (NOTHING_FIRES, NOTHING_FIRES_ALONE):
            document = _document(row)
            if document.text.strip() and document.text not in known:
                found.setdefault(document.text, document)
    return tuple(found.values())


def _document(row: Row) -> Document:
    return Document(tuple(Message(m["role"], m["content"]) for m in row["messages"]))


def _added(
    rows: Sequence[Row], run: Row, themes: Mapping[int, str], positive: Sequence[str]
) -> tuple[dict[str, tuple[Document, ...]], int]:
    """Verified texts by strategy and the unverified ones, each text once; and how many belong to other themes.

    As published, a text written for a relevant missing feature is a positive. Where features have themes (relevance one
    label against all others), only texts for features of the positive class's themes are.
    """
    texts: dict[str, dict[str, Document]] = {}
    n_other = 0
    for row in sorted(rows, key=lambda r: not r["accepted"]):
        arm = row["strategy"] if row["accepted"] else UNVERIFIED_ARM
        is_wanted = row["review"] != "rejected" and (row["accepted"] or row["reason"] in NOT_FIRING)
        if not is_wanted or not row["text"].strip():
            continue
        theme = themes.get(row["feature_id"], "")
        if theme and theme not in positive and not set(positive) <= {TRUE_LABEL}:
            n_other += bool(row["accepted"])
            continue
        texts.setdefault(arm, {}).setdefault(row["text"], _document(row))
    verified = {text for arm, found in texts.items() if arm != UNVERIFIED_ARM for text in found}
    arms = {
        arm: tuple(d for text, d in found.items() if arm != UNVERIFIED_ARM or text not in verified)
        for arm, found in texts.items()
    }
    if not any(arm != UNVERIFIED_ARM for arm in arms):
        raise InputError(
            f"Coverage run {run['coverage_id']} has no verified sample of the positive class that nobody rejected; run "
            "`facviz synthesize` first."
        )
    return arms, n_other


def _chosen(added: Mapping[str, tuple[Document, ...]], config: EvaluationConfig) -> dict[str, tuple[Document, ...]]:
    wanted = [arm for arm in config.arms if arm != SEED_ARM]
    unknown = [arm for arm in wanted if arm not in added]
    if unknown:
        raise InputError(f"There is no arm {unknown[0]!r} here; choose from {', '.join(added)}.")
    return {arm: found for arm, found in added.items() if not wanted or arm in wanted}
