"""Job folders as a job leaves them, in every state, without a process."""

from __future__ import annotations

import json
import os
import time

import psutil

_COUNTER = iter(range(10**6))


def make_job(root, state, arguments=("spans",), *, page="sae", title="Read features", log="", result=None, **status):
    """Write a job's folder; an active one claims to be this very process. Later calls are newer jobs."""
    number = next(_COUNTER)
    now = time.time()
    folder = root / "jobs" / f"20261122T120000{number:06d}-{number:06x}"
    folder.mkdir(parents=True)
    asked = {"title": title, "page": page, "arguments": list(arguments), "cwd": str(root), "created_at": now - 100}
    told = {"state": state, "started_at": now - 90, "updated_at": now - 1}
    if state in ("running", "waiting"):
        process = psutil.Process(os.getpid())
        told |= {"pid": process.pid, "process_created_at": process.create_time()}
    else:
        told |= {"ended_at": now - 30}
    (folder / "job.json").write_text(json.dumps(asked))
    (folder / "status.json").write_text(json.dumps(told | status))
    (folder / "log.txt").write_text(log)
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))
    return folder
