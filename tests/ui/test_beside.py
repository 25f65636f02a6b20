"""Other tools beside the open dashboard: they read and write, the page follows, and no decision depends on its file."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from page_checks import complaints, shown

from facviz.store.database import DATABASE_FILE
from facviz.store.events import explanation_of
from facviz.store.workspace import open_workspace
from facviz.ui import resources

WORDS = "words of a person"


def facviz(*arguments, root):
    command = [sys.executable, "-m", "facviz", *arguments, "--workspace", str(root), "--json", "--quiet"]
    finished = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_with_the_app_open_coverage_and_a_notebook_answer_in_other_processes(open_app, planted_root, run_python):
    app = open_app(planted_root, "coverage")
    flags = ("--task", "toxicity", "--anchor", "anchor", "--seed", "seed", "--kind", "absolute", "--threshold", "0.5")
    measured = facviz("coverage", *flags, root=planted_root)
    assert (measured["n_anchor"], measured["n_missing"]) == (17, 12)
    program = "import sys, facviz; print(facviz.open_workspace(sys.argv[1]).coverage().num_rows)"
    assert int(run_python(program, planted_root)) >= 1
    assert complaints(app.run()) == []


def test_a_shard_of_a_command_line_stage_shows_after_one_rerun(open_app, planted_root, tmp_path):
    app = open_app(planted_root, "data")
    assert "latecomers" not in json.dumps([e.value.to_json() for e in app.dataframe])
    file = tmp_path / "late.jsonl"
    file.write_text('{"text": "apple bread cloud"}\n{"text": "drum eagle"}\n', encoding="utf-8")
    assert facviz("data", "add", str(file), "--name", "latecomers", root=planted_root)["n_docs"] == 2
    app.run()
    assert "latecomers" in json.dumps([e.value.to_json() for e in app.dataframe])
    assert complaints(app) == []


def test_after_deleting_the_database_every_edit_verdict_and_undo_is_still_there(open_app, planted_root):
    [sae] = open_workspace(planted_root).reader().rows("saes")
    target = explanation_of(sae["sae_id"], 12)
    app = open_app(planted_root, "feature", feature=12)
    database = resources.open_database(planted_root)
    database.record("ann", target, "edit", {"text": WORDS})
    database.record("ann", target, "edit", {"text": "taken back"})
    database.undo("ann", target)
    assert WORDS in shown(app.run())
    (planted_root / DATABASE_FILE).unlink()
    app.run()
    assert complaints(app) == []
    assert WORDS in shown(app)
    rebuilt = resources.open_database(planted_root)
    assert rebuilt is not database
    rebuilt.undo("ann", target)
    assert WORDS not in shown(app.run())
