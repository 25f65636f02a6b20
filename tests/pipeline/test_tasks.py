"""Tasks of one's own: written once, durable, and good for whatever takes a packaged task."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facviz.cli import main
from facviz.errors import InputError
from facviz.explain.judging import task_rubric
from facviz.pipeline.tasks import TaskDraft, draft_of, save_task
from facviz.prompts import load_task, task_names, task_template
from facviz.store.workspace import Workspace, open_workspace

DRAFT = TaskDraft(
    "Garden tools",
    "A shop's assistant answers customers. A feature counts when its texts\nshow such a question.",
    ["Asks which tool fits a job.", "- Asks how to care for a tool.", "  "],
    ("user", "assistant"),
)


@pytest.fixture
def workspace(tmp_path):
    return Workspace.create(tmp_path / "w")


def test_a_task_is_read_back_as_it_was_written_and_stands_among_the_packaged_ones(workspace):
    assert save_task(workspace, DRAFT) == "garden_tools"
    task = load_task("garden_tools")
    assert (task.title, task.roles, task.sign) == ("Garden tools", ("user", "assistant"), 1)
    assert task.description.endswith("texts show such a question.")
    assert task.points == ("Asks which tool fits a job.", "Asks how to care for a tool.")
    assert "Garden tools" in task.sample_request
    assert {"garden_tools", "toxicity"} <= set(task_names())
    assert "Asks which tool fits a job." in task_rubric(task).text
    assert save_task(workspace, draft_of(task)) == "garden_tools"
    assert task_template("garden_tools") == "garden_tools.v1"


def test_a_changed_task_is_a_new_version_and_the_old_one_stays(workspace):
    save_task(workspace, DRAFT)
    save_task(workspace, dataclasses.replace(DRAFT, points=["Asks anything."]))
    assert task_template("garden_tools") == "garden_tools.v2"
    assert load_task("garden_tools").points == ("Asks anything.",)
    assert len(load_task("garden_tools.v1").points) == 2


def test_a_task_keeps_the_format_of_its_samples_and_an_unknown_one_is_refused(workspace):
    save_task(workspace, dataclasses.replace(DRAFT, format="preference_pair"))
    task = load_task("garden_tools")
    assert (task.format, draft_of(task).format) == ("preference_pair", "preference_pair")
    assert save_task(workspace, draft_of(task)) == "garden_tools"
    assert task_template("garden_tools") == "garden_tools.v1"
    save_task(workspace, DRAFT)
    assert load_task("garden_tools").format == "plain_text"
    with pytest.raises(InputError, match="has the format 'poem'; choose one of plain_text"):
        save_task(workspace, dataclasses.replace(DRAFT, format="poem"))
    assert task_template("garden_tools") == "garden_tools.v2"


def test_a_task_belongs_to_its_workspace(workspace, tmp_path):
    save_task(workspace, DRAFT)
    Workspace.create(tmp_path / "other")
    with pytest.raises(InputError, match="no task 'garden_tools'"):
        load_task("garden_tools")
    open_workspace(workspace.root)
    assert load_task("garden_tools").title == "Garden tools"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"title": " \n"}, "needs a title"),
        ({"points": ["-", " "]}, "needs a title"),
        ({"title": "Toxicity"}, "already"),
        ({"title": "Verify"}, "already"),
        ({"title": "x" * 81}, "81 characters"),
        ({"points": ["p"] * 31}, "at most 30 points"),
        ({"description": "d" * 7000}, "6000 characters"),
        ({"roles": ()}, "whose words"),
        ({"roles": ("system",)}, "whose words"),
    ],
)
def test_a_task_nobody_could_judge_by_is_refused_in_one_sentence(workspace, change, why):
    with pytest.raises(InputError, match=why):
        save_task(workspace, dataclasses.replace(DRAFT, **change))
    assert not (workspace.root / "tasks").exists()


@given(st.text(max_size=80), st.text(max_size=200), st.lists(st.text(max_size=60), max_size=4))
def test_whatever_is_typed_is_saved_and_read_back_or_refused(tmp_path_factory, title, description, points):
    workspace = Workspace.create(tmp_path_factory.mktemp("typed") / "w")
    try:
        name = save_task(workspace, TaskDraft(title, description, points))
    except InputError:
        return
    task = load_task(name)
    assert 1 <= len(task.points) <= len(points)
    assert [path.parent for path in workspace.root.rglob("*.md")] == [workspace.root / "tasks"]


def test_the_command_line_takes_a_task_of_ones_own(loop_copy, capsys):
    root = loop_copy / "workspace"
    save_task(open_workspace(root), DRAFT)
    code = main(["relevance", "--task", "garden_tools", "--labels", "anchor", "--workspace", str(root), "--quiet"])
    said = capsys.readouterr()
    assert code == 0, said.err
    with open_workspace(root).reader() as reader:
        sae = reader.rows("saes")[0]["sae_id"]
        assert "garden_tools" in {row["task"] for row in reader.rows("relevance_tasks", sae_id=sae)}
