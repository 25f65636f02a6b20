"""What a decision on every feature of a table would do, before it is done, and in words after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from facviz.store.batches import MAX_BATCH, Batch
from facviz.store.events import Target, explanation_of, relevance_of
from facviz.store.feature_table import TableFilter, passing
from facviz.store.queries import Queries
from facviz.views.format import count, count_of
from facviz.views.scope import Looked


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be decided, and what is left alone."""

    targets: Sequence[Target]
    sentence: str
    notes: Sequence[str]

    @property
    def n(self) -> int:
        """Features that would be decided on."""
        return len(self.targets)

    @property
    def is_possible(self) -> bool:
        """Whether they are few enough for one decision."""
        return self.n <= MAX_BATCH


def preview(queries: Queries, looked: Looked, chosen: TableFilter, kind: str) -> Preview:
    """What accepting (`accept`) or judging (`verdict`) everything that passes would do; people's decisions stay."""
    rows = passing(queries, looked.table, chosen)
    ids = rows["feature_id"].to_numpy()
    is_explained = rows["is_explained"].to_numpy(zero_copy_only=False)
    if kind == "accept":
        is_free = rows["status"].to_numpy(zero_copy_only=False) == "unreviewed"
        wanted = ids[is_free & is_explained].tolist()
        targets = [explanation_of(looked.sae_id, i) for i in wanted]
        sentence = f"{count_of(len(wanted), 'explanation')} will be accepted as they stand, in your name."
        unexplained = int((~is_explained & is_free).sum())
        notes = [f"{count_of(unexplained, 'feature')} without an explanation: nothing to accept."] * (unexplained > 0)
    else:
        is_free = ~rows["is_judged_by_person"].to_numpy(zero_copy_only=False)
        wanted = ids[is_free].tolist()
        targets = [relevance_of(looked.sae_id, i, looked.task) for i in wanted]
        sentence = (
            f"{count_of(len(wanted), 'feature')} will be judged, in your name; it wins over the machine's verdict."
        )
        notes = []
    decided = int((~is_free).sum())
    if decided:
        notes.append(f"{count_of(decided, 'feature')} that somebody decided on already: left as they are.")
    if len(wanted) > MAX_BATCH:
        notes.append(f"At most {count(MAX_BATCH)} at once; narrow the table first.")
    return Preview(targets, sentence, notes)


def batch_words(batch: Batch) -> str:
    """What a batch did, as a sentence without its end."""
    if batch.kind == "accept":
        return f"Accepted {count_of(batch.n_decisions, 'explanation')}"
    verdict = str(batch.payload.get("verdict", ""))
    return f"Judged {count_of(batch.n_decisions, 'feature')} “{verdict}”"
