"""The overview page: the result at the top, the stages as cards, one primary button, and the report."""

from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq
import pytest
from job_folders import make_job
from page_checks import complaints

from facviz.cli.parser import build_parser
from facviz.store.manifest import Scope
from facviz.store.workspace import Workspace, open_workspace

STAGES_AFTER = {
    "spans": ("spans", "explain", "relevance", "coverage", "synthesize"),
    "explain": ("explain", "relevance", "coverage", "synthesize"),
    "relevance": ("relevance", "coverage", "synthesize"),
    "coverage": ("coverage", "synthesize"),
}


@pytest.fixture
def started(monkeypatch):
    """Jobs that the page asked for instead of starting them."""
    asked = []
    monkeypatch.setattr("facviz.ui.components.jobs.start_job", lambda root, **job: asked.append(job))
    return asked


def forget(root, stages):
    """Take these stages back out of a finished workspace."""
    path = root / "tables" / "manifest.jsonl"
    lines = [line for line in path.read_text().splitlines() if line]
    path.write_text("".join(f"{x}\n" for x in lines if json.loads(x)["scope"].split("/")[0] not in stages))


def shown_metrics(app):
    return {m.label: m.value for m in app.metric}


def html_of(app) -> str:
    return "\n".join(h.value for h in app.html)


def test_the_page_opens_with_fac_before_and_after_and_the_sentence(open_app, planted_root):
    app = open_app(planted_root)
    assert complaints(app) == []
    assert shown_metrics(app) == {
        "FAC before": "29 %",
        "Missing features": "12",
        "FAC after": "100 %",
        "Explanations reviewed": "0",
    }
    assert "12 new verified texts fill 12 of the 12 tried" in html_of(app)
    assert len(app.get("plotly_chart")) == 1


def test_there_is_one_primary_button_and_it_leads_to_the_review(open_app, planted_root):
    app = open_app(planted_root)
    assert [b.label for b in app.button if b.proto.type == "primary"] == ["Go to Review"]


@pytest.mark.parametrize("stage", ["spans", "explain", "coverage"])
def test_the_next_stage_is_started_as_a_job_the_command_line_takes(open_app, planted_root, started, stage):
    forget(planted_root, STAGES_AFTER[stage])
    app = open_app(planted_root)
    assert complaints(app) == []
    app.button(key="fv_overview_start").click().run()
    [job] = started
    assert job["page"] == "overview"
    assert job["arguments"][0] == stage
    parsed = build_parser().parse_args([*job["arguments"], "--workspace", "w", "--json", "--wait"])
    assert parsed.command == stage


def test_relevance_asks_for_task_and_label_first(open_app, planted_root, started):
    forget(planted_root, STAGES_AFTER["relevance"])
    app = open_app(planted_root)
    app.selectbox(key="fv_overview_task").set_value("helpfulness").run()
    app.selectbox(key="fv_overview_positive").set_value("0").run()
    app.button(key="fv_overview_start").click().run()
    assert {"--task=helpfulness", "--labels=anchor", "--positive=0"} < set(started[0]["arguments"])


def test_an_empty_workspace_leads_to_the_data(open_app, tmp_path):
    app = open_app(Workspace.create(tmp_path / "empty").root)
    assert complaints(app) == []
    assert any("Nothing has been compared yet" in m.value for m in app.subheader)
    assert not app.metric


def test_a_stage_at_work_is_shown_running_with_its_pace(open_app, planted_root):
    make_job(planted_root, "running", ("synthesize",), page="overview", title="Fill *12* features", done=3, total=12)
    app = open_app(planted_root)
    assert complaints(app) == []
    assert any("7 · Synthesis" in m.value and "running" in m.value for m in app.markdown)
    assert any(r"Fill \*12\* features" in m.value for m in app.markdown)


def test_of_several_coverage_runs_the_address_names_the_one_shown(open_app, planted_root):
    workspace = open_workspace(planted_root)
    with workspace.reader() as reader:
        table = reader.named("coverage")
        [run] = table.to_pylist()
    names = table.column_names
    other = table.set_column(names.index("coverage_id"), "coverage_id", [["0" * 12]])
    other = other.set_column(names.index("n_missing"), "n_missing", [[9]])
    scope = Scope("coverage", "0" * 12, "0" * 16)
    workspace.manifest.write_shard(scope, "coverage_run", "0", other)
    workspace.manifest.mark_done(scope, {"coverage_id": "0" * 12})
    newest = open_app(planted_root)
    assert shown_metrics(newest)["Missing features"] == "9"
    assert shown_metrics(newest)["FAC after"] == "–"
    named = open_app(planted_root, coverage=run["coverage_id"])
    assert shown_metrics(named)["Missing features"] == "12"
    [choice] = [s for s in named.selectbox if s.label == "Coverage run"]
    choice.set_value("0" * 12).run()
    assert shown_metrics(named)["Missing features"] == "9"
    assert named.query_params["coverage"] == "0" * 12


def test_the_report_that_downloads_is_the_librarys_own(open_app, planted_root, tmp_path):
    from facviz.pipeline.export import export
    from facviz.ui.components.overview import _report

    assert len(open_app(planted_root).get("download_button")) == 1
    export(open_workspace(planted_root), "report", tmp_path / "report.md", None)
    assert _report(planted_root) == (tmp_path / "report.md").read_bytes()


def test_hostile_names_show_as_text(open_app, planted_root):
    forget(planted_root, ("synthesize",))
    workspace = open_workspace(planted_root)
    with workspace.reader() as reader:
        run = reader.named("coverage")
    xss = "<img src=x onerror=alert(1)>"
    hostile = run.set_column(run.column_names.index("seed"), "seed", [[xss]])
    [path] = workspace.manifest.live_shards()["coverage_run"]
    pq.write_table(hostile, path)
    shutil.rmtree(planted_root / "facviz.duckdb", ignore_errors=True)
    app = open_app(planted_root)
    assert complaints(app) == []
    assert "<img" not in html_of(app)
    assert "&lt;img src=x onerror=alert(1)&gt;" in html_of(app)
