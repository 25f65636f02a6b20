"""The jobs page: every state with what can be done about it, logs only when opened, deletion asked once."""

from __future__ import annotations

import json

import pytest
from job_folders import make_job
from page_checks import complaints

from facviz.jobs import list_jobs

XSS = "<img src=x onerror=alert(1)> **bold** :red[x]"


def texts(app) -> list[str]:
    return [t.value for t in app.text]


def test_jobs_are_counted_by_where_they_stand(open_app, planted_root):
    for state in ("running", "waiting", "done", "done", "failed", "stopped", "interrupted"):
        make_job(planted_root, state)
    app = open_app(planted_root, "jobs")
    assert complaints(app) == []
    assert {m.label: m.value for m in app.metric} == {"Running": "1", "Waiting": "1", "Done": "2", "Not finished": "3"}
    assert [s.value for s in app.subheader] == ["At work", "Not finished", "Done"]


def test_without_jobs_the_page_says_what_will_be_here(open_app, planted_root):
    app = open_app(planted_root, "jobs")
    assert any("Nothing has run yet" in m.value for m in app.subheader)


@pytest.mark.parametrize(
    ("state", "offered"),
    [
        ("running", {"Stop"}),
        ("waiting", {"Stop"}),
        ("done", {"Delete"}),
        ("failed", {"Resume", "Delete"}),
        ("stopped", {"Resume", "Delete"}),
        ("interrupted", {"Resume", "Delete"}),
    ],
)
def test_each_state_offers_what_fits_it(open_app, planted_root, state, offered):
    make_job(planted_root, state)
    app = open_app(planted_root, "jobs")
    assert {b.label for b in app.button} == offered


def test_a_job_that_does_not_stop_can_be_ended_by_force_after_a_while(open_app, planted_root):
    import os
    import time

    folder = make_job(planted_root, "running")
    (folder / "stop_requested").touch()
    assert {b.label for b in open_app(planted_root, "jobs").button} == {"Stop"}
    past = time.time() - 60
    os.utime(folder / "stop_requested", (past, past))
    assert {b.label for b in open_app(planted_root, "jobs").button} == {"Stop", "End by force"}


def test_what_came_of_a_job_is_one_sentence(open_app, planted_root):
    result = {"n_explained": 20, "n_features": 25}
    make_job(planted_root, "done", ("explain",), result=result)
    make_job(planted_root, "failed", error=f"It broke: {XSS}")
    make_job(planted_root, "interrupted")
    shown = texts(open_app(planted_root, "jobs"))
    assert "20 of 25 features explained." in shown
    assert f"It broke: {XSS}" in shown
    assert any("Its process is gone" in text for text in shown)


def test_a_deleted_job_is_gone_and_only_that_one(open_app, planted_root):
    kept, gone = make_job(planted_root, "done", title="kept"), make_job(planted_root, "failed", title="gone")
    app = open_app(planted_root, "jobs")
    app.button(key=f"fv_jobs_do_{gone.name}_delete").click().run()
    assert complaints(app) == []
    assert [job.job_id for job in list_jobs(planted_root)] == [kept.name]
    assert not any("gone" in m.value for m in app.markdown)


def test_a_log_is_read_only_when_it_is_opened_and_shown_as_it_stands(open_app, planted_root):
    folder = make_job(planted_root, "failed", log=f"first\n{XSS}\n")
    app = open_app(planted_root, "jobs")
    assert not app.code
    app.session_state[f"fv_jobs_log_{folder.name}"] = True
    app.run()
    assert [c.value for c in app.code] == [f"first\n{XSS}"]


def test_titles_are_text_and_a_strange_page_is_no_link(open_app, planted_root):
    make_job(planted_root, "done", title=XSS, page="../../etc/passwd")
    make_job(planted_root, "done", title="fine", page="sae")
    app = open_app(planted_root, "jobs")
    assert complaints(app) == []
    assert any(r"\<img src=x onerror=alert\(1\)\> \*\*bold\*\*" in m.value for m in app.markdown)
    links = [link.proto.page for link in app.main.get("page_link")]
    assert links == ["sae"]


def test_a_folder_that_is_no_job_does_no_harm(open_app, planted_root):
    folder = make_job(planted_root, "done")
    (planted_root / "jobs" / "notes").mkdir()
    (folder / "job.json").write_text(json.dumps([1]))
    app = open_app(planted_root, "jobs")
    assert complaints(app) == []


def test_only_the_newest_of_many_are_drawn(open_app, planted_root):
    for i in range(33):
        make_job(planted_root, "done", title=f"number {i}")
    app = open_app(planted_root, "jobs")
    assert len([b for b in app.button if b.label == "Delete"]) == 30
    assert any("3 older ones are not shown" in c.value for c in app.caption)
