"""SAEs in a workspace: taking a saved one in, writing its rows, opening it; weights under `sae/<sae_id>/`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facviz.config import BackboneConfig, fingerprint, from_mapping
from facviz.errors import SaeError
from facviz.pipeline.sae_features import feature_rows
from facviz.pipeline.sae_measures import eval_measures, metric_values, write_evaluation
from facviz.pipeline.session import Session, sae_row
from facviz.protocols import NoProgress
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.store.workspace import Workspace

if TYPE_CHECKING:
    from facviz.activations import SaeEncoder
    from facviz.backbone import Backbone, Site
    from facviz.sae.metrics import SaeMetrics
    from facviz.sae.model import SAE

DIGEST_VALUES = 2**22


def place_metadata(backbone: Backbone) -> dict[str, Any]:
    """Where an SAE reads; `layer` stands for a hidden state alone, so no file says it of an MLP or attention."""
    layer = {"layer": backbone.layer} if backbone.site == "resid" else {}
    return layer | {"hook_name": backbone.hook_name}


def load(session: Session, path: Path, format: str = "auto") -> dict[str, Any]:
    """Take a saved SAE into the workspace; its id is the hash of its weights.

    The site is the one its hook name tells; so is the layer, unless the session's configuration gives one.
    """
    from facviz.sae.formats import load_sae

    sae = load_sae(path, format)
    if sae.d_in != session.backbone.d_model:
        raise SaeError(
            f"This SAE reads {sae.d_in} dimensions but {session.backbone.name} has {session.backbone.d_model}; "
            "name the backbone it was trained on with --backbone."
        )
    place = _place_of(sae, session)
    if place != session.backbone.place:
        session.move_to_layer(place.layer, place.kind)
    site = [] if place.kind == "resid" else [place.kind]
    sae_id = fingerprint("loaded", session.backbone.identity, place.layer, _weights_digest(sae), *site)[:12]

    def work() -> dict[str, Any]:
        sae.metadata.pop("layer", None)
        sae.metadata |= place_metadata(session.backbone)  # SAELens opens what is saved here: it knows no module names
        sae.save(session.workspace.sae_folder(sae_id) / "weights")
        return store_sae(session, sae, sae_id, None, sae.weights.activation.k or 0, sae.architecture)

    return session.run_once(Scope("sae", sae_id, sae_id), work)


def _place_of(sae: SAE, session: Session) -> Site:
    from facviz.backbone import Site, site_of

    backbone, chosen = session.backbone, session.backbone_config.layer
    name, layer = sae.metadata.get("hook_name"), sae.metadata.get("layer")
    told = site_of(name, backbone) if isinstance(name, str) else None
    if told is None and isinstance(layer, int):  # formats state it of hidden states alone
        told = Site("resid" if name else backbone.site, layer)
    if told is None and name and chosen is None:
        raise SaeError(
            f"This SAE reads {str(name)[:80]!r}, which facviz cannot read in {backbone.name}; if that is a hidden "
            "state, or what an MLP or attention adds to one, say so with --layer and --site."
        )
    told = told or backbone.place
    return told if chosen is None else Site(told.kind, chosen)


def _weights_digest(sae: SAE) -> str:
    """Of all values in order, fed in slices: a tied decoder has no other copy in memory."""
    import hashlib

    import torch

    digest, weights = hashlib.sha256(), sae.weights
    for tensor in (weights.W_enc, weights.b_enc, weights.decoder_view, weights.b_dec):
        for part in torch.split(tensor, max(1, DIGEST_VALUES * len(tensor) // tensor.numel())):
            digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()


def store_sae(
    session: Session, sae: SAE, sae_id: str, metrics: SaeMetrics | None, k: int, architecture: str
) -> dict[str, Any]:
    """Write an SAE's row and those of its features; None for metrics that nobody measured."""
    values = metric_values(metrics) if metrics else dict.fromkeys(("fvu", "l0", "dead"))  # nobody measured them
    layer = session.backbone.layer
    row = {
        "sae_id": sae_id,
        "backbone": session.backbone_config.name,
        "layer": layer,
        "architecture": architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "k": k,
        "metrics": json.dumps(values),
        "provenance": json.dumps(
            {
                "backbone": dataclasses.asdict(dataclasses.replace(session.backbone_config, layer=layer)),
                "identity": session.backbone.identity,
                "hook_name": session.backbone.hook_name,
                "weights": dict(sae.weights.provenance),
            },
            default=str,
        ),
    }
    scope = Scope("sae", sae_id, sae_id)
    manifest = session.workspace.manifest
    manifest.write_shard(scope, "feature", "0", feature_rows(session.backbone, sae, sae_id))
    if metrics:
        dataset, measures = str(sae.metadata.get("dataset", "")), eval_measures(metrics, sae)
        write_evaluation(manifest, scope, sae_id=sae_id, kind="heldout", dataset=dataset, measures=measures)
    manifest.write_shard(scope, "sae", "0", rows_to_arrow("sae", [row]))
    return {key: row[key] for key in ("sae_id", "backbone", "layer", "architecture", "d_in", "d_sae", "k")} | values


def open_sae(session: Session, sae_id: str) -> SAE:
    """The weights of an SAE of this workspace."""
    from facviz.sae.formats import load_sae

    return load_sae(session.workspace.sae_folder(sae_id) / "weights", "saelens")


def open_session(workspace: Workspace, sae_id: str | None = None) -> Session:
    """A session on the backbone that an SAE of a workspace was made with, in float32: for single texts."""
    row = sae_row(workspace, sae_id)
    described = {k: v for k, v in json.loads(row["provenance"])["backbone"].items() if v is not None}
    config = from_mapping(BackboneConfig, described | {"dtype": "float32"}, where="the SAE's record")
    return Session(workspace, config, NoProgress())


def open_encoder(workspace: Workspace, sae_id: str | None = None, session: Session | None = None) -> SaeEncoder:
    """The encoder of an SAE of a workspace, of a session of its own unless one is given."""
    session = session or open_session(workspace, sae_id)
    row = sae_row(workspace, sae_id)
    return session.encoder(open_sae(session, row["sae_id"]), ("user", "assistant", "text"))
