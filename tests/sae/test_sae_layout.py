"""The map of decoder directions: planted groups lie apart, the same seed gives the same map, few features do too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facviz.sae import layout
from facviz.sae.layout import NO_CLUSTER, lay_out


def groups(n_groups, n_each, d=32, spread=0.15, rng_seed=0):
    draw = torch.Generator().manual_seed(rng_seed)
    centres = torch.eye(d)[:n_groups]
    return torch.cat([c + spread * torch.randn(n_each, d, generator=draw) / d**0.5 for c in centres])


def test_directions_of_one_group_lie_together_and_form_a_cluster():
    found = lay_out(groups(4, 40))
    member = np.repeat(np.arange(4), 40)
    places = np.stack([found.x, found.y], axis=1)
    centre = np.stack([np.median(places[member == g], axis=0) for g in range(4)])
    nearest = np.linalg.norm(places[:, None] - centre, axis=2).argmin(axis=1)
    assert (nearest == member).mean() > 0.95
    assert found.n_clusters >= 4
    of_cluster = {c: set(member[found.cluster == c].tolist()) for c in range(found.n_clusters)}
    assert all(len(of) == 1 for of in of_cluster.values())
    assert np.abs(places).max() <= 10.0001


def test_the_same_seed_gives_the_same_map_and_length_of_a_direction_does_not_matter():
    rows = groups(3, 20)
    first = lay_out(rows)
    for other in (lay_out(rows), lay_out(4 * rows)):
        assert first.x.tolist() == other.x.tolist()
        assert first.cluster.tolist() == other.cluster.tolist()


def test_clusters_are_numbered_by_size():
    rows = torch.cat([groups(1, 15), groups(2, 60)[60:]])
    found = lay_out(rows)
    sizes = np.bincount(found.cluster[found.cluster >= 0])
    assert sizes.tolist() == sorted(sizes.tolist(), reverse=True)


@pytest.mark.parametrize("n", [1, 2, 7, 8, 12])
def test_a_handful_of_features_has_places_too(n):
    found = lay_out(torch.eye(12)[:n])
    assert found.x.shape == found.y.shape == found.cluster.shape == (n,)
    assert np.isfinite(found.x).all()
    assert n >= 8 or set(found.cluster.tolist()) == {NO_CLUSTER}


def test_very_many_directions_are_reduced_first_and_groups_stay_apart(monkeypatch):
    monkeypatch.setattr(layout, "MAX_FLOPS", 1)
    monkeypatch.setattr(layout, "REDUCED", 6)
    found = lay_out(groups(3, 40))
    member = np.repeat(np.arange(3), 40)
    assert all(len(set(member[found.cluster == c].tolist())) == 1 for c in range(found.n_clusters))
    assert found.n_clusters >= 3


def test_making_no_map_loads_no_umap(run_python):
    program = "import sys, facviz.sae.layout, facviz.pipeline.mapping, facviz.ui.components.feature_map\n"
    assert run_python(program + "print('umap' in sys.modules, 'numba' in sys.modules)").endswith("False False")
