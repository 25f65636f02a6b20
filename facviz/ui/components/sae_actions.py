"""What can be done with the chosen SAE: measure it, train it further, hand it over."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import streamlit as st

from facviz.errors import WorkspaceError
from facviz.files import disk_errors
from facviz.ui.components.explain_forms import ask_button
from facviz.ui.components.jobs import start
from facviz.ui.components.sae_forms import train_further
from facviz.ui.frame import Here
from facviz.views.format import size
from facviz.views.sae import SaeRow

MAX_DOWNLOAD_BYTES = 500_000_000
"""A larger SAE goes by the command line: a download is built in memory."""


def actions(here: Here, row: SaeRow, datasets: Sequence[str], *, is_busy: bool) -> None:
    """A row of quiet buttons; measuring stands open by itself as long as nothing of the SAE was measured."""
    is_measured = row.fvu is not None
    if datasets and not is_measured:
        with st.container(border=True, key="fv_sae_measure"):
            st.html('<b>Measure it</b><div class="fv-quiet">A loaded SAE brings no measurement of its own.</div>')
            _measure(here, row, datasets, is_busy)
    with st.container(horizontal=True, key="fv_sae_actions"):
        if datasets and is_measured:
            with st.popover("Measure", key="fv_sae_measure_menu", icon=":material/straighten:"):
                _measure(here, row, datasets, is_busy)
        if datasets:
            st.button(
                "Train further",
                key="fv_sae_further",
                icon=":material/model_training:",
                on_click=partial(train_further, row.sae_id),
                help="Opens the form below with this SAE as the start.",
            )
            ask_button(here, row.sae_id, "sae")
        with st.popover("Export", key="fv_sae_export", icon=":material/download:"):
            _export(here, row)


def eval_arguments(sae_id: str, dataset: str, *, fidelity: bool, probe: bool, health: bool) -> tuple[str, ...]:
    """`facviz sae eval` with what was asked for."""
    flags = {"--fidelity": fidelity, "--probe": probe, "--health": health}
    return ("sae", "eval", sae_id, f"--dataset={dataset}", *(flag for flag, is_wanted in flags.items() if is_wanted))


def weights_archive(folder: Path) -> bytes:
    """The SAELens folder as a zip; nothing is compressed, as weights do not shrink.

    Raises:
        WorkspaceError: a file cannot be read.
    """
    archive = io.BytesIO()
    with disk_errors(folder), zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in _weight_files(folder):
            file.write(path, path.name)
    return archive.getvalue()


def _measure(here: Here, row: SaeRow, datasets: Sequence[str], is_busy: bool) -> None:
    key = f"fv_sae_measure_{row.sae_id}"
    name = st.selectbox("Data set", datasets, key=f"{key}_on", help=_DATASET_HELP)
    wanted = {
        "health": st.checkbox("Whether it fits the model", True, key=f"{key}_health", help=_HEALTH_HELP),
        "fidelity": st.checkbox("What the model loses by it", key=f"{key}_fidelity", help=_FIDELITY_HELP),
        "probe": st.checkbox("What it tells of the labels", key=f"{key}_probe", help=_PROBE_HELP),
    }
    if st.button("Measure", key="fv_sae_measure_start", width="stretch", disabled=is_busy):
        arguments = eval_arguments(row.sae_id, name, **wanted)
        start(here.root, title=f"Measure the SAE {row.sae_id[:6]} on {name}", page="sae", arguments=arguments)


def _export(here: Here, row: SaeRow) -> None:
    st.markdown("**As a SAELens folder**")
    folder = here.database.workspace.sae_folder(row.sae_id) / "weights"
    try:
        with disk_errors(folder):
            n_bytes = sum(path.stat().st_size for path in _weight_files(folder))
    except WorkspaceError as error:
        st.caption(str(error))
        n_bytes = 0
    if 0 < n_bytes <= MAX_DOWNLOAD_BYTES:
        st.download_button(
            f"Download, {size(n_bytes)}",
            partial(weights_archive, folder),
            file_name=f"sae-{row.sae_id}.zip",
            mime="application/zip",
            key="fv_sae_download",
            icon=":material/download:",
            width="stretch",
            on_click="ignore",
        )
    st.caption("Opens in SAELens and here. On the command line:")
    st.code(f"facviz export sae --sae {row.sae_id} --out FOLDER", language="bash", wrap_lines=True)


def _weight_files(folder: Path) -> list[Path]:
    """The plain files of a folder; none where there is no folder."""
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


_DATASET_HELP = "FVU, L0, dead and always-on features are measured over all its content tokens."
_FIDELITY_HELP = "The model runs over the texts four times: as it is, with the SAE, with zeros, with the mean. Minutes."
_HEALTH_HELP = "FVU at the layers around this one, with the chat template and without; seconds to a minute."
_PROBE_HELP = "Needs a data set with labels."
