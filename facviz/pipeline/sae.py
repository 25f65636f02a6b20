"""`facviz sae …`: train from captured activations, load a saved one, measure it; weights under `sae/<sae_id>/`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facviz.config import BackboneConfig, CaptureConfig, SaeConfig, fingerprint, from_mapping
from facviz.errors import InputError, SaeError
from facviz.files import disk_errors
from facviz.pipeline.data import capture_dataset, open_capture
from facviz.pipeline.session import CODE_VERSION, Session, load_documents, sae_row
from facviz.protocols import NoProgress
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.store.training import TrainingCurve
from facviz.store.workspace import Workspace

if TYPE_CHECKING:
    from torch import Tensor

    from facviz.activations import ActivationShards, SaeEncoder
    from facviz.backbone import Backbone, Site
    from facviz.sae.metrics import SaeMetrics
    from facviz.sae.model import SAE
    from facviz.sae.train import StepReport

INIT_TOKENS = 20_000
CHECKPOINT_STEPS = 50
N_OUTPUT_TOKENS = 10
N_NEIGHBOURS = 10


def train(session: Session, capture: CaptureConfig, config: SaeConfig) -> dict[str, Any]:
    """Train one SAE on a capture (run first when it is missing); resumes from its checkpoint, bit for bit."""
    captured = capture_dataset(session, capture)
    described = dataclasses.replace(config, path="")
    sae_id = fingerprint("sae", CODE_VERSION, captured["capture_id"], described)[:12]
    return session.run_once(Scope("sae", sae_id, sae_id), lambda: _train(session, captured, config, sae_id))


def _train(session: Session, captured: dict[str, Any], config: SaeConfig, sae_id: str) -> dict[str, Any]:
    from facviz.sae.checkpoint import FileCheckpoints, load_state
    from facviz.sae.init import offset_ratio
    from facviz.sae.model import SAE
    from facviz.sae.train import train_sae

    shards = open_capture(session, captured["capture_id"])
    n_steps = captured["n_tokens"] * config.epochs // config.batch_tokens
    if n_steps == 0:
        raise InputError("There are fewer captured tokens than one batch; lower batch_tokens or capture more.")
    sample = _init_sample(shards, config)
    folder = session.workspace.sae_folder(sae_id)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    checkpoint = FileCheckpoints(folder / "checkpoint.safetensors", every_steps=CHECKPOINT_STEPS)
    resume = load_state(checkpoint.path) if checkpoint.path.exists() else None

    curve = TrainingCurve(folder, n_steps)

    def on_step(report: StepReport) -> None:
        curve.add(report.step, loss=report.loss, fvu=report.fvu, l0=report.l0, n_dead=report.n_dead)
        note = f"steps, batch FVU {report.fvu:.3f}, L0 {report.l0:.0f}, dead {report.n_dead}"
        session.progress.update("sae", report.step, report.n_steps, note)

    weights = train_sae(
        lambda start: _batches(shards, config, start),
        config,
        d_in=session.backbone.d_model,
        n_steps=n_steps,
        init_sample=sample,
        on_step=on_step,
        checkpoint=checkpoint,
        resume=resume,
    )
    sae = SAE(weights, _metadata(session, config, captured))
    metrics = _evaluate(sae, shards.heldout_chunks())
    sae.save(folder / "weights")
    offset = offset_ratio(sample)
    summary = _write_sae(session, sae, sae_id, metrics, config.k, config.architecture)
    checkpoint.path.unlink(missing_ok=True)
    return summary | {"n_train_tokens": captured["n_tokens"], "n_steps": n_steps, "offset_ratio": round(offset, 4)}


def _batches(shards: ActivationShards, config: SaeConfig, start: int) -> Iterator[Tensor]:
    from facviz.sae.buffer import mixing_buffer

    epochs = (shards.train_chunks(config.rng_seed + epoch) for epoch in range(config.epochs))
    return mixing_buffer(
        chain.from_iterable(epochs),
        batch_size=config.batch_tokens,
        capacity=64 * config.batch_tokens,
        rng_seed=config.rng_seed,
        skip_batches=start,
    )


def _init_sample(shards: ActivationShards, config: SaeConfig) -> Tensor:
    import torch

    chunks = list(islice(shards.train_chunks(config.rng_seed), 4))
    return torch.cat(chunks)[:INIT_TOKENS].float()


def _metadata(session: Session, config: SaeConfig, captured: dict[str, Any]) -> dict[str, Any]:
    backbone = session.backbone_config
    return _place_metadata(session.backbone) | {
        "model_name": backbone.name,
        "context_size": backbone.max_tokens,
        "training_architecture": config.architecture,
        "k": config.k,
        "dataset": captured["dataset"],
        "n_train_tokens": captured["n_tokens"],
    }


def _place_metadata(backbone: Backbone) -> dict[str, Any]:
    """Where an SAE reads; `layer` stands for a hidden state alone, so no file says it of an MLP or attention."""
    layer = {"layer": backbone.layer} if backbone.site == "resid" else {}
    return layer | {"hook_name": backbone.hook_name}


def _evaluate(sae: SAE, chunks: Iterator[Tensor]) -> SaeMetrics:
    from facviz.sae.metrics import SaeEvaluator

    evaluator = SaeEvaluator(sae)
    for chunk in chunks:
        evaluator.update(chunk)
    return evaluator.result()


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
        sae.metadata |= _place_metadata(session.backbone)  # SAELens opens what is saved here: it knows no module names
        sae.save(session.workspace.sae_folder(sae_id) / "weights")
        return _write_sae(session, sae, sae_id, None, sae.weights.activation.k or 0, sae.architecture)

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
    import hashlib

    digest = hashlib.sha256()
    for tensor in (sae.weights.W_enc, sae.weights.b_enc, sae.W_dec, sae.weights.b_dec):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write_sae(
    session: Session, sae: SAE, sae_id: str, metrics: SaeMetrics | None, k: int, architecture: str
) -> dict[str, Any]:
    values = _metric_values(metrics) if metrics else dict.fromkeys(("fvu", "l0", "dead"))  # nobody measured them
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
    session.workspace.manifest.write_shard(
        scope, "feature", "0", rows_to_arrow("feature", _features(session, sae, sae_id))
    )
    session.workspace.manifest.write_shard(scope, "sae", "0", rows_to_arrow("sae", [row]))
    return {key: row[key] for key in ("sae_id", "backbone", "layer", "architecture", "d_in", "d_sae", "k")} | values


def _metric_values(metrics: SaeMetrics) -> dict[str, Any]:
    return {
        "fvu": round(metrics.fvu, 4),
        "normalised_mse": round(metrics.normalised_mse, 4),
        "l0": round(metrics.l0, 2),
        "dead": metrics.n_dead,
        "dead_share": round(metrics.dead_share, 4),
        "n_always_on": metrics.n_always_on,
        "n_eval_tokens": metrics.n_tokens,
    }


def _features(session: Session, sae: SAE, sae_id: str) -> list[dict[str, Any]]:
    from facviz.sae.directions import logit_spread, nearest_features, top_output_tokens

    backbone = session.backbone
    norm, unembedding = backbone.final_norm_weight, backbone.unembedding.float()
    ids, logits = top_output_tokens(sae.W_dec, unembedding, N_OUTPUT_TOKENS, final_norm_weight=norm)
    mean, std = logit_spread(sae.W_dec, unembedding, final_norm_weight=norm)
    near, cosines = nearest_features(sae.W_dec, min(N_NEIGHBOURS, sae.d_sae - 1))
    return [
        {
            "sae_id": sae_id,
            "feature_id": i,
            "top_tokens": [backbone.tokenizer.decode([t]) for t in ids[i].tolist()],
            "top_logits": logits[i].tolist(),
            "logit_mean": mean[i].item(),
            "logit_std": std[i].item(),
            "neighbours": near[i].tolist(),
            "neighbour_cosines": cosines[i].tolist(),
        }
        for i in range(sae.d_sae)
    ]


def open_sae(session: Session, sae_id: str) -> SAE:
    """The weights of an SAE of this workspace."""
    from facviz.sae.formats import load_sae

    return load_sae(session.workspace.sae_folder(sae_id) / "weights", "saelens")


def evaluate(session: Session, sae_id: str, dataset_name: str) -> dict[str, Any]:
    """FVU, L0, dead and always-on features of an SAE over all content tokens of a dataset."""
    from facviz.activations import content_activations
    from facviz.sae.metrics import SaeEvaluator

    with session.workspace.reader() as reader:
        dataset = reader.dataset(dataset_name)
        documents = load_documents(reader, dataset["dataset_id"])
    evaluator = SaeEvaluator(open_sae(session, sae_id))
    renderer = session.renderer(tuple(dataset["roles"]))
    for start in range(0, len(documents), 512):
        part = [(start + i, d) for i, d in enumerate(documents[start : start + 512])]
        for batch in content_activations(
            session.fast, renderer.render_many(part), session.backbone_config.batch_tokens
        ):
            if len(batch.acts):
                evaluator.update(batch.acts)
        session.progress.update("evaluate", start + len(part), len(documents), "documents")
    return {"sae_id": sae_id, "dataset": dataset_name, **_metric_values(evaluator.result())}


def open_encoder(workspace: Workspace, sae_id: str | None = None) -> SaeEncoder:
    """The encoder of an SAE of a workspace on the backbone it was made with, in float32: for single texts."""
    row = sae_row(workspace, sae_id)
    described = {k: v for k, v in json.loads(row["provenance"])["backbone"].items() if v is not None}
    config = from_mapping(BackboneConfig, described | {"dtype": "float32"}, where="the SAE's record")
    session = Session(workspace, config, NoProgress())
    return session.encoder(open_sae(session, row["sae_id"]), ("user", "assistant", "text"))
