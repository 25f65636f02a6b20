"""Finished batches of a synthesis run on disk, so that nothing is generated or paid for twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from facviz.files import append_line, read_lines
from facviz.pipeline.session import Session
from facviz.records import Candidate
from facviz.synthesis.plan import BatchPlace
from facviz.synthesis.results import restore_candidate


class FileLedger:
    """One line a batch, fsynced, found by its place and never by its line; tells progress as batches are finished.

    `standing` is added to that: how far the whole run is.
    """

    def __init__(self, session: Session, synth_id: str, standing: Callable[[], str] = lambda: "") -> None:
        self._session, self._standing = session, standing
        self._path = session.workspace.root / "synthesis" / f"{synth_id}.jsonl"
        self._batches = {self._key(e): e["candidates"] for e in read_lines(self._path)}
        self.n_candidates = sum(len(batch) for batch in self._batches.values())

    def recall(self, place: BatchPlace) -> list[Candidate] | None:
        """The batch at this place if it was finished before."""
        found = self._batches.get((place.feature_id, place.step, place.round))
        return None if found is None else [restore_candidate(row) for row in found]

    def record(self, place: BatchPlace, candidates: Sequence[Candidate]) -> None:
        """Durable before this returns."""
        rows = [dataclasses.asdict(c) for c in candidates]
        entry = {"feature_id": place.feature_id, "step": place.step, "round": place.round, "candidates": rows}
        append_line(self._path, entry)
        self.n_candidates += len(rows)
        note = f"candidates, feature {place.feature_id}, {place.step} batch {place.round}{self._standing()}"
        self._session.progress.update("synthesize", self.n_candidates, None, note)

    @staticmethod
    def _key(entry: Mapping[str, Any]) -> tuple[int, str, int]:
        return entry["feature_id"], entry["step"], entry["round"]
