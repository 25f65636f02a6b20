"""Task formats of the paper: what one sample of a task is, how a reply becomes one, and what of it is measured."""

from __future__ import annotations

from facviz.errors import InputError
from facviz.records import TaskGuideline
from facviz.synthesis.formats.base import Fields, Invalid, Parsed, SampleFormat
from facviz.synthesis.formats.choices import SurvivalItem, SycophancyItem
from facviz.synthesis.formats.instruction import InstructionAnswer
from facviz.synthesis.formats.preference import PreferencePair
from facviz.synthesis.formats.texts import PlainText, ToxicityQuery

__all__ = ["FORMATS", "Fields", "Invalid", "Parsed", "SampleFormat", "format_of"]

FORMATS: dict[str, type[SampleFormat]] = {
    kind.name: kind
    for kind in (PlainText, ToxicityQuery, PreferencePair, SycophancyItem, SurvivalItem, InstructionAnswer)
}
"""Every format by the name that a task file gives in its `format` line."""


def format_of(task: TaskGuideline) -> SampleFormat:
    """The format of a task's samples.

    Raises:
        InputError: the task names a format that does not exist.
    """
    if task.format not in FORMATS:
        raise InputError(f"The task {task.name} has the format {task.format!r}; choose one of {', '.join(FORMATS)}.")
    return FORMATS[task.format](roles=task.roles, sign=task.sign)
