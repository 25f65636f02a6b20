"""Getting an SAE: training new ones or one further, with what that costs, or loading a saved one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from facviz.config import CaptureConfig, SaeConfig, from_mapping
from facviz.errors import FacvizError, InputError
from facviz.jobs import Job, JobState
from facviz.sae.schedule import offset_words
from facviz.ui.components.jobs import start
from facviz.ui.components.sae_load import load_form
from facviz.ui.frame import Here
from facviz.views.format import count, duration, number, size
from facviz.views.sae import SaeRow, TrainedBefore, backbone_flags
from facviz.views.sae_training import (
    ARCHITECTURES,
    COST_HELP,
    MAX_RUNS,
    SITES,
    TrainingPlan,
    estimate_cost,
    whole_numbers,
)

FORM = "the form"
MAX_LAYER, MAX_FEATURES, MAX_K = 200, 262_144, 1024
_OPEN, _FROM = "fv_sae_train", "fv_sae_from"
_PLACE = ("--backbone=", "--layer=", "--site=")


def forms(here: Here, datasets: Sequence[str], jobs: Sequence[Job], saes: Sequence[SaeRow], *, is_busy: bool) -> None:
    """Both ways in; training is the page's main action while there is no SAE."""
    st.session_state.setdefault(_OPEN, not saes)
    with st.expander("Train an SAE", key=_OPEN, icon=":material/model_training:", on_change="rerun"):
        if datasets:
            _train(here, datasets, trained_before(jobs), saes, is_busy=is_busy)
        else:
            st.caption("Training needs a data set; add one on the Data page.")
            st.page_link("pages/data.py", label="Add a data set", icon=":material/arrow_forward:")
    with st.expander("Load a saved SAE", key="fv_sae_load", expanded=not saes, icon=":material/upload_file:"):
        load_form(here, datasets, is_busy=is_busy)


def train_further(sae_id: str) -> None:
    """Open the training form with this SAE as its start; for a button's callback."""
    st.session_state[_OPEN], st.session_state[_FROM] = True, sae_id
    st.toast("The training form below now starts from this SAE.", icon=":material/arrow_downward:")


def trained_before(jobs: Sequence[Job]) -> TrainedBefore | None:
    """The newest finished training and how long it took; of several SAEs on one pass, with all their features."""
    for job in jobs:
        if job.arguments[:2] == ("sae", "train") and job.state is JobState.DONE and job.result:
            epochs = next((int(w[9:]) for w in job.arguments if w[:9] == "--epochs=" and w[9:].isdigit()), _EPOCHS)
            made = job.result.get("saes") or [job.result]
            tokens, d_sae = made[0].get("n_train_tokens"), sum(one.get("d_sae") or 0 for one in made)
            if tokens and d_sae and job.started_at and job.ended_at:
                return TrainedBefore(tokens, epochs, d_sae, job.ended_at - job.started_at)
    return None


def train_arguments(
    dataset: str, plan: TrainingPlan, settings: Mapping[str, Any], place: Mapping[str, str], more: Sequence[str]
) -> tuple[str, ...]:
    """`facviz sae train` of this plan; `place` (backbone, site) goes before what `more` says of it.

    Raises:
        InputError: the settings of one of the SAEs contradict each other, or there are too many of them.
    """
    if plan.n_saes > MAX_RUNS:
        raise InputError(f"These lists make {plan.n_saes} SAEs; train at most {MAX_RUNS} at a time.")
    for d_sae, k in plan.runs():
        from_mapping(SaeConfig, {**settings, "d_sae": d_sae, "k": k, "epochs": plan.epochs}, where=FORM)
    from_mapping(CaptureConfig, {"dataset": dataset, "tokens": plan.tokens}, where=FORM)
    lists = {"d-sae": plan.d_sae, "k": plan.k, "layer": plan.layers}
    words = ["sae", "train", f"--dataset={dataset}", f"--tokens={plan.tokens}", f"--epochs={plan.epochs}"]
    words += [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    words += [f"--{name}={','.join(map(str, values))}" for name, values in lists.items() if values]
    words += [] if plan.is_kept else ["--no-keep"]
    return (*words, *_placed(place, plan.layers, more))


def _placed(place: Mapping[str, str], layers: Sequence[int], more: Sequence[str]) -> list[str]:
    """Where to read: another backbone takes nothing of the old one's place, another layer or site replaces its own."""
    stated = {"--backbone=": "backbone" in place, "--site=": "site" in place, "--layer=": bool(layers)}
    dropped = _PLACE if "backbone" in place else tuple(flag for flag, is_stated in stated.items() if is_stated)
    return [f"--{name}={value}" for name, value in place.items()] + [w for w in more if not w.startswith(dropped)]


def _train(
    here: Here, datasets: Sequence[str], before: TrainedBefore | None, saes: Sequence[SaeRow], *, is_busy: bool
) -> None:
    origin = _origin(saes)
    try:
        dataset, plan, settings, place = _settings(here, datasets, saes, origin)
        _costs(plan, before)
        _offset(saes, plan, place)
        more = backbone_flags(here.database.workspace, here.database)
        arguments = train_arguments(dataset, plan, settings, place, more)
    except FacvizError as error:
        st.error(str(error))
        return
    kind = "secondary" if saes else "primary"
    said, action = st.columns([4, 1], vertical_alignment="center")
    said.caption(_outcome(plan, origin))
    with action:
        if st.button("Train", key="fv_sae_train_start", type=kind, width="stretch", disabled=is_busy):  # type: ignore[arg-type]
            start(here.root, title=_title(plan, origin, dataset), page="sae", arguments=arguments)


def _origin(saes: Sequence[SaeRow]) -> SaeRow | None:
    """The SAE to train further; None trains from the data alone."""
    if not saes:
        return None
    by_id = {row.sae_id: row for row in reversed(saes)}
    if st.session_state.get(_FROM) not in by_id:
        st.session_state[_FROM] = ""
    chosen = st.selectbox(
        "Start from",
        ["", *by_id],
        format_func=lambda i: by_id[i].name if i else "the data: a new SAE",
        key=_FROM,
        help=_FROM_HELP,
    )
    return by_id.get(chosen)


def _settings(
    here: Here, datasets: Sequence[str], saes: Sequence[SaeRow], origin: SaeRow | None
) -> tuple[str, TrainingPlan, dict[str, Any], dict[str, str]]:
    """Data set, plan, settings of the SAE and where to read, as the form states them."""
    key = f"fv_sae_{origin.sae_id}_" if origin else "fv_sae_"
    first = st.columns(3)
    dataset = first[0].selectbox("Data set", datasets, key="fv_sae_train_on", help=_DATASET_HELP)
    tokens = first[1].number_input(
        "Content tokens",
        1_000,
        100_000_000,
        CaptureConfig(dataset="").tokens,
        50_000,
        key="fv_sae_tokens",
        help=_TOKENS,
    )
    epochs = first[2].number_input("Epochs", 1, 100, _EPOCHS, 1, key="fv_sae_epochs", help=_EPOCHS_HELP)
    second = st.columns(4)
    known = list(ARCHITECTURES)
    index = known.index(origin.architecture) if origin and origin.architecture in known else 0
    architecture = second[0].selectbox(
        "Architecture", known, index, format_func=lambda a: ARCHITECTURES[a][0], key=f"{key}architecture"
    )
    d_sae = _list(second[1], "Features", origin.d_sae if origin else SaeConfig().d_sae, f"{key}d_sae", origin is None)
    k = _list(second[2], "k", (origin and origin.k) or SaeConfig().k, f"{key}k", origin is None)
    layer = _list(
        second[3], "Layer", origin.layer if origin else None, f"{key}layer", origin is None, _usual_layer(here, saes)
    )
    st.caption(ARCHITECTURES[architecture][1])
    place, rate, is_kept = _advanced(here, saes, origin)
    plan = TrainingPlan(
        tokens=int(tokens),
        epochs=int(epochs),
        d_sae=whole_numbers(d_sae, "Features", lowest=16, highest=MAX_FEATURES),
        k=whole_numbers(k, "k", highest=MAX_K),
        layers=whole_numbers(layer, "Layer", lowest=0, highest=MAX_LAYER) if layer else (),
        d_in=_width(saes, place.get("backbone")),
        is_kept=is_kept,
    )
    settings = {"architecture": architecture, "learning_rate": rate, "continue_from": origin and origin.sae_id}
    return dataset, plan, {name: value for name, value in settings.items() if value is not None}, place


def _list(column: Any, label: str, value: int | None, key: str, is_open: bool, usual: str | None = None) -> str:
    text: str | None = column.text_input(
        label,
        "" if value is None else str(value),
        key=key,
        max_chars=80,
        disabled=not is_open,
        placeholder=usual,
        help=f"{_LIST_HELPS[label]} Several, such as {_LIST_EXAMPLES[label]}, train as many SAEs on one pass."
        if is_open
        else "That of the SAE it starts from.",
    )
    return (text or "").strip()


def _advanced(here: Here, saes: Sequence[SaeRow], origin: SaeRow | None) -> tuple[dict[str, str], float | None, bool]:
    """Backbone and site where they are not the workspace's own, the learning rate, whether activations are kept."""
    here_name, here_site = _workspace_place(here, saes)
    with st.popover("Model and learning rate", icon=":material/tune:", key="fv_sae_advanced"):
        name = st.text_input(
            "Backbone", key="fv_sae_backbone", max_chars=300, placeholder=here_name, help=_BACKBONE_HELP
        )
        known = list(SITES)
        site = st.selectbox(
            "Read", known, known.index(here_site), format_func=lambda s: SITES[s], key="fv_sae_site", help=_SITE_HELP
        )
        rate = st.number_input(
            "Learning rate", 1e-6, 1.0, None, 1e-4, format="%.1e", key="fv_sae_rate", placeholder="scaled to the run",
            help=_RATE_HELP,
        )  # fmt: skip
        is_kept = st.checkbox("Keep the activations on disk", True, key="fv_sae_keep", help=_KEEP_HELP)
    if origin is not None:
        return {"backbone": origin.backbone, "site": origin.site}, rate, is_kept
    place = {"backbone": name.strip()} if name and name.strip() not in ("", here_name) else {}
    return place | ({"site": site} if site != here_site or place else {}), rate, is_kept


def _usual_layer(here: Here, saes: Sequence[SaeRow]) -> str:
    """What an empty field takes: the layer of the last stage here, else of the newest SAE, else half the depth."""
    remembered = here.database.workspace.meta.get("backbone")
    layer = remembered.get("layer") if remembered else (saes[-1].layer if saes else None)
    is_other = (st.session_state.get("fv_sae_backbone") or "").strip() not in ("", _workspace_place(here, saes)[0])
    return "half depth" if layer is None or is_other else f"{layer}, as before"


def _workspace_place(here: Here, saes: Sequence[SaeRow]) -> tuple[str, str]:
    """Name of the backbone and site that a stage takes here unless told otherwise."""
    remembered = here.database.workspace.meta.get("backbone") or {}
    newest = saes[-1] if saes else None
    name = remembered.get("name") or (newest.backbone if newest else "default")
    site = remembered.get("site") or (newest.site if newest and not remembered else "resid")
    return str(name), site if site in SITES else "resid"


def _width(saes: Sequence[SaeRow], backbone: str | None) -> int | None:
    """Width of the model's activations as an SAE of that backbone read them; None where there is none."""
    fitting = [row.d_in for row in saes if backbone is None or row.backbone == backbone]
    return fitting[-1] if fitting else None


def _costs(plan: TrainingPlan, before: TrainedBefore | None) -> None:
    cost = estimate_cost(plan, before)
    judged = f", judging by the last training here ({duration(before.seconds)})" if before else ""
    time = f"about {duration(cost.seconds)}{judged}" if cost.seconds else "not known before the first training here"
    memory, disk = (
        "not known before an SAE of this model is here" if n is None else f"about {size(n)}"
        for n in (cost.memory_bytes, cost.disk_bytes)
    )
    for column, (name, words) in zip(st.columns(3), (("Time", time), ("Memory", memory), ("Disk", disk))):
        column.caption(f"**{name}** {words}", help=COST_HELP[name])


def _offset(saes: Sequence[SaeRow], plan: TrainingPlan, place: Mapping[str, str]) -> None:
    """γ of the same place, where an SAE was trained there before."""
    for row in reversed(saes):
        is_here = place.get("backbone", row.backbone) == row.backbone and place.get("site", row.site) == row.site
        if row.offset_ratio and is_here and (not plan.layers or row.layer in plan.layers):
            words = offset_words(row.offset_ratio)
            st.caption(f"**γ = {number(row.offset_ratio)}** at layer {row.layer}: {words}.", help=_OFFSET_HELP)
            return


def _outcome(plan: TrainingPlan, origin: SaeRow | None) -> str:
    if origin is not None:
        return f"Makes a new SAE out of {origin.sae_id[:6]}, which stays as it is."
    return "Stop and resume as you like." if plan.n_saes == 1 else f"Makes {plan.n_saes} SAEs on one pass of the model."


def _title(plan: TrainingPlan, origin: SaeRow | None, dataset: str) -> str:
    if origin is not None:
        return f"Train the SAE {origin.sae_id[:6]} further on {dataset}"
    if plan.n_saes > 1:
        return f"Train {plan.n_saes} SAEs on {dataset}"
    return f"Train an SAE of {count(plan.d_sae[0])} features on {dataset}"


_EPOCHS = SaeConfig().epochs
_DATASET_HELP = "Its texts run through the model; the SAE learns to rebuild what the model computes on them."
_TOKENS = "Content tokens to capture; held-out texts for measuring come on top. More is better and slower."
_EPOCHS_HELP = "Passes over the captured tokens."
_LIST_HELPS = {
    "Features": "More features split meanings finer and need more tokens to learn.",
    "k": "Active features a token: fewer are easier to explain, more rebuild better.",
    "Layer": "Hidden-state index: 0 the embeddings, L the output of the L-th block.",
}
_LIST_EXAMPLES = {"Features": "4096,16384", "k": "16,32,64", "Layer": "10,15,20"}
_FROM_HELP = "A finished SAE, trained or loaded, can learn from more or other texts; it keeps its features and layer."
_BACKBONE_HELP = "Hub id, folder, GGUF file or `default` for the packaged model; empty takes the workspace's."
_SITE_HELP = "The residual stream at the layer, or only what the MLP or attention of its block adds to it."
_RATE_HELP = "Empty: 2.7e-3 up to 5 million training tokens and 4,096 features, and lower above."
_KEEP_HELP = "The next training on these texts starts at once; without, the model runs again for every epoch."
_OFFSET_HELP = "γ = ‖μ‖ / ‖σ‖: the length of the activations' mean against the length of their spread."
