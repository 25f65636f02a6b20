"""The stakeholders' report: the numbers of the planted loop, and nothing from outside as markup."""

from __future__ import annotations

import json

import pytest

from facviz.errors import InputError
from facviz.store.database import Database
from facviz.store.events import explanation_of
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.store.workspace import Workspace
from facviz.views.report import stakeholder_report

NASTY = "<img src=x onerror=alert(1)> & \u202e"


def report(database):
    return stakeholder_report(database, database.workspace.manifest)


def test_it_tells_the_gap_and_what_filled_it(database):
    page, counts = report(database)
    assert counts["n_samples"] == 12
    assert "5 of the 17 features" in page
    assert "12 are missing" in page
    assert "12 verified texts fill 12 of them: FAC 100 %" in page
    assert "0 features stay missing" in page
    for heading in ("The gap, by theme", "The texts", "What remains", "Method", "Inputs", "Limits"):
        assert f"<h2>{heading}</h2>" in page
    assert "<script" not in page
    assert "http-equiv" in page


def test_texts_names_and_explanations_are_text(database):
    workspace = database.workspace
    [run] = workspace.coverage().to_pylist()
    database.record("ann", explanation_of(run["sae_id"], 12), "edit", {"text": NASTY})
    [row] = [s for s in workspace.samples().to_pylist() if s["feature_id"] == 12]
    names = rows_to_arrow("candidate", []).column_names
    changed = {name: row[name] for name in names} | {"text": NASTY, "generator": NASTY}
    key = next(iter(workspace.manifest.latest_done("synthesize")))
    scope = Scope("synthesize", key, workspace.manifest.latest_fingerprint(f"synthesize/{key}"))
    workspace.manifest.write_shard(scope, "candidate", "12", rows_to_arrow("candidate", [changed]))
    database.sync()
    page, _ = report(database)
    assert "<img" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") >= 3
    assert "\u202e" not in page


def test_an_evaluation_of_the_run_stands_in_it(database, evaluation_summary):
    scope = Scope("evaluate", "e" * 12, "e" * 16)
    [run] = database.workspace.coverage().to_pylist()
    summary = evaluation_summary | {"coverage_id": run["coverage_id"]}
    database.workspace.manifest.mark_done(scope, summary)
    page, counts = report(database)
    assert counts["n_evaluations"] == 1
    assert "<h2>Whether it helps</h2>" in page
    assert "lifts AUPRC from 0.525 to 0.949" in page
    other = summary | {"coverage_id": "another"}
    database.workspace.manifest.mark_done(scope, other)
    assert report(database)[1]["n_evaluations"] == 0


def test_without_coverage_there_is_nothing_to_report(tmp_path):
    with Database(Workspace.create(tmp_path / "empty")) as database:
        database.sync()
        with pytest.raises(InputError, match="nothing to report yet"):
            report(database)


def test_the_summary_fixture_is_json(evaluation_summary):
    assert json.loads(json.dumps(evaluation_summary)) == evaluation_summary
