"""`facviz map`: a place for every feature of an SAE, once, and names of clusters, again after explanations change."""

from __future__ import annotations

from typing import Any

import numpy as np

from facviz.config import fingerprint
from facviz.explain.cluster_names import name_clusters
from facviz.pipeline.sae import open_sae
from facviz.pipeline.session import CODE_VERSION, Session
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow, to_arrow


def map_features(session: Session, sae_id: str, *, rng_seed: int = 0) -> dict[str, Any]:
    """Lay the decoder directions out, unless that was done, and name the clusters by the explanations of now."""
    layout = Scope("map", sae_id, fingerprint("map", CODE_VERSION, sae_id, rng_seed))
    placed = session.run_once(layout, lambda: _place(session, sae_id, layout, rng_seed))
    with session.workspace.reader() as reader:
        rows = reader.named("feature_places", sae_id=sae_id)
        explained = reader.rows("explained_texts", sae_id=sae_id)
    cluster_of = dict(zip(rows["feature_id"].to_pylist(), rows["cluster"].to_pylist()))
    # Words counted by machine stand in quotes; what else such an explanation says describes tokens, and names nothing.
    named_by = (r for r in explained if r["author_kind"] != "lexical" or '"' in r["text"])
    texts = {r["feature_id"]: r["text"] for r in named_by}
    names = Scope(
        "map-names", sae_id, fingerprint("map-names", CODE_VERSION, layout.fingerprint, sorted(texts.items()))
    )
    named = session.run_once(names, lambda: _name(session, sae_id, names, cluster_of, texts))
    return {"sae_id": sae_id, **placed, **named}


def _place(session: Session, sae_id: str, scope: Scope, rng_seed: int) -> dict[str, Any]:
    from facviz.sae.layout import NO_CLUSTER, lay_out

    decoder = open_sae(session, sae_id).weights.decoder_view
    session.progress.update("map", 0, None, f"laying out {len(decoder):,} features")
    found = lay_out(decoder, rng_seed=rng_seed)
    columns = {"sae_id": sae_id, "feature_id": np.arange(len(decoder), dtype=np.int32)}
    columns |= {"umap_x": found.x, "umap_y": found.y, "cluster": found.cluster.astype(np.int32)}
    session.workspace.manifest.write_shard(scope, "feature_map", "0", to_arrow("feature_map", columns, len(decoder)))
    alone = int((found.cluster == NO_CLUSTER).sum())
    return {"n_features": len(decoder), "n_clusters": found.n_clusters, "n_in_no_cluster": alone}


def _name(
    session: Session, sae_id: str, scope: Scope, cluster_of: dict[int, int], texts: dict[int, str]
) -> dict[str, Any]:
    names = name_clusters(cluster_of, texts)
    sizes = np.bincount([c for c in cluster_of.values() if c >= 0], minlength=len(names)).tolist()
    rows = [
        {"sae_id": sae_id, "cluster": cluster, "name": names.get(cluster, ""), "n_features": size}
        for cluster, size in enumerate(sizes)
    ]
    session.workspace.manifest.write_shard(scope, "feature_cluster", "0", rows_to_arrow("feature_cluster", rows))
    return {"n_named": sum(bool(row["name"]) for row in rows)}
