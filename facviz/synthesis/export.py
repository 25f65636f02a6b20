"""The data set handed back: one JSON object a line, every sample traceable to feature, threshold and candidate."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

EXPORTED = (
    "text", "messages", "feature_id", "act", "act_threshold", "candidate_id", "synth_id", "strategy", "generator",
    "rng_seed", "review",
)  # fmt: skip


def sample_lines(samples: Iterable[Mapping[str, Any]], *, only_approved: bool = False) -> list[str]:
    """JSON lines of accepted samples nobody rejected, or only of approved ones; exactly the text that was verified."""
    lines = []
    for sample in samples:
        if not sample["accepted"]:
            raise ValueError(f"candidate {sample['candidate_id']} was not accepted")
        if sample["review"] == "rejected" or (only_approved and sample["review"] != "approved"):
            continue
        lines.append(json.dumps({name: sample[name] for name in EXPORTED}, ensure_ascii=False))
    return lines
