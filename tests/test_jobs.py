"""Jobs as real processes on planted workspaces: done, failed, waiting, stopped, killed, resumed, orphaned."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from facviz import jobs, open_workspace
from facviz.errors import InputError
from facviz.jobs import Job, JobReport, JobState
from facviz.store.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parents[1]
DEADLINE_SECONDS = 120
COVERAGE = ("coverage", "--task", "toxicity", "--anchor", "anchor", "--seed", "seed", "--kind", "absolute")
STRANGE_IDS = ["../x", "", ".", "20260205T162633123456-a1b2c3/..", "20260205T162633123456-a1b2c3\n", "x" * 300]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.delenv("FACVIZ_WORKSPACE", raising=False)


@pytest.fixture
def root(loop_copy):
    """A workspace in which the loop has run; every process still at work when the test ends is killed by its number."""
    workspace = loop_copy / "workspace"
    yield workspace
    end_all(workspace)


@pytest.fixture
def fresh(planted_loop, tmp_path):
    """An empty workspace, and the arguments that run the whole loop in it."""
    workspace = Workspace.create(tmp_path / "fresh").root
    yield workspace, ("run", str(planted_loop / "planted.toml"))
    end_all(workspace)


def process_of(root: Path, job: Job) -> psutil.Process | None:
    """The job's process by its recorded number, None once it is gone."""
    status = json.loads((root / "jobs" / job.job_id / "status.json").read_text(encoding="utf-8"))
    try:
        process = psutil.Process(status["pid"])
        return process if abs(process.create_time() - status["process_created_at"]) < 2 else None
    except (KeyError, psutil.NoSuchProcess):
        return None


def end_all(root: Path) -> None:
    for job in jobs.list_jobs(root):
        if job.is_active and (process := process_of(root, job)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def until(root: Path, job: Job, holds) -> Job:
    """The job as soon as a condition on it holds; never, when it has ended without."""
    give_up = time.monotonic() + DEADLINE_SECONDS
    while not holds(found := jobs.read_job(root, job.job_id)):
        if not found.is_active or time.monotonic() > give_up:
            pytest.fail(f"{found}\n{jobs.read_log(root, job.job_id)}")
        time.sleep(0.02)
    return found


def ended(root: Path, job: Job) -> Job:
    return until(root, job, lambda found: not found.is_active)


def start(root: Path, *arguments: str, title: str = "Measure") -> Job:
    return jobs.start_job(root, title=title, page="coverage", arguments=arguments)


def result_without_place_and_time(job: Job) -> dict:
    return {key: value for key, value in (job.result or {}).items() if key not in ("workspace", "seconds")}


def rows_of(root: Path) -> list[str]:
    workspace = open_workspace(root)
    return [
        repr(getattr(workspace, table)().to_pylist()) for table in ("features", "explanations", "coverage", "samples")
    ]


def test_a_started_job_ends_done_with_the_object_the_command_prints(root):
    job = start(root, *COVERAGE, "--threshold", "2", title="FAC at δ 2")
    assert (job.state, job.title, job.page) == (JobState.RUNNING, "FAC at δ 2", "coverage")
    assert (job.is_active, job.can_resume, job.can_kill, job.result) == (True, False, False, None)
    done = ended(root, job)
    assert (done.state, done.error, done.progress) == (JobState.DONE, "", 1.0)
    assert (done.result["fac"], done.result["n_missing"]) == (0.25, 9)
    assert done.arguments == (*COVERAGE, "--threshold", "2")
    assert done.created_at <= done.started_at <= done.ended_at <= done.updated_at
    command = [sys.executable, "-m", "facviz", *done.arguments, "--workspace", str(root), "--json"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE_SECONDS)
    assert json.loads(told.stdout) == done.result
    assert "facviz coverage --task toxicity" in jobs.read_log(root, job.job_id)


def test_a_job_that_cannot_run_fails_with_the_sentence_of_the_command_line(root):
    job = ended(root, start(root, *COVERAGE[:-3], "nowhere"))
    assert (job.state, job.can_resume, job.result) == (JobState.FAILED, True, None)
    assert "nowhere" in job.error
    assert job.error.count("\n") == 0
    assert f"facviz: {job.error}" in jobs.read_log(root, job.job_id)


def test_words_the_command_line_does_not_know_fail_with_a_sentence_too(root):
    job = ended(root, start(root, "coverage", "--what"))
    assert job.state is JobState.FAILED
    assert job.error.startswith("The following arguments are required: --task")


def test_an_unexpected_error_is_a_failure_with_its_traceback_in_the_log(root):
    (root / "workspace.json").write_text('{"schema": 1, "backbone": 5}')
    job = ended(root, start(root, "data", "add", str(REPOSITORY / "README.md"), "--name", "readme"))
    assert (job.state, job.error) == (
        JobState.FAILED,
        "Something unexpected happened (TypeError); the log shows where.",
    )
    assert "Traceback" in jobs.read_log(root, job.job_id)


def test_a_job_stopped_then_killed_resumes_to_the_ids_of_an_uninterrupted_one(fresh, planted_loop):
    root, arguments = fresh
    job = until(root, start(root, *arguments), lambda found: found.stage == "spans")
    jobs.stop_job(root, job.job_id)
    stopped = ended(root, job)
    assert (stopped.state, stopped.can_resume, stopped.result) == (JobState.STOPPED, True, None)
    assert stopped.stop_requested_at is not None
    assert jobs.stop_job(root, job.job_id) == stopped  # nothing left to stop
    assert "facviz: stopped" in jobs.read_log(root, job.job_id)

    again = jobs.resume_job(root, job.job_id)
    assert (again.job_id, again.state, again.stop_requested_at) == (job.job_id, JobState.RUNNING, None)
    with pytest.raises(InputError, match="is running; wait for it or stop it first"):
        jobs.resume_job(root, job.job_id)
    until(root, job, lambda found: found.stage == "synthesize features")
    process_of(root, job).kill()
    cut = ended(root, job)
    assert (cut.state, cut.can_resume, cut.result, cut.error) == (JobState.INTERRUPTED, True, None, "")
    assert (cut.stage, cut.ended_at, cut.rate, cut.eta_seconds) == ("synthesize features", cut.updated_at, None, None)
    assert 0 < cut.progress < 1

    jobs.resume_job(root, job.job_id)
    assert ended(root, job).state is JobState.DONE
    assert rows_of(root) == rows_of(planted_loop / "workspace")
    assert jobs.read_log(root, job.job_id).count("UTC  facviz run") == 3
    assert [found.job_id for found in jobs.list_jobs(root)] == [job.job_id]


def test_of_two_jobs_at_once_each_waits_for_the_workspace_and_both_finish(root):
    with open_workspace(root).lock():
        both = [start(root, *COVERAGE, "--threshold", threshold) for threshold in ("2", "4")]
        waiting = [until(root, job, lambda found: found.state is JobState.WAITING) for job in both]
        assert [job.is_active for job in waiting] == [True, True]
    assert [ended(root, job).result["n_missing"] for job in both] == [9, 3]
    assert [job.job_id for job in jobs.list_jobs(root)] == [job.job_id for job in reversed(both)]
    log = jobs.read_log(root, both[0].job_id)
    assert log.count("Waiting for another facviz") == 1


def test_a_job_that_does_not_end_by_itself_can_be_killed_and_counts_as_stopped(root, monkeypatch):
    with open_workspace(root).lock():
        job = until(root, start(root, *COVERAGE), lambda found: found.state is JobState.WAITING)
        process = process_of(root, job)
        process.suspend()  # deaf to SIGTERM until it goes on
        with pytest.raises(InputError, match="10 seconds after it was asked to stop"):
            jobs.stop_job(root, job.job_id, kill=True)
        asked = jobs.stop_job(root, job.job_id)
        assert (asked.is_active, asked.can_kill) == (True, False)
        monkeypatch.setattr(jobs, "KILL_AFTER_SECONDS", 0.0)
        assert jobs.read_job(root, job.job_id).can_kill
        jobs.stop_job(root, job.job_id, kill=True)
        assert ended(root, job).state is JobState.STOPPED
        process.wait(10)


def test_a_job_outlives_the_process_that_started_it(root, run_python):
    job_id = run_python(
        "import sys; from facviz.jobs import start_job\n"
        "print(start_job(sys.argv[1], title='t', page='p', arguments=sys.argv[2:]).job_id)",
        root,
        *COVERAGE,
    )
    [job] = jobs.list_jobs(root)
    assert (job.job_id, job.is_active) == (job_id, True)
    assert ended(root, job).result["n_missing"] == 12


def test_an_ended_child_is_reaped_by_the_app_that_started_it(root):
    job = start(root, "coverage", "--what")
    process = process_of(root, job)
    ended(root, job)
    process.wait(10)
    assert not process.is_running()


def test_another_process_under_the_same_number_is_not_the_job(root):
    job = ended(root, start(root, "coverage", "--what"))
    path = root / "jobs" / job.job_id / "status.json"
    status = json.loads(path.read_text()) | {"state": "running", "pid": os.getpid()}
    path.write_text(json.dumps(status))
    assert jobs.read_job(root, job.job_id).state is JobState.INTERRUPTED
    path.write_text(json.dumps(status | {"process_created_at": psutil.Process().create_time()}))
    assert jobs.read_job(root, job.job_id).state is JobState.RUNNING
    path.write_text(json.dumps(status))


def test_a_status_damaged_by_a_power_cut_is_an_interruption_that_can_be_resumed(root):
    job = ended(root, start(root, *COVERAGE))
    (root / "jobs" / job.job_id / "status.json").write_bytes(b"\0" * 40)
    assert jobs.read_job(root, job.job_id).state is JobState.INTERRUPTED
    jobs.resume_job(root, job.job_id)
    assert ended(root, job).result == job.result


@pytest.mark.parametrize("job_id", STRANGE_IDS)
def test_an_id_from_an_address_must_look_like_one(root, job_id):
    (root / "x").mkdir()
    shutil.copy(root / "workspace.json", root / "x" / "job.json")
    for call in (jobs.read_job, jobs.stop_job, jobs.resume_job, jobs.read_log, jobs.delete_job):
        with pytest.raises(InputError, match="not the id of a job"):
            call(root, job_id)


def test_an_unknown_job_is_one_sentence_and_foreign_folders_are_no_jobs(root):
    (root / "jobs" / "notes").mkdir(parents=True)
    (root / "jobs" / "20260205T162633123456-a1b2c3").mkdir()  # its starter died before it wrote anything
    assert jobs.list_jobs(root) == []
    with pytest.raises(InputError, match=r"There is no job 20260205T162633123456-ffffff"):
        jobs.read_job(root, "20260205T162633123456-ffffff")


def test_only_an_ended_job_is_deleted(root):
    with open_workspace(root).lock():
        job = start(root, *COVERAGE)
        with pytest.raises(InputError, match="stop it first"):
            jobs.delete_job(root, job.job_id)
        jobs.stop_job(root, job.job_id)
        ended(root, job)
    jobs.delete_job(root, job.job_id)
    assert jobs.list_jobs(root) == []


def test_what_cannot_be_started_is_refused_and_stays_on_record(root):
    with pytest.raises(InputError, match="could not be started"):
        start(root, "coverage", "--task", "a\0b")
    [job] = jobs.list_jobs(root)
    assert (job.state, job.can_resume) == (JobState.FAILED, True)
    with pytest.raises(InputError, match="no folder"):
        start(root / "nowhere", *COVERAGE)


def test_a_done_job_is_not_resumed(root):
    job = ended(root, start(root, *COVERAGE))
    with pytest.raises(InputError, match="'Measure' is done; start a new one"):
        jobs.resume_job(root, job.job_id)


def test_arguments_are_words_and_never_a_shell(root, tmp_path):
    witness = tmp_path / "witness"
    job = ended(root, start(root, "data", "add", f"$(touch {witness}); touch {witness}", "--name", "x"))
    assert job.state is JobState.FAILED
    assert not witness.exists()


def test_the_log_is_cut_to_its_last_whole_lines_and_read_as_text_whatever_it_holds(root):
    job = ended(root, start(root, "coverage", "--what"))
    path = root / "jobs" / job.job_id / "log.txt"
    path.write_bytes(b"first\n" * 10 + b"\xff<b>last</b>\n")
    assert jobs.read_log(root, job.job_id, max_bytes=18) == "\ufffd<b>last</b>\n"
    assert jobs.read_log(root, job.job_id).startswith("first\nfirst\n")
    path.unlink()
    assert jobs.read_log(root, job.job_id) == ""


def test_progress_is_a_share_and_unknown_without_a_total(root):
    job = ended(root, start(root, "coverage", "--what"))
    report = JobReport(root / "jobs" / job.job_id)
    for done, total, share in ((3, 4, 0.75), (3, None, None), (9, 4, 1.0), (0, 0, None)):
        report.progress({"stage": "spans", "done": done, "total": total})
        assert jobs.read_job(root, job.job_id).progress == share


def test_outside_a_job_nothing_is_reported(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.json").write_text("{}")
    for value in (None, "", str(tmp_path / "nowhere")):
        monkeypatch.delenv("FACVIZ_JOB", raising=False)
        if value is not None:
            monkeypatch.setenv("FACVIZ_JOB", value)
        report = JobReport.from_environment()
        report.begin()
        report.failed("nothing")
        assert not report.is_job
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


def test_a_full_disk_does_not_end_a_stage_through_its_progress(tmp_path):
    report = JobReport(tmp_path / "deleted")
    report.progress({"stage": "spans"})
    assert list(tmp_path.iterdir()) == []


def test_importing_jobs_loads_nothing_heavy(run_python):
    heavy = "torch", "transformers", "sentence_transformers", "streamlit", "duckdb", "pyarrow"
    assert run_python(f"import sys, facviz.jobs\nprint([name for name in {heavy} if name in sys.modules])") == "[]"


def test_signals_meant_for_the_app_do_not_reach_its_jobs(root):
    """Ctrl-C in the app's terminal goes to the app's group: the job is in one of its own."""
    job = start(root, *COVERAGE)
    process = process_of(root, job)
    assert os.getpgid(process.pid) == os.getsid(process.pid) == process.pid != os.getpgid(0)
    os.killpg(process.pid, signal.SIGTERM)
    assert not ended(root, job).is_active
