"""Getting an SAE: training one on a data set with an estimate of its time, or loading a saved one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from facviz.config import CaptureConfig, SaeConfig, from_mapping
from facviz.errors import FacvizError
from facviz.jobs import Job, JobState
from facviz.ui.components.imports import ROOTS_VARIABLE, allowed_path
from facviz.ui.components.jobs import start
from facviz.ui.frame import Here
from facviz.views.format import count, duration
from facviz.views.sae import TrainedBefore, backbone_flags, estimate_seconds

FORM = "the form"
_MAX_LAYER = 200
_ARCHITECTURES = {"batchtopk": "BatchTopK: k features a token on average", "topk": "TopK: k features on every token"}


def forms(here: Here, datasets: Sequence[str], jobs: Sequence[Job], *, is_busy: bool, is_first: bool) -> None:
    """Both ways in; training is the page's main action while there is no SAE."""
    with st.expander("Train an SAE", key="fv_sae_train", expanded=is_first, icon=":material/model_training:"):
        if datasets:
            _train(here, datasets, trained_before(jobs), is_busy=is_busy, is_first=is_first)
        else:
            st.caption("Training needs a data set; add one on the Data page.")
            st.page_link("pages/data.py", label="Add a data set", icon=":material/arrow_forward:")
    with st.expander("Load a saved SAE", key="fv_sae_load", expanded=is_first, icon=":material/upload_file:"):
        _load(here, is_busy=is_busy)


def trained_before(jobs: Sequence[Job]) -> TrainedBefore | None:
    """The newest finished training and how long it took."""
    for job in jobs:
        if job.arguments[:2] == ("sae", "train") and job.state is JobState.DONE and job.result:
            epochs = next((int(w[9:]) for w in job.arguments if w[:9] == "--epochs=" and w[9:].isdigit()), _EPOCHS)
            tokens, d_sae = job.result.get("n_train_tokens"), job.result.get("d_sae")
            if tokens and d_sae and job.started_at and job.ended_at:
                return TrainedBefore(tokens, epochs, d_sae, job.ended_at - job.started_at)
    return None


def train_arguments(
    dataset: str, tokens: int, settings: dict[str, Any], layer: int | None, more: Sequence[str]
) -> tuple[str, ...]:
    """`facviz sae train` with these settings.

    Raises:
        InputError: they contradict each other.
    """
    from_mapping(SaeConfig, settings, where=FORM)
    from_mapping(CaptureConfig, {"dataset": dataset, "tokens": tokens}, where=FORM)
    words = ["sae", "train", f"--dataset={dataset}", f"--tokens={tokens}"]
    words += [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    kept = [word for word in more if layer is None or not word.startswith("--layer=")]
    return (*words, *kept, *([f"--layer={layer}"] if layer is not None else []))


def _train(here: Here, datasets: Sequence[str], before: TrainedBefore | None, *, is_busy: bool, is_first: bool) -> None:
    first, second = st.columns(3), st.columns(4)
    dataset = first[0].selectbox("Data set", datasets, key="fv_sae_train_on", help=_DATASET_HELP)
    tokens = first[1].number_input(
        "Content tokens",
        1_000,
        100_000_000,
        CaptureConfig(dataset="").tokens,
        50_000,
        key="fv_sae_tokens",
        help=_TOKENS_HELP,
    )
    layer = first[2].number_input(
        "Layer", 0, _MAX_LAYER, None, 1, key="fv_sae_layer", placeholder="half the model's depth", help=_LAYER_HELP
    )
    settings: dict[str, Any] = {
        "architecture": second[0].selectbox(
            "Architecture",
            list(_ARCHITECTURES),
            format_func=lambda a: _ARCHITECTURES[a].split(":")[0],
            key="fv_sae_architecture",
            help=" · ".join(_ARCHITECTURES.values()),
        ),
        "d_sae": second[1].number_input(
            "Features", 16, 262_144, SaeConfig().d_sae, 1024, key="fv_sae_d_sae", help=_D_SAE_HELP
        ),
        "k": second[2].number_input("k", 1, 1024, SaeConfig().k, 1, key="fv_sae_k", help=_K_HELP),
        "epochs": second[3].number_input("Epochs", 1, 100, _EPOCHS, 1, key="fv_sae_epochs", help=_EPOCHS_HELP),
    }
    seconds = estimate_seconds(int(tokens), int(settings["epochs"]), int(settings["d_sae"]), before)
    said, action = st.columns([4, 1], vertical_alignment="center")
    said.caption(_estimate(seconds, before))
    kind = "primary" if is_first else "secondary"
    with action:
        is_asked = st.button("Train", key="fv_sae_train_start", type=kind, width="stretch", disabled=is_busy)  # type: ignore[arg-type]
    if is_asked:
        try:
            more = backbone_flags(here.database.workspace, here.database)
            arguments = train_arguments(dataset, int(tokens), settings, layer, more)
        except FacvizError as error:
            st.error(str(error))
            return
        start(
            here.root,
            title=f"Train an SAE of {count(settings['d_sae'])} features on {dataset}",
            page="sae",
            arguments=arguments,
        )


def _estimate(seconds: float | None, before: TrainedBefore | None) -> str:
    if seconds is None or before is None:
        return "How long this takes is not known before the first training here; the job shows its pace and time left."
    return f"About {duration(seconds)}, judging by the last training here ({duration(before.seconds)})."


def _load(here: Here, *, is_busy: bool) -> None:
    typed = st.text_input("Path of the SAE's folder", key="fv_sae_path", max_chars=1000, help=_PATH_HELP)
    said, action = st.columns([4, 1], vertical_alignment="center")
    said.caption(
        "Formats: SAELens 6 folders, as `facviz export sae` writes them. The weights are copied into the workspace."
    )
    with action:
        is_asked = st.button("Load", key="fv_sae_load_start", width="stretch", disabled=is_busy)
    if not is_asked:
        return
    try:
        path = allowed_path(typed or "", here.root)
        more = backbone_flags(here.database.workspace, here.database)
    except FacvizError as error:
        st.error(str(error))
        return
    start(here.root, title=f"Load the SAE in {path.name}", page="sae", arguments=("sae", "load", str(path), *more))


_EPOCHS = SaeConfig().epochs
_DATASET_HELP = "Its texts run through the model; the SAE learns to rebuild what the model computes on them."
_TOKENS_HELP = "Content tokens to capture; held-out texts for measuring come on top. More is better and slower."
_LAYER_HELP = "Hidden-state index: 0 the embeddings, L the output of the L-th block."
_D_SAE_HELP = "More features split meanings finer and need more tokens to learn."
_K_HELP = "Active features a token: fewer are easier to explain, more rebuild better."
_EPOCHS_HELP = "Passes over the captured tokens."
_PATH_HELP = f"Under the workspace, the folder the dashboard was started in, or a folder of {ROOTS_VARIABLE}."
