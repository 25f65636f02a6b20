"""The evaluation page on the planted run: empty states, a job to its end, and what it then says."""

from __future__ import annotations

import json
import random

from page_checks import complaints, shown

from facviz.config import DatasetConfig, load_run_config
from facviz.jobs import JobState, list_jobs
from facviz.pipeline.data import add_dataset
from facviz.pipeline.session import Session
from facviz.store.manifest import Scope
from facviz.store.workspace import Workspace, open_workspace
from facviz.testing.fakes import SilentProgress
from facviz.testing.workspaces import COMPANIONS, MARKED, NEUTRALS


def add_heldout(loop_copy):
    """40 texts in random word order, half with marked words."""
    rng = random.Random(1)
    rows = []
    for number in range(40):
        words = rng.sample(MARKED, 2) if number % 2 else []
        words += rng.sample([*COMPANIONS, *NEUTRALS], 8 - len(words))
        rng.shuffle(words)
        rows.append(json.dumps({"text": " ".join(words), "label": str(number % 2)}) + "\n")
    path = loop_copy / "heldout.jsonl"
    path.write_text("".join(rows), encoding="utf-8")
    workspace = open_workspace(loop_copy / "workspace")
    session = Session(workspace, load_run_config(loop_copy / "planted.toml").backbone, SilentProgress())
    add_dataset(session, DatasetConfig("heldout", str(path), role="eval", roles=("user",)))


def test_an_empty_workspace_says_what_comes_first(open_app, tmp_path):
    app = open_app(Workspace.create(tmp_path / "empty").root, "evaluation")
    assert complaints(app) == []
    assert any("Nothing to evaluate yet" in s.value for s in app.subheader)
    assert not app.button


def test_a_job_is_started_and_its_answer_shown(open_app, loop_copy, planted_root, wait_until):
    add_heldout(loop_copy)
    app = open_app(planted_root, "evaluation")
    assert complaints(app) == []
    assert any("Nothing measured yet" in s.value for s in app.subheader)
    app.number_input(key="fv_evaluation_seeds").set_value(1).run()
    app.button(key="fv_evaluation_start").click().run()
    assert complaints(app) == []
    [job] = list_jobs(planted_root)
    assert (job.page, job.arguments[0]) == ("evaluation", "evaluate")
    done = wait_until(lambda: next((j for j in list_jobs(planted_root) if not j.is_active), None))
    assert done.state is JobState.DONE, done.error
    app.run()
    assert complaints(app) == []
    assert {m.label for m in app.metric} == {
        "Seed set alone",
        "With 12 samples",
        "With 12 real texts",
        "All real texts",
    }
    assert len(app.get("plotly_chart")) == 4
    words = shown(app)
    assert "prevalence 0.5" in words
    assert "nobody judged it" in words
    assert any(b.label == "Measure again" for b in app.button)


def test_hostile_labels_are_shown_as_text(open_app, planted_root, evaluation_summary):
    nasty = "<img src=x onerror=alert(1)>"
    summary = evaluation_summary | {"positive": [nasty], "test": nasty, "task": nasty}
    for name in ("a", "b"):
        told = summary | {"eval_id": name * 12}
        open_workspace(planted_root).manifest.mark_done(Scope("evaluate", name * 12, name * 16), told)
    app = open_app(planted_root, "evaluation", evaluation="a" * 12)
    assert complaints(app) == []
    assert app.selectbox(key="fv_evaluation_which").value == "a" * 12
    html = "\n".join(e.value for e in app.get("html"))
    assert "<img" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
