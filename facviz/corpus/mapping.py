"""Which fields of a row hold what: taken from the configuration, or guessed from the first rows and said aloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from facviz.config import DatasetConfig
from facviz.corpus.fields import FieldMapping
from facviz.corpus.shapes import CONTENT_KEYS, ROLE_KEYS, as_message_list, to_role
from facviz.corpus.wording import quote_name, quote_names
from facviz.errors import InputError

MESSAGE_FIELDS = ("messages", "conversation", "conversations", "dialogue", "dialog", "chat")
PROMPT_FIELDS = ("prompt", "instruction", "question", "query", "input")
COMPLETION_FIELDS = ("completion", "response", "output", "answer", "reply")
TEXT_FIELDS = (
    "text", "prompt", "query", "content", "instruction", "question", "sentence", "comment", "message", "body",
    "review", "document", "input",
)  # fmt: skip
LABEL_FIELDS = ("label", "labels", "toxicity", "category", "class")
PAIR_FIELDS = ("chosen", "rejected")

Rows = Sequence[Mapping[str, Any]]


def check_mapping(config: DatasetConfig, file_format: str) -> None:
    """Refuse settings that contradict each other or the file format, before the file is opened."""
    where = f"Dataset {config.name}"
    if file_format == "txt":
        if config.shape not in ("auto", "text"):
            raise InputError(f"{where}: a .txt file holds one text a line; use .jsonl for the shape {config.shape}.")
        if config.text_field or config.label_field or config.role_field:
            raise InputError(
                f"{where}: a .txt file has no fields; remove `text_field`, `label_field` and `role_field`, or use .csv."
            )
    if config.role_field and config.shape not in ("auto", "text"):
        raise InputError(
            f"{where}: `role_field` is for rows of the shape text, not {config.shape}; remove one of them."
        )
    if config.shape in ("prompt_completion", "chosen_rejected", "alpaca") and config.text_field:
        raise InputError(f"{where}: the shape {config.shape} has several text fields; remove `text_field`.")
    if config.shape == "chosen_rejected" and config.label_field:
        raise InputError(f"{where}: the shape chosen_rejected brings its own labels; remove `label_field`.")


def map_lines(config: DatasetConfig, column: str) -> FieldMapping:
    """The mapping of a plain-text file, which has no fields to guess from."""
    return FieldMapping("text", (column,), text_role=config.text_role, is_per_line=True)


def map_fields(config: DatasetConfig, rows: Rows, file_name: str) -> FieldMapping:
    """The configured mapping, its gaps filled by a guess from the first rows.

    Raises:
        InputError: no field can be the text; the message names the fields there are.
    """
    label_field = _choose_label(config, rows)
    shape = _choose_shape(config, rows)
    if shape == "chosen_rejected":
        prompt = _find(rows, ("prompt",))
        return FieldMapping(shape, PAIR_FIELDS, (prompt,) if prompt else (), None, config.text_role)
    if shape == "alpaca":
        return _map_alpaca(config, rows, file_name, label_field)
    if shape == "prompt_completion":
        prompts, completion = _find_prompts(rows), _find(rows, COMPLETION_FIELDS)
        if not prompts or not completion:
            raise _no_field("a prompt and a completion", rows, file_name, "rename them so, or choose another `shape`")
        return FieldMapping(shape, (completion,), prompts, label_field, config.text_role)
    role_field = _choose_role_field(config, rows) if shape == "text" else None
    text_field = config.text_field or _guess_text_field(shape, rows, (label_field, role_field))
    if text_field is None:
        raise _no_field("text", rows, file_name, "name the right one with `text_field`")
    return FieldMapping(shape, (text_field,), (), label_field, config.text_role, role_field=role_field)


def check_fit(mapping: FieldMapping, file_name: str, rows: Rows | None, first_name: str) -> None:
    """Refuse a later file of a folder whose first rows lack what the mapping needs; None stands for lines of text.

    Raises:
        InputError: the message names both files and what is missing.
    """
    if rows is None or mapping.is_per_line:
        if rows is None and mapping.is_per_line:
            return
        problem = "holds lines without fields" if rows is None else "holds rows with fields"
    else:
        missing = [f for f in mapping.required_fields if not any(f in row for row in rows)]
        if not missing:
            return
        problem = f"has no field {quote_name(missing[0])} among {quote_names(list_fields(rows))}"
    raise InputError(
        f"{file_name} {problem}, but the folder is read as its first file {first_name} is ({mapping.describe()});"
        " add it as a dataset of its own."
    )


def list_fields(rows: Rows) -> list[str]:
    """Names of all fields in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _no_field(what: str, rows: Rows, file_name: str, advice: str) -> InputError:
    return InputError(f"{file_name} has no field for {what} among {quote_names(list_fields(rows))}; {advice}.")


def _choose_shape(config: DatasetConfig, rows: Rows) -> str:
    if config.shape != "auto":
        return config.shape
    if config.role_field:
        return "text"
    if config.text_field:
        return "messages" if _holds_messages(rows, config.text_field) else "text"
    if _find_messages(rows):
        return "messages"
    if not config.label_field and all(_is_used(rows, field) for field in PAIR_FIELDS):
        return "chosen_rejected"
    if _is_alpaca(rows):
        return "alpaca"
    return "prompt_completion" if _find_prompts(rows) and _find(rows, COMPLETION_FIELDS) else "text"


def _is_alpaca(rows: Rows) -> bool:
    """An instruction and an output, mostly plain text; answers may all be empty, questions not."""
    fields = _by_lower_name(rows)
    if "instruction" not in fields or "output" not in fields:
        return False
    questions, answers = ([v for row in rows if (v := row.get(fields[f]))] for f in ("instruction", "output"))
    return bool(questions) and all(2 * sum(map(_is_plain, texts)) >= len(texts) for texts in (questions, answers))


def _is_plain(value: object) -> bool:
    return isinstance(value, str) and as_message_list(value) is None


def _map_alpaca(config: DatasetConfig, rows: Rows, file_name: str, label_field: str | None) -> FieldMapping:
    fields = _by_lower_name(rows)
    if "instruction" not in fields or "output" not in fields:
        raise _no_field("an instruction and an output", rows, file_name, "rename them so, or choose another `shape`")
    prompts = tuple(fields[name] for name in ("instruction", "input") if name in fields)
    system = fields.get("system")
    output = fields["output"]
    return FieldMapping("alpaca", (output,), prompts, label_field, config.text_role, system_field=system)


def _choose_role_field(config: DatasetConfig, rows: Rows) -> str | None:
    """The configured field, or one of a usual name in which most values are names of roles."""
    if config.role_field is not None:
        return config.role_field or None
    fields = _by_lower_name(rows)
    found = (fields[name] for name in ROLE_KEYS if name in fields)
    return next((f for f in found if f != config.text_field and _mostly_roles(rows, f)), None)


def _mostly_roles(rows: Rows, field: str) -> bool:
    given = [row[field] for row in rows if row.get(field) is not None]
    return 2 * sum(to_role(value) is not None for value in given) > len(given)


def _guess_text_field(shape: str, rows: Rows, taken: tuple[str | None, str | None]) -> str | None:
    if shape == "messages":
        return _find_messages(rows)
    names = TEXT_FIELDS if taken[1] is None else (*CONTENT_KEYS, *TEXT_FIELDS)
    return _find(rows, names) or _find_longest(rows, taken)


def _by_lower_name(rows: Rows) -> dict[str, str]:
    """Fields by their name in lower case, the first of equal ones."""
    return {field.lower(): field for field in reversed(list_fields(rows))}


def _find(rows: Rows, names: Sequence[str]) -> str | None:
    """The first of `names`, in any letter case, under which a row holds text or a list of messages."""
    fields = _by_lower_name(rows)
    return next((fields[n] for n in names if n in fields and _is_used(rows, fields[n])), None)


def _is_used(rows: Rows, field: str) -> bool:
    return any(isinstance(v := row.get(field), str) and v.strip() for row in rows) or _holds_messages(rows, field)


def _holds_messages(rows: Rows, field: str) -> bool:
    return any(as_message_list(row.get(field)) for row in rows)


def _find_messages(rows: Rows) -> str | None:
    fields = _by_lower_name(rows)
    return next((fields[n] for n in MESSAGE_FIELDS if n in fields and _holds_messages(rows, fields[n])), None)


def _find_prompts(rows: Rows) -> tuple[str, ...]:
    """The prompt's field; instruction sets keep the text the instruction is about in a second one, `input`."""
    first = _find(rows, PROMPT_FIELDS)
    if first is None:
        return ()
    second = _find(rows, ("input",)) if first.lower() == "instruction" else None
    return (first, second) if second else (first,)


def _find_longest(rows: Rows, taken: tuple[str | None, ...]) -> str | None:
    lengths: dict[str, float] = {}
    for field in list_fields(rows):
        texts = [v for row in rows if isinstance(v := row.get(field), str)]
        if field not in taken and any(text.strip() for text in texts):
            lengths[field] = fmean(len(text) for text in texts)
    return max(lengths, key=lambda field: lengths[field], default=None)


def _choose_label(config: DatasetConfig, rows: Rows) -> str | None:
    if config.label_field is not None:
        return config.label_field or None
    fields = _by_lower_name(rows)
    found = [fields[name] for name in LABEL_FIELDS if name in fields and _looks_like_label(rows, fields[name])]
    return next((field for field in found if field != config.text_field), None)


def _looks_like_label(rows: Rows, field: str) -> bool:
    """Single values only, and no fractions: a column of scores is no label unless the user says so."""
    values = [row[field] for row in rows if row.get(field) is not None]
    return bool(values) and all(isinstance(v, (str, int)) or (isinstance(v, float) and v.is_integer()) for v in values)
