"""Tasks that people write: a guideline file in the workspace, in the form of the packaged ones and used like them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from facviz.errors import InputError
from facviz.explain.judging import MAX_RUBRIC_CHARS, VERIFY
from facviz.files import write_text_atomically
from facviz.prompts import packaged_task_names, parse_task
from facviz.records import PLAIN_TEXT, TaskGuideline
from facviz.store.workspace import TASKS_FOLDER, Workspace
from facviz.synthesis.formats import format_of

MAX_TITLE_CHARS, MAX_POINTS = 80, 30
ROLES = ("user", "assistant")
_UNSEEN = re.compile(r"[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u2028-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class TaskDraft:
    """A task as somebody typed it; `points` are what makes a feature count, one each."""

    title: str
    description: str
    points: Sequence[str]
    roles: Sequence[str] = ("user",)
    sample_request: str = ""
    format: str = PLAIN_TEXT
    """How samples are written, read and measured: a name of `facviz.synthesis.formats.FORMATS`."""


def save_task(workspace: Workspace, draft: TaskDraft) -> str:
    """Write the task's file and return its name; a changed task is a new version beside the old one.

    Raises:
        InputError: something is missing or too long, the name is a packaged task's, or there is no such format.
    """
    title, description = _line(draft.title), _line(draft.description)
    points = [line for point in draft.points if (line := _line(point).lstrip("-•* ").strip())]
    name = _name(title)
    _check(title, description, points, draft.roles, name)
    wanted = _line(draft.sample_request) or f"Write one short text that the task “{title}” should count as relevant."
    text = _file_text(title, description, points, draft.roles, wanted, draft.format)
    format_of(parse_task(name, text))  # what cannot be read back is refused before it is written
    folder = workspace.root / TASKS_FOLDER
    versions = sorted(int(p.name.split(".v")[1][:-3]) for p in folder.glob(f"{name}.v*.md") if _is_version(p.name))
    if versions and (folder / f"{name}.v{versions[-1]}.md").read_text(encoding="utf-8") == text:
        return name
    write_text_atomically(folder / f"{name}.v{versions[-1] + 1 if versions else 1}.md", text)
    return name


def draft_of(task: TaskGuideline) -> TaskDraft:
    """A task as something to change."""
    return TaskDraft(task.title, task.description, task.points, task.roles, task.sample_request, task.format)


def _is_version(name: str) -> bool:
    return re.fullmatch(r"[a-z][a-z0-9_]*\.v[0-9]+\.md", name) is not None


def _line(text: str) -> str:
    """One line without what cannot be seen."""
    return " ".join(_UNSEEN.sub(" ", text).split())


def _name(title: str) -> str:
    """A name for files and flags: the title's Latin letters, or a digest where it has none."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:48].strip("_")
    if not slug or not slug[0].isalpha():
        slug = f"task_{slug or hashlib.sha256(title.encode()).hexdigest()[:8]}"
    return slug


def _check(title: str, description: str, points: Sequence[str], roles: Sequence[str], name: str) -> None:
    if not title or not description or not points:
        raise InputError("A task needs a title, a description, and at least one point that makes a feature count.")
    if len(title) > MAX_TITLE_CHARS:
        raise InputError(f"The title has {len(title)} characters; use at most {MAX_TITLE_CHARS}.")
    if len(points) > MAX_POINTS or len(description) + sum(map(len, points)) > MAX_RUBRIC_CHARS:
        raise InputError(f"Use at most {MAX_POINTS} points, and {MAX_RUBRIC_CHARS} characters in all.")
    if not roles or set(roles) - set(ROLES):
        raise InputError("Say whose words count: the user's, the assistant's, or both.")
    if name == VERIFY or name in packaged_task_names():
        raise InputError(f"There is a task {name!r} already; choose another title.")


def _file_text(
    title: str, description: str, points: Sequence[str], roles: Sequence[str], wanted: str, form: str
) -> str:
    head = [f"title: {title}", f"roles: {', '.join(roles)}", "sign: +1", f"sample_request: {wanted}"]
    head += [f"format: {_line(form)}"] if form != PLAIN_TEXT else []
    body = description.removeprefix("- ").removeprefix("---")
    return "\n".join(["---", *head, "---", body, "", *(f"- {point}" for point in points), ""])
