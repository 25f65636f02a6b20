"""What a job's books say after it was killed: replies on disk and the money committed at any time."""

from __future__ import annotations

import json


def recorded(root):
    """Recorded replies by file, with what shows that one was written again."""
    return {path: path.stat().st_ino for path in (root / "llm" / "replies").glob("*/*.json")}


def most_committed(root) -> float:
    """The highest sum of what was spent and reserved, at any line of the ledger."""
    worst, total, most = {}, 0.0, 0.0
    for line in (root / "llm" / "ledger.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["event"] == "reserved":
            worst[entry["call_id"]] = entry["worst_usd"]
            total += entry["worst_usd"]
        else:
            total += (entry["usd"] or 0.0) - worst.pop(entry["call_id"])
        most = max(most, total)
    return most
