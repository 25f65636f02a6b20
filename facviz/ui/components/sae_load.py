"""Loading a saved SAE: by path, by upload or from the hub, in a format that is recognised or named."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from facviz.errors import FacvizError, InputError
from facviz.files import write_files
from facviz.ui.components.imports import ROOTS_VARIABLE, UPLOADS, allowed_path, safe_name
from facviz.ui.components.jobs import start
from facviz.ui.frame import Here
from facviz.ui.state import set_query
from facviz.views.format import short
from facviz.views.sae import backbone_flags
from facviz.views.sae_training import FORMAT_TITLES, is_hub_name

_WEIGHTS = ("safetensors", "pt", "pth", "npz")
_PLACES = {"path": "On this machine", "upload": "Upload", "hub": "From the hub"}


def load_form(here: Here, datasets: Sequence[str], *, is_busy: bool) -> None:
    """Where the SAE is, its format, and what to check it on; an input error is said where it was made."""
    place = st.segmented_control(
        "Where the SAE is",
        list(_PLACES),
        default="path",
        required=True,
        format_func=lambda p: _PLACES[p],
        key="fv_sae_load_from",
        label_visibility="collapsed",
    )
    asked = {"upload": _ask_upload, "hub": _ask_hub}.get(place or "path", _ask_path)()
    first, second = st.columns(2)
    name = first.selectbox(
        "Format", list(FORMAT_TITLES), format_func=lambda f: FORMAT_TITLES[f], key="fv_sae_format", help=_FORMAT_HELP
    )
    check = second.selectbox(
        "Check it on", [*datasets, ""], format_func=lambda d: d or "nothing", key="fv_sae_check", help=_CHECK_HELP
    )
    said, action = st.columns([4, 1], vertical_alignment="center")
    said.caption("The weights are copied into the workspace. Nothing in the file is executed.")
    with action:
        is_asked = st.button("Load", key="fv_sae_load_start", width="stretch", disabled=is_busy)
    if not is_asked:
        return
    try:
        source = _source(here.root, place or "path", asked)
        more = backbone_flags(here.database.workspace, here.database)
        arguments = load_arguments(source, name, check, more)
    except FacvizError as error:
        st.error(str(error))
        return
    set_query(sae=None)  # the loaded one will be the newest, which shows unless the address names another
    name = "that was uploaded" if place == "upload" else short(Path(source).name, 60)
    start(here.root, title=f"Load the SAE {name}", page="sae", arguments=arguments)


def load_arguments(source: str, format_name: str, check: str, more: Sequence[str]) -> tuple[str, ...]:
    """`facviz sae load` of a path or hub name, checked on a data set or on nothing."""
    checked = f"--check={check}" if check else "--no-check"
    return ("sae", "load", source, f"--format={format_name}", checked, *more)


def save_sae_upload(root: Path, files: Mapping[str, bytes]) -> Path:
    """Keep an uploaded SAE in a folder of its own, under safe forms of its names, which some formats go by.

    One file is given back as a file; weights with their configuration as the folder of both.

    Raises:
        InputError: there is no weights file, more than one, or two files of one name.
    """
    named = {safe_name(name): content for name, content in files.items()}
    weights = [name for name in named if name.lower().endswith(_WEIGHTS)]
    if len(weights) != 1 or len(named) != len(files):
        raise InputError(
            f"Upload one weights file ({', '.join('.' + ending for ending in _WEIGHTS)}), and beside it at most its "
            "configuration as .json files."
        )
    digest = hashlib.sha256()
    for name in sorted(named):
        digest.update(name.encode() + b"\0" + hashlib.sha256(named[name]).digest())
    folder = root / UPLOADS / f"sae-{digest.hexdigest()[:12]}"
    if not all((folder / name).is_file() for name in named):
        folder.mkdir(parents=True, exist_ok=True)
        write_files({folder / name: _writer(content) for name, content in named.items()})
    return folder / weights[0] if len(named) == 1 else folder


def _writer(content: bytes) -> Any:
    return lambda temporary: temporary.write_bytes(content)


def _ask_path() -> str:
    return st.text_input("Path of the SAE's folder or file", key="fv_sae_path", max_chars=1000, help=_PATH_HELP) or ""


def _ask_hub() -> str:
    return (
        st.text_input(
            "Name on the Hugging Face hub",
            key="fv_sae_hub",
            max_chars=300,
            placeholder="owner/repo or owner/repo/folder",
            help="Fetched over the network by the machine that runs this dashboard; what is cached there needs none.",
        )
        or ""
    )


def _ask_upload() -> Any:
    limit = int(st.get_option("server.maxUploadSize"))
    return st.file_uploader(
        f"Weights, and their configuration where there is one, at most {limit} MB each",
        type=[*_WEIGHTS, "json"],
        accept_multiple_files=True,
        key="fv_sae_upload",
        help=f"A larger one is read where it lies: give its path, or use `facviz sae load` ({limit} MB is "
        "`server.maxUploadSize` in `.streamlit/config.toml`). Keep the file's own name: some formats go by it.",
    )


def _source(root: Path, place: str, asked: Any) -> str:
    """What the command loads: a path that is allowed, a saved upload, or a hub name."""
    if place == "upload":
        names = [file.name for file in asked or []]
        if len(set(names)) < len(names):
            raise InputError("Two of these files have the same name; upload each once.")
        return str(save_sae_upload(root, {file.name: file.getvalue() for file in asked or []}))
    if place == "hub":
        if not is_hub_name(asked.strip()):
            raise InputError("That is no name on the hub; write owner/repo or owner/repo/folder.")
        return str(asked.strip())
    return str(allowed_path(asked, root))


_PATH_HELP = f"Under the workspace, the folder the dashboard was started in, or a folder of {ROOTS_VARIABLE}."
_FORMAT_HELP = "Recognised by the files' names and contents; name it where two formats look alike."
_CHECK_HELP = "Ranks its FVU around its layer on these texts: whether it fits the model is on this page afterwards."
