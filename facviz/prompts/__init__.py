"""Prompt texts, versioned by file name: `<name>.v<n>.md`; tasks stand under `tasks/`, those of a workspace beside them.

Templates hold `$name` placeholders. Values are pasted in as they are: never parsed, never evaluated, so a text full of
braces and dollar signs stays that text. A template that changes its meaning gets a new version beside the old one.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from facviz.errors import InputError
from facviz.records import PLAIN_TEXT, TaskGuideline

FOLDER: Traversable = resources.files(__name__)

_FILE_NAME = re.compile(r"(?P<name>[a-z][a-z0-9_]*)\.v(?P<version>[0-9]+)\.md")
_FRONT_MATTER = re.compile(r"---\n(?P<fields>.*?)\n---\n(?P<body>.*)", re.DOTALL)
_TASK_FIELDS = ("title", "roles", "sign", "sample_request")
_OPTIONAL_FIELDS = ("format",)


_own_tasks: ContextVar[Path | None] = ContextVar("own_tasks", default=None)
_last_own_tasks: list[Path] = []


def use_tasks(folder: Path | None) -> None:
    """Find a workspace's own tasks too, here and in threads that name no folder; packaged names stay as packaged."""
    _own_tasks.set(folder)
    _last_own_tasks[:] = [] if folder is None else [folder]


def task_names() -> list[str]:
    """Names of the packaged tasks and the workspace's own, without version, sorted."""
    return sorted(_newest_tasks())


def packaged_task_names() -> list[str]:
    """Names that a workspace's own task cannot take."""
    return sorted(_newest(FOLDER / "tasks"))


def task_template(name: str) -> str:
    """File name without suffix of the text behind a task, for the record: `toxicity` → `toxicity.v1`.

    A name that already carries a version stays as it is.
    """
    newest = _newest_tasks()
    if name not in newest and name not in _task_files():
        raise InputError(f"There is no task {name!r}; choose one of {', '.join(task_names())}.")
    return newest.get(name, name)


def load_task(name: str) -> TaskGuideline:
    """The guideline of a task: newest version, or the one named (`toxicity.v1`).

    Raises:
        InputError: no such task; the message lists the known ones. Or a task file of the workspace is damaged.
    """
    template = task_template(name)
    try:
        text = _task_files()[template].read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"The task file {template}.md cannot be read ({error}); correct or delete it.") from error
    return parse_task(template.split(".")[0], text)


def _task_files() -> dict[str, Traversable]:
    """Template id → file, of every version of every task."""
    packaged = FOLDER / "tasks"
    files = {template: packaged / f"{template}.md" for template in _templates(packaged)}
    own = _own_tasks.get() or next(iter(_last_own_tasks), None)
    if own is not None and own.is_dir():
        reserved = _newest(packaged)
        files |= {t: own / f"{t}.md" for t in _templates(own) if t.split(".")[0] not in reserved}
    return files


def _newest_tasks() -> dict[str, str]:
    """Name → id of its highest version."""
    found = sorted((int(template.partition(".v")[2]), template) for template in _task_files())
    return {template.split(".")[0]: template for _, template in found}


def parse_task(name: str, text: str) -> TaskGuideline:
    """A guideline from its file: `key: value` lines between `---`, a description, then `- ` rubric points."""
    match = _FRONT_MATTER.fullmatch(text)
    if match is None:
        raise InputError(f"The task {name} must start with `key: value` lines between two `---` lines.")
    fields = dict(_field(name, line) for line in match["fields"].splitlines() if line.strip())
    absent = [key for key in _TASK_FIELDS if not fields.get(key)]
    if absent:
        raise InputError(f"The task {name} lacks {', '.join(absent)} between its `---` lines; add it.")
    if fields["sign"] not in ("+1", "-1"):
        raise InputError(f"The task {name} has the sign {fields['sign']!r}; write +1 or -1.")
    description, *points = (" ".join(part.split()) for part in re.split(r"^- ", match["body"], flags=re.MULTILINE))
    if not description or not points or not all(points):
        raise InputError(f"The task {name} needs a description followed by rubric points, each a line beginning `- `.")
    return TaskGuideline(
        name=name,
        title=fields["title"],
        roles=tuple(role.strip() for role in fields["roles"].split(",")),
        sign=int(fields["sign"]),
        description=description,
        points=tuple(points),
        sample_request=fields["sample_request"],
        format=fields.get("format") or PLAIN_TEXT,
    )


def _field(name: str, line: str) -> tuple[str, str]:
    key, colon, value = line.partition(":")
    known = (*_TASK_FIELDS, *_OPTIONAL_FIELDS)
    if not colon or key.strip() not in known:
        raise InputError(f"The task {name} has the line {line!r}; use only {', '.join(known)}, as `key: value`.")
    return key.strip(), value.strip()


def render(template_name: str, /, **values: str) -> str:
    """The text of `<template_name>.md` (such as `synthesize_pairs.v1`) with every `$placeholder` replaced.

    Raises:
        InputError: no such template, a placeholder without a value, or a value without a placeholder.
    """
    template = Template(template_text(template_name))
    if not template.is_valid():
        raise InputError(f"The template {template_name} holds a stray `$`; write `$$` for a dollar sign.")
    wanted = set(template.get_identifiers())
    if wanted != values.keys():
        wrong = ", ".join(sorted(wanted ^ values.keys()))
        raise InputError(f"The template {template_name} takes exactly {', '.join(sorted(wanted))}; check {wrong}.")
    return template.substitute(values)


def template_text(template_name: str) -> str:
    """A template as it stands, for rendering and for fingerprints.

    Raises:
        InputError: no such template.
    """
    known = _templates(FOLDER)
    if template_name not in known:
        raise InputError(f"There is no template {template_name!r}; choose one of {', '.join(known) or 'none'}.")
    return (FOLDER / f"{template_name}.md").read_text(encoding="utf-8").rstrip("\n")


def _templates(folder: Traversable) -> list[str]:
    """Template ids in a folder; a name is looked up here, so it can never be a path."""
    return sorted(f.name.removesuffix(".md") for f in folder.iterdir() if _FILE_NAME.fullmatch(f.name))


def _newest(folder: Traversable) -> dict[str, str]:
    """Name → id of its highest version."""
    matches = [_FILE_NAME.fullmatch(f.name) for f in folder.iterdir()]
    found = sorted((int(m["version"]), m["name"]) for m in matches if m)
    return {name: f"{name}.v{version}" for version, name in found}
