"""The map of an SAE's features."""

from __future__ import annotations

from facviz.store.queries import Queries
from facviz.views.format import count, short

_NAME_CHARS = 60


def cluster_names(queries: Queries, sae_id: str) -> dict[int, str]:
    """Clusters of the map with their names and sizes, largest first; empty before there is a map."""
    rows = sorted(queries.rows("feature_clusters", sae_id=sae_id), key=lambda r: (-r["n_features"], r["cluster"]))
    return {r["cluster"]: f"{short(r['name'], _NAME_CHARS)} · {count(r['n_features'])}" for r in rows}
