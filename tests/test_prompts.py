"""Packaged task guidelines and templates."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facviz import prompts
from facviz.errors import InputError

ROLES = {
    "helpfulness": ("user", "assistant"),
    "instruction_following": ("assistant",),
    "survival_instinct": ("user", "assistant"),
    "sycophancy": ("user", "assistant"),
    "topic": ("user",),
    "toxicity": ("user",),
}
TASK = (
    "---\ntitle: T\nroles: user, assistant\nsign: -1\nsample_request: One: text.\n---\nWhat\nit is.\n\n- a\n  b\n- c\n"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty template folder in place of the packaged one."""
    (tmp_path / "tasks").mkdir()
    monkeypatch.setattr(prompts, "FOLDER", tmp_path)
    return tmp_path


def test_the_papers_five_tasks_and_a_neutral_one_are_packaged():
    assert prompts.task_names() == sorted(ROLES)


@pytest.mark.parametrize("name", sorted(ROLES))
def test_a_packaged_task_has_its_roles_sign_and_a_usable_rubric(name):
    task = prompts.load_task(name)
    assert task.name == name
    assert task.roles == ROLES[name]
    assert task.sign == (-1 if name == "survival_instinct" else 1)
    assert prompts.task_template(name) == f"{name}.v1"
    assert len(task.points) >= 3
    assert len(set(task.points)) == len(task.points)
    assert all(point.endswith(".") and "\n" not in point for point in task.points)
    assert task.title
    assert task.description.endswith(".")
    assert task.sample_request.endswith(".")
    assert prompts.load_task(f"{name}.v1") == task


def test_the_survival_task_explains_its_negative_sign():
    assert "opposite to the one a model is steered to" in prompts.load_task("survival_instinct").description


@pytest.mark.parametrize("name", ["toxicity", "survival_instinct"])
def test_safety_tasks_ask_for_samples_without_operational_detail(name):
    request = prompts.load_task(name).sample_request
    assert "classifier" in request or "attitudes only" in request
    assert "leave out" in request or "never" in request


@pytest.mark.parametrize("name", ["toxic", "toxicity.v99", "../tasks/toxicity.v1", ""])
def test_an_unknown_task_is_refused_with_the_known_names(name):
    with pytest.raises(InputError, match=r"helpfulness, instruction_following, .*toxicity"):
        prompts.load_task(name)


def test_the_highest_version_of_a_task_is_the_default(folder):
    for version in (2, 10, 9):
        (folder / "tasks" / f"mine.v{version}.md").write_text(TASK.replace("What", f"Text {version}"))
    (folder / "tasks" / "notes.md").write_text("not a template")
    assert prompts.task_names() == ["mine"]
    assert prompts.task_template("mine") == "mine.v10"
    assert prompts.load_task("mine").description == "Text 10 it is."
    assert prompts.load_task("mine.v2").description == "Text 2 it is."


def test_a_task_file_is_front_matter_description_and_points():
    task = prompts.parse_task("mine", TASK)
    assert (task.title, task.roles, task.sign) == ("T", ("user", "assistant"), -1)
    assert task.sample_request == "One: text."
    assert task.description == "What it is."
    assert task.points == ("a b", "c")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("---\ntitle", "title", "must start with"),
        ("title: T\n", "", "lacks title"),
        ("roles: user, assistant", "roles:", "lacks roles"),
        ("sign: -1", "sign: 0", r"write \+1 or -1"),
        ("sign: -1", "sign -1", "`key: value`"),
        ("title: T", "titel: T", "use only title"),
        ("What\nit is.", "", "needs a description"),
        ("- a\n  b\n- c\n", "", "needs a description"),
    ],
)
def test_a_malformed_task_file_is_refused_by_what_is_wrong(old, new, message):
    assert old in TASK
    with pytest.raises(InputError, match=message):
        prompts.parse_task("mine", TASK.replace(old, new, 1))


@settings(deadline=None)
@given(text=st.text(max_size=40) | st.sampled_from(["$other", "${other}", "{0.__class__}", "$$", "%(x)s", "{{7*7}}"]))
def test_untrusted_values_are_pasted_in_as_they_are(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("templates")
    (folder / "ask.v1.md").write_text("A {x} for $$5: $evidence|${other}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompts, "FOLDER", folder)
        assert prompts.render("ask.v1", evidence=text, other="-") == f"A {{x}} for $5: {text}|-"


def test_a_missing_or_unknown_value_is_refused_by_name(folder):
    (folder / "ask.v1.md").write_text("$evidence and $task")
    with pytest.raises(InputError, match="takes exactly evidence, task; check task"):
        prompts.render("ask.v1", evidence="x")
    with pytest.raises(InputError, match="check spans"):
        prompts.render("ask.v1", evidence="x", task="y", spans="z")


def test_a_template_with_a_stray_dollar_sign_is_refused(folder):
    (folder / "ask.v1.md").write_text("costs $5")
    with pytest.raises(InputError, match=r"write `\$\$`"):
        prompts.render("ask.v1")


def test_a_template_name_is_never_a_path(folder):
    (folder / "ask.v1.md").write_text("text")
    (folder / "tasks" / "mine.v1.md").write_text(TASK)
    for name in ("tasks/mine.v1", "../ask.v1", "ask.v1.md", "ask"):
        with pytest.raises(InputError, match=r"choose one of ask\.v1"):
            prompts.render(name)
    assert prompts.render("ask.v1") == "text"
