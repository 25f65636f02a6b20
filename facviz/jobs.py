"""Stages as child processes that outlive the page, the browser and the app that started them; their folders.

`<workspace>/jobs/<job_id>/` is all there is to know about a job:

- `job.json`, written once by the starter: title, page, arguments, working folder, when it was asked for;
- `status.json`, replaced as a whole by the starter and then by the child: state, process, stage, pace, times, error;
- `stop_requested`, empty: a person asked for the end, so a process found dead was stopped, not interrupted;
- `log.txt`, standard error of the child, appended over resumes;
- `result.json`, the child's JSON object, whole before the state becomes done.

Whoever starts a process holds the folder's lock until `status.json` names it; the child's first write waits for that.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from facviz.errors import FacvizError, InputError
from facviz.files import disk_errors, write_text_atomically

JOB_VARIABLE = "FACVIZ_JOB"
"""Environment variable that tells a child which job's folder it reports to."""
KILL_AFTER_SECONDS = 10.0
"""How long a job may take to stop by itself before it can be killed."""

_ASKED, _STATUS, _RESULT, _LOG, _STOP = "job.json", "status.json", "result.json", "log.txt", "stop_requested"
_JOB_ID = re.compile(r"[0-9]{8}T[0-9]{12}-[0-9a-f]{6}")
_SAME_PROCESS_SECONDS = 2.0  # between two readings of one start time, which move with the system clock


class JobState(StrEnum):
    """Where a job stands."""

    WAITING = "waiting"  # for the stage that holds the workspace's lock
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"  # the process is gone without a word: killed, or the machine went down


_ACTIVE = (JobState.WAITING, JobState.RUNNING)
_RESUMABLE = (JobState.FAILED, JobState.STOPPED, JobState.INTERRUPTED)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its folder shows it now; times in seconds since 1970, rate in units per second."""

    job_id: str
    title: str
    page: str
    arguments: tuple[str, ...]
    created_at: float
    started_at: float | None
    updated_at: float | None
    ended_at: float | None
    stop_requested_at: float | None
    state: JobState
    stage: str
    done: float
    total: float | None
    rate: float | None
    eta_seconds: float | None
    note: str
    error: str
    result: dict[str, Any] | None

    @property
    def is_active(self) -> bool:
        """Waiting or running."""
        return self.state in _ACTIVE

    @property
    def can_resume(self) -> bool:
        """Ended before it was done."""
        return self.state in _RESUMABLE

    @property
    def can_kill(self) -> bool:
        """Asked to stop `KILL_AFTER_SECONDS` ago and still active."""
        asked = self.stop_requested_at
        return self.is_active and asked is not None and time.time() - asked >= KILL_AFTER_SECONDS

    @property
    def progress(self) -> float | None:
        """Share of the current stage, 0 to 1; None while its length is unknown."""
        if self.state is JobState.DONE:
            return 1.0
        return min(1.0, max(0.0, self.done / self.total)) if self.total else None


def start_job(root: Path, *, title: str, page: str, arguments: Sequence[str]) -> Job:
    """Start `facviz ARGUMENTS --workspace ROOT --json --wait` in a session of its own.

    Raises:
        InputError: the workspace folder is missing or the process cannot be started.
        WorkspaceError: the job's folder cannot be written.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise InputError(f"{root} is no folder; open a workspace before starting a job.")
    now = datetime.now(UTC)
    job_id = f"{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"
    folder = root / "jobs" / job_id
    with disk_errors(folder):
        folder.mkdir(parents=True)
    asked = {
        "title": title,
        "page": page,
        "arguments": list(arguments),
        "cwd": str(Path.cwd()),
        "created_at": now.timestamp(),
    }
    with _locked(folder):
        write_text_atomically(folder / _ASKED, json.dumps(asked))
        _launch(folder, asked)
    return read_job(root, job_id)


def list_jobs(root: Path) -> list[Job]:
    """All readable jobs of a workspace, newest first."""
    jobs = []
    for path in sorted(Path(root).glob("jobs/*"), reverse=True):
        if _JOB_ID.fullmatch(path.name):
            with contextlib.suppress(FacvizError):  # half-made or deleted a moment ago
                jobs.append(read_job(root, path.name))
    return jobs


def read_job(root: Path, job_id: str) -> Job:
    """One job, its state corrected when its process is gone; raises InputError for an unknown or malformed id."""
    folder = _folder(root, job_id)
    asked, status = _read(folder / _ASKED), _read(folder / _STATUS)
    if not asked:
        raise InputError(f"There is no job {job_id} in this workspace; choose one from the list of jobs.")
    if _is_orphan(status):
        with _locked(folder):  # its starter may be about to name the process, or it ended since
            status = _settled(folder)
    state = _state(status)
    return Job(
        job_id=job_id,
        title=asked.get("title", ""),
        page=asked.get("page", ""),
        arguments=tuple(asked.get("arguments", ())),
        created_at=asked.get("created_at", 0.0),
        started_at=status.get("started_at"),
        updated_at=status.get("updated_at"),
        ended_at=status.get("ended_at"),
        stop_requested_at=_modified_at(folder / _STOP),
        state=state,
        stage=status.get("stage", ""),
        done=status.get("done", 0.0),
        total=status.get("total"),
        rate=status.get("rate"),
        eta_seconds=status.get("eta_seconds"),
        note=status.get("note", ""),
        error=status.get("error", ""),
        result=_read(folder / _RESULT) if state is JobState.DONE else None,
    )


def stop_job(root: Path, job_id: str, *, kill: bool = False) -> Job:
    """Ask a job and its children to end, or kill them once asking did not help; an ended job stays as it is.

    Raises:
        InputError: `kill` less than `KILL_AFTER_SECONDS` after the first request.
    """
    job, folder = read_job(root, job_id), _folder(root, job_id)
    if not job.is_active:
        return job
    if kill and not job.can_kill:
        raise InputError(f"A job can be killed {KILL_AFTER_SECONDS:.0f} seconds after it was asked to stop; wait.")
    if job.stop_requested_at is None:
        with disk_errors(folder):
            (folder / _STOP).touch()
    status = _read(folder / _STATUS)
    if _is_alive(status):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(status["pid"], signal.SIGKILL if kill else signal.SIGTERM)
    return read_job(root, job_id)


def resume_job(root: Path, job_id: str) -> Job:
    """Start an unfinished job again in its folder; raises InputError while it is active or when it is done."""
    job, folder = read_job(root, job_id), _folder(root, job_id)
    with _locked(folder):
        state = _state(_settled(folder))
        if state not in _RESUMABLE:
            advice = "wait for it or stop it first" if state in _ACTIVE else "start a new one"
            raise InputError(f"The job {job.title!r} is {state}; {advice}.")
        (folder / _STOP).unlink(missing_ok=True)
        _launch(folder, _read(folder / _ASKED))
    return read_job(root, job_id)


def read_log(root: Path, job_id: str, max_bytes: int = 20_000) -> str:
    """The end of a job's log, whole lines; untrusted text, to be escaped by whoever shows it."""
    try:
        with (_folder(root, job_id) / _LOG).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            tail = file.read(max_bytes)
    except FileNotFoundError:
        return ""
    if size > max_bytes and b"\n" in tail:
        tail = tail.split(b"\n", 1)[1]
    return tail.decode("utf-8", errors="replace")


def delete_job(root: Path, job_id: str) -> None:
    """Remove an ended job's folder; what it wrote into the workspace stays. Raises InputError while it is active."""
    if read_job(root, job_id).is_active:
        raise InputError("A job that is still running cannot be deleted; stop it first.")
    folder = _folder(root, job_id)
    with disk_errors(folder):
        shutil.rmtree(folder)


class JobReport:
    """The child's side: what a process says about the job it is; says nothing when it is none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @classmethod
    def from_environment(cls) -> JobReport:
        """The job that `FACVIZ_JOB` names, if any."""
        folder = os.environ.get(JOB_VARIABLE)
        return cls(Path(folder) if folder and (Path(folder) / _ASKED).is_file() else None)

    @property
    def is_job(self) -> bool:
        """Whether anybody reads this."""
        return self._folder is not None

    def begin(self) -> None:
        """Name this process once more, in case the starter died before it could."""
        if self._folder is not None:
            with _locked(self._folder):
                _write_status(self._folder, _running(os.getpid()))

    def waiting(self) -> None:
        """Another stage holds the workspace."""
        self._tell(state=JobState.WAITING)

    def running(self) -> None:
        """The workspace is ours."""
        self._tell(state=JobState.RUNNING)

    def progress(self, values: Mapping[str, object]) -> None:
        """Some of `stage`, `done`, `total`, `note`, `rate` and `eta_seconds`."""
        self._tell(**values)

    def done(self, result: Mapping[str, Any]) -> None:
        """The result, durable before anybody can read that there is one."""
        if self._folder is not None:
            write_text_atomically(self._folder / _RESULT, json.dumps(result, ensure_ascii=False))
            self._end(JobState.DONE)

    def failed(self, sentence: str) -> None:
        """Why it could not run."""
        self._end(JobState.FAILED, error=sentence)

    def stopped(self) -> None:
        """Ended on request."""
        self._end(JobState.STOPPED)

    def _end(self, state: JobState, **more: object) -> None:
        self._tell(state=state, ended_at=time.time(), rate=None, eta_seconds=None, **more)

    def _tell(self, **changes: object) -> None:
        if self._folder is not None:
            with contextlib.suppress(OSError):  # a full disk ends the stage where its work is lost, not here
                _write_status(self._folder, _read(self._folder / _STATUS) | changes)


def _launch(folder: Path, asked: Mapping[str, Any]) -> None:
    """Start the process and name it in `status.json`; the caller holds the folder's lock."""
    words = [*asked["arguments"], "--workspace", str(folder.parents[1]), "--json", "--wait"]
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {JOB_VARIABLE: str(folder), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    try:
        with (folder / _LOG).open("ab") as log:
            log.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC  facviz {shlex.join(words)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [sys.executable, "-m", "facviz", *words],
                cwd=asked["cwd"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
    except (OSError, ValueError) as error:  # a folder that is gone, a NUL in a name, a full disk
        reason = f"The job could not be started ({error}); correct what it was given and start a new one."
        with disk_errors(folder):
            _write_status(folder, {"state": JobState.FAILED, "error": reason, "ended_at": time.time()})
        raise InputError(reason) from error
    with disk_errors(folder):
        _write_status(folder, _running(process.pid))
    threading.Thread(target=process.wait, name=f"reaper of {folder.name}", daemon=True).start()


def _folder(root: Path, job_id: str) -> Path:
    if not _JOB_ID.fullmatch(job_id):
        raise InputError("That is not the id of a job; choose one from the list of jobs.")
    return Path(root).resolve() / "jobs" / job_id


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other starters, and readers in doubt, out of a job's folder."""
    with disk_errors(folder):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _settled(folder: Path) -> dict[str, Any]:
    """The status, with a process that is gone put right; final only under the folder's lock."""
    status = _read(folder / _STATUS)
    if not _is_orphan(status):
        return status
    state = JobState.STOPPED if (folder / _STOP).exists() else JobState.INTERRUPTED
    return status | {"state": state, "ended_at": status.get("updated_at"), "rate": None, "eta_seconds": None}


def _is_orphan(status: Mapping[str, Any]) -> bool:
    return _state(status) in _ACTIVE and not _is_alive(status)


def _is_alive(status: Mapping[str, Any]) -> bool:
    """Whether the very process runs, not another one under the same number."""
    try:
        process = psutil.Process(status["pid"])
        same = bool(abs(process.create_time() - status["process_created_at"]) < _SAME_PROCESS_SECONDS)
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (KeyError, psutil.Error):
        return False


def _running(pid: int) -> dict[str, Any]:
    created_at = psutil.Process(pid).create_time()
    return {"state": JobState.RUNNING, "pid": pid, "process_created_at": created_at, "started_at": time.time()}


def _state(status: Mapping[str, Any]) -> JobState:
    """As written; a status that is not there yet is its starter's to write, so it counts as running."""
    return JobState(status.get("state", JobState.RUNNING))


def _write_status(folder: Path, status: Mapping[str, Any]) -> None:
    """Replace `status.json`; not flushed to disk, for after a power cut the process is gone anyway."""
    temporary = folder / f".{_STATUS}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps({**status, "updated_at": time.time()}), encoding="utf-8")
    temporary.replace(folder / _STATUS)


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty when there is none or a power cut damaged it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _modified_at(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None
