"""The sorted index against passes over the whole matrix, and resampling by bits against loops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from facviz import coverage
from facviz.coverage.resampling import resamples, weight_shown
from facviz.errors import InputError

VALUES = st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0, 3.5, -1.0])


@st.composite
def matrices(draw):
    """A small matrix whose values tie with each other and with thresholds, and one threshold a feature."""
    d_sae = draw(st.integers(1, 6))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    matrix = draw(hnp.arrays(dtype, (draw(st.integers(0, 9)), d_sae), elements=VALUES))
    return matrix, draw(hnp.arrays(np.float64, d_sae, elements=st.sampled_from([0.0, 0.1, 0.5, 1.0, np.inf])))


@settings(deadline=None)
@given(matrices(), st.sampled_from([np.asarray, sparse.csr_array, sparse.csc_array, sparse.coo_matrix]))
def test_the_index_answers_what_a_pass_over_the_matrix_answers(case, form):
    matrix, row = case
    index = coverage.index_activity(form(matrix))
    assert index.n_active(row).tolist() == coverage.doc_frequency(matrix, row).tolist()
    assert index.n_active(0.1).tolist() == coverage.doc_frequency(matrix, 0.1).tolist()
    assert index.maxima().tolist() == [max([float(v) for v in column if v > 0], default=0.0) for column in matrix.T]
    some = np.arange(0, matrix.shape[1], 2)
    n_active = index.n_active(row[some], some)
    assert n_active.tolist() == coverage.doc_frequency(matrix, row)[some].tolist()
    above = [[float(v) for v in matrix[:, i] if v > row[i]] for i in some]
    np.testing.assert_allclose(index.mean_active(n_active, some), [np.mean(v) if v else 0.0 for v in above])
    docs, offsets = index.docs_of(n_active, some)
    found = [sorted(docs[a:b].tolist()) for a, b in pairwise(offsets)]
    assert found == [np.flatnonzero(matrix[:, i] > row[i]).tolist() for i in some]


def test_duplicate_entries_are_summed_and_token_counts_are_checked():
    raw = sparse.csr_array((np.array([0.6, 0.6]), np.array([0, 0]), np.array([0, 2])), shape=(1, 1))
    assert coverage.index_activity(raw).maxima().tolist() == [1.2]
    assert raw.nnz == 2
    assert coverage.index_activity(np.ones((2, 1)), [3, 4]).total_tokens == 7
    with pytest.raises(InputError, match="token counts"):
        coverage.index_activity(np.ones((2, 1)), [3])
    with pytest.raises(InputError, match="NaN"):
        coverage.index_activity(np.array([[np.nan]]))


def test_sets_joined_are_the_set_of_all_their_documents():
    rng = np.random.default_rng(5)
    parts = [np.where(rng.random((n, 8)) < 0.4, rng.random((n, 8)), 0) for n in (4, 0, 6)]
    joined = coverage.join_indices([coverage.index_activity(part, np.arange(len(part))) for part in parts])
    whole = coverage.index_activity(np.vstack(parts), np.r_[np.arange(4), np.arange(6)])
    for name in ("values", "docs", "offsets", "n_tokens"):
        assert getattr(joined, name).tolist() == getattr(whole, name).tolist()
    assert joined.n_docs == 10
    np.testing.assert_array_equal(joined.p95(), coverage.positive_p95(np.vstack(parts)))
    with pytest.raises(InputError, match="different SAEs"):
        coverage.join_indices([joined, coverage.index_activity(np.ones((1, 2)))])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 150))
def test_choices_by_bits_equal_a_loop_over_choices(rng_seed, n_choices):
    rng = np.random.default_rng(rng_seed)
    fires = rng.random((17, 9)) < 0.15
    weights = rng.random((9, 2))
    chosen = rng.random((n_choices, 17)) < 0.3
    columns = sparse.csc_array(fires)
    blocks = [chosen[i : i + 64] for i in range(0, n_choices, 64)]
    found = weight_shown(columns.indices, columns.indptr, weights, blocks)
    expected = [weights[fires[row].any(axis=0)].sum(axis=0) for row in chosen]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_resamples_are_drawn_alike_however_many_are_asked_for_at_once():
    many = np.concatenate(list(resamples(30, 100, 7)))
    few = np.concatenate(list(resamples(30, 10, 7)))
    assert many.shape == (100, 30)
    assert (many[:10] == few).all()
    assert abs(many.mean() - (1 - (29 / 30) ** 30)) < 0.03


@pytest.mark.parametrize("variant", ["frequency", "magnitude"])
def test_weighted_fac_from_the_index_equals_the_weighted_fac_of_the_matrices(variant):
    rng = np.random.default_rng(3)
    anchor, seed = (np.where(rng.random((n, 40)) < 0.1, rng.gamma(2.0, 1.0, (n, 40)), 0) for n in (50, 20))
    row = coverage.thresholds("relative", 0.6, coverage.positive_p95(anchor))
    index, of_seed = coverage.index_activity(anchor), coverage.index_activity(seed)
    n_active = index.n_active(row)
    weights = n_active if variant == "frequency" else index.mean_active(n_active)
    target = n_active > 0
    covered = target & (of_seed.n_active(row) > 0)
    wanted = getattr(coverage, f"fac_{variant}")(anchor, seed, act_threshold=row)
    assert weights[covered].sum() / weights[target].sum() == pytest.approx(wanted)
