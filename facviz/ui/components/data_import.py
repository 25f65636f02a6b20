"""Adding a data set: upload or path, how its rows would be read, what can be changed about that, and the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import streamlit as st

from facviz.config import DatasetConfig, from_mapping
from facviz.corpus import CorpusPreview, preview
from facviz.errors import FacvizError, InputError
from facviz.ui.components.imports import ROOTS_VARIABLE, allowed_path, dataset_name, save_upload
from facviz.ui.components.jobs import start
from facviz.ui.frame import Here
from facviz.ui.resources import text_key
from facviz.views.data import documents_html, dropped_records, show_document
from facviz.views.format import count
from facviz.views.sae import backbone_flags

FORM = "the form"
_ROLES = {"": "none yet", "anchor": "anchor set: stands for the whole task", "seed": "seed set: its gaps are found"}
_ROLES["eval"] = "evaluation"
_SPEAKERS = ("user", "assistant", "text")
_ROWS_SHOWN = 5
_HELD = 4
_ROUND = "fv_data_round"
_ENDINGS = ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "txt", "gz"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A file or folder to import and what it was called."""

    path: Path
    name: str


def import_form(here: Here, taken: list[str], *, is_busy: bool) -> None:
    """The whole way from a file to a started job; an input error is said where it was made."""
    with st.expander("Add a data set", key="fv_data_import", expanded=not taken, icon=":material/add:"):
        try:
            chosen = _choose(here.root)
            if chosen is None:
                return
            settings = _settings(chosen, taken)
            reading, seen = _reading(chosen)
            _show(here, seen)
            _start(here, chosen, settings | reading, taken, is_busy)
        except FacvizError as error:
            st.error(str(error))


def import_arguments(path: Path, settings: Mapping[str, Any], more: tuple[str, ...] = ()) -> tuple[str, ...]:
    """`facviz data add` with these settings; what was left to guess is not named.

    Raises:
        InputError: the settings contradict each other or a name is none.
    """
    config = from_mapping(DatasetConfig, {**settings, "path": str(path)}, where=FORM)
    defaults = {f.name: f.default for f in fields(DatasetConfig)}
    words = ["data", "add", str(path), f"--name={config.name}"]
    for name in ("role", "shape", "text_field", "label_field", "role_field", "text_role", "source", "licence", "limit"):
        if (value := getattr(config, name)) != defaults[name]:
            words.append(f"--{name.replace('_', '-')}={value}")
    if config.roles != defaults["roles"]:
        words.append(f"--roles={','.join(config.roles)}")
    return (*words, *more)


def _choose(root: Path) -> Chosen | None:
    limit = int(st.get_option("server.maxUploadSize"))
    left, right = st.columns(2, gap="large")
    uploaded = left.file_uploader(
        f"Upload a file, at most {limit} MB",
        type=_ENDINGS,
        key=f"fv_data_upload_{_round()}",
        help=f"A larger one, or a folder, is read where it lies: type its path, or use `facviz data add` ({limit} MB "
        "is `server.maxUploadSize` in `.streamlit/config.toml`).",
    )
    typed = right.text_input(
        "or the path of a file or folder on this machine",
        key=f"fv_data_path_{_round()}",
        max_chars=1000,
        help=f"Under the workspace, the folder the dashboard was started in, or a folder of {ROOTS_VARIABLE}.",
    )
    if uploaded is not None:
        return _uploaded(root, uploaded)
    if typed and typed.strip():
        path = allowed_path(typed, root)
        return Chosen(path, path.name)
    return None


def _uploaded(root: Path, uploaded: Any) -> Chosen:
    """Saved once an upload, not once a rerun."""
    kept: dict[str, Path] = st.session_state.setdefault("fv_data_uploads", {})
    path = kept.get(uploaded.file_id)
    if path is None or not path.is_file():
        path = kept[uploaded.file_id] = save_upload(root, uploaded.name, uploaded.getvalue())
    return Chosen(path, uploaded.name)


def _settings(chosen: Chosen, taken: list[str]) -> dict[str, Any]:
    key = _key(chosen)
    name, role, licence, source = st.columns([2, 3, 2, 3])
    return {
        "name": name.text_input("Name", dataset_name(chosen.name, taken), key=f"{key}_name", max_chars=64) or "",
        "role": role.selectbox("Role", list(_ROLES), format_func=lambda r: _ROLES[r], key=f"{key}_role"),
        "licence": licence.text_input("Licence", key=f"{key}_licence", max_chars=200, placeholder="CC0-1.0") or "",
        "source": source.text_input("Source", key=f"{key}_source", max_chars=300, placeholder="where it is from") or "",
    }


def _reading(chosen: Chosen) -> tuple[dict[str, Any], CorpusPreview]:
    """What a person says about how rows are read, and the preview that follows; nothing said means guessed."""
    failure: InputError | None = None
    fields: tuple[str, ...] = ()
    try:
        guessed = _preview(chosen, {})
        fields = guessed.fields
    except InputError as error:
        failure = error
    reading = _reading_choices(chosen, fields, is_open=failure is not None)
    if failure is not None and not reading:
        raise failure
    return reading, _preview(chosen, {k: v for k, v in reading.items() if k != "roles"})


def _reading_choices(chosen: Chosen, fields: tuple[str, ...], *, is_open: bool) -> dict[str, Any]:
    key = f"{_key(chosen)}_read"
    with st.expander("How the rows are read", key=f"{key}_expander", expanded=is_open, icon=":material/tune:"):
        first, second = st.columns(2), st.columns(4)
        shape = first[0].selectbox(
            "Shape", _SHAPES, format_func=lambda s: _SHAPE_WORDS.get(s, s), key=f"{key}_shape", help=_SHAPE_HELP
        )
        roles = first[1].multiselect("Roles that count", _SPEAKERS, _SPEAKERS, key=f"{key}_roles", help=_ROLES_HELP)
        named = {
            name: _field(column, words, fields, f"{key}_{name}")
            for column, (name, words) in zip(second, _FIELD_WORDS.items())
        }
        speaker = second[3].selectbox("Speaker of plain texts", _SPEAKERS, key=f"{key}_text_role", help=_SPEAKER_HELP)
    reading = {"shape": shape if shape != "auto" else None, **named}
    reading["text_role"] = speaker if speaker != _SPEAKERS[0] else None
    reading["roles"] = roles if tuple(roles) != _SPEAKERS else None
    return {k: v for k, v in reading.items() if v is not None}


def _field(column: Any, words: str, fields: tuple[str, ...], key: str) -> str | None:
    """A field's name, chosen or typed; None guesses."""
    found: str | None = column.selectbox(
        words, fields, index=None, key=key, placeholder="guessed", accept_new_options=True
    )
    return found or None


def _preview(chosen: Chosen, reading: Mapping[str, Any]) -> CorpusPreview:
    """The beginning of the file read this way, looked at once while neither changes."""
    key = (str(chosen.path), chosen.path.stat().st_mtime_ns, tuple(sorted(reading.items())))
    held: dict[Any, CorpusPreview] = st.session_state.setdefault("fv_data_previews", {})
    if key not in held:
        config = from_mapping(DatasetConfig, {"name": "preview", "path": str(chosen.path), **reading}, where=FORM)
        while len(held) > _HELD:
            del held[next(iter(held))]
        held[key] = preview(chosen.path, config, _ROWS_SHOWN)
    return held[key]


def _show(here: Here, seen: CorpusPreview) -> None:
    """The mapping in words, the first documents, and what would be left out."""
    amount = count(seen.n_documents) if seen.is_complete else f"the first {count(seen.n_documents)}"
    counted = [f"{amount} documents"]
    counted += [f"{count(seen.n_files)} files"] if seen.n_files > 1 else []
    counted += [f"{count(seen.n_duplicates)} duplicates"] if seen.n_duplicates else []
    counted += [f"left out: {reason} ({count(n)})" for reason, n in seen.dropped_by_reason.items()]
    counted += [f"files not read: {reason} ({count(n)})" for reason, n in seen.skipped_files.items()]
    st.text(f"{seen.mapping}\n{' · '.join(counted)}")
    if seen.documents:
        st.html(documents_html([show_document(d) for d in seen.documents], here.mode, blurred=here.blurred))
    if seen.dropped:
        st.dataframe(
            dropped_records(seen.dropped),
            key="fv_data_preview_dropped",
            width="stretch",
            hide_index=True,
            alt="Rows that would be left out, with the reason and their beginning",
        )


def _start(here: Here, chosen: Chosen, settings: Mapping[str, Any], taken: list[str], is_busy: bool) -> None:
    name = settings["name"]
    if name in taken:
        raise InputError(f"There is a data set {name!r} already; choose another name.")
    flags = backbone_flags(here.database.workspace, here.database)
    arguments = import_arguments(chosen.path, settings, flags)
    if st.button("Add data set", key="fv_data_add", type="primary", icon=":material/add:", disabled=is_busy):
        st.session_state[_ROUND] = _round() + 1  # an empty form once the job runs
        start(here.root, title=f"Add the data set {name}", page="data", arguments=arguments)
        st.session_state[_ROUND] = _round() - 1  # it could not start, so what was chosen stays


def _round() -> int:
    return int(st.session_state.get(_ROUND, 0))


def _key(chosen: Chosen) -> str:
    return f"fv_data_{text_key(chosen.path)}"


_SHAPES = get_args(get_type_hints(DatasetConfig)["shape"])
_SHAPE_WORDS = {"auto": "guessed", "prompt_completion": "prompt and completion", "chosen_rejected": "chosen, rejected"}
_FIELD_WORDS = {"text_field": "Text field", "label_field": "Label field", "role_field": "Speaker field"}
_SPEAKER_HELP = "Who speaks where no field says so; `text` reads them without the chat template."
_SHAPE_HELP = "How a row becomes messages."
_ROLES_HELP = "Whose words count: only their tokens can activate a feature."
