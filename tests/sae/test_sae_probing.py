"""Probes on planted features: the one that tells, those that do not, and the baselines that need no SAE."""

import numpy as np
import pytest
from scipy import sparse

from facviz.errors import InputError
from facviz.records import Document, Split, split_of
from facviz.sae.probing import probe_label, probe_labels

N_DOCS, D_SAE = 240, 30
DOC_IDS = [Document.from_text(f"document {i}").doc_id for i in range(N_DOCS)]
IS_TRAIN = np.array([split_of(doc_id) is Split.EXPLAIN for doc_id in DOC_IDS])


def noise(seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random((N_DOCS, D_SAE)) < 0.3, rng.random((N_DOCS, D_SAE)), 0.0).astype(np.float32)


def labels(seed=1, share=0.4):
    return np.random.default_rng(seed).random(N_DOCS) < share


LENGTHS = np.random.default_rng(2).integers(5, 200, N_DOCS)


def probe(acts, positive, lengths=LENGTHS, **changes):
    return probe_label(sparse.csr_matrix(acts), positive, lengths, DOC_IDS, **changes)


def test_a_feature_that_tells_the_label_is_found_and_is_enough():
    acts, positive = noise(), labels()
    acts[:, 17] = np.where(positive, 2.0, 0.0)
    found = probe(acts, positive)
    assert [p.k for p in found.probes] == [1, 2, 5]
    assert all(p.feature_ids[0] == 17 for p in found.probes)
    assert [len(p.feature_ids) for p in found.probes] == [1, 2, 5]
    assert (found.probes[0].accuracy, found.probes[0].auroc) == pytest.approx((1.0, 1.0))


def test_a_feature_that_is_silent_on_the_label_tells_as_much():
    acts, positive = noise(), labels()
    acts[:, 4] = np.where(positive, 0.0, 2.0)
    assert probe(acts, positive).probes[0].feature_ids == (4,)
    assert probe(acts, positive).probes[0].auroc == pytest.approx(1.0)


def test_scores_of_one_feature_are_those_of_its_ranks_on_the_other_half():
    acts, positive = noise(), labels()
    acts[:, 9] += positive * np.random.default_rng(5).random(N_DOCS) * 1.5
    best = probe(acts, positive, ks=(1,)).probes[0]
    assert best.feature_ids == (9,)
    column, truth = acts[~IS_TRAIN, 9], positive[~IS_TRAIN]
    wins = column[truth][:, None] - column[~truth][None, :]
    assert best.auroc == pytest.approx(((wins > 0) + 0.5 * (wins == 0)).mean())
    assert 0.7 < best.auroc < 1


def test_two_features_tell_what_neither_does_alone():
    acts, rng = noise(), np.random.default_rng(6)
    one, other = rng.random(N_DOCS) < 0.5, rng.random(N_DOCS) < 0.5
    acts[:, 3], acts[:, 5] = one * 2.0, other * 2.0
    probes = probe(acts, one | other).probes
    assert set(probes[1].feature_ids) == {3, 5}
    assert probes[1].accuracy == 1.0 > probes[0].accuracy


def test_features_are_chosen_on_the_training_half_alone():
    acts, positive = noise(), labels()
    acts[:, 17] = np.where(positive & ~IS_TRAIN, 20.0, 0.5)
    acts[:, 8] = np.where(positive & IS_TRAIN, 2.0, 0.0)
    assert probe(acts, positive, ks=(1,)).probes[0].feature_ids == (8,)


def test_held_out_documents_do_not_shape_the_probe_that_scores_them():
    acts, positive = noise(), labels()
    acts[:, 17] = np.where(positive, 2.0, 0.0)
    acts[np.flatnonzero(positive & ~IS_TRAIN)[0], 17] = 1e6
    assert probe(acts, positive, ks=(1,)).probes[0].accuracy == 1.0


def test_nothing_to_tell_scores_about_as_well_as_a_coin():
    found = probe(noise(), labels(share=0.5))
    assert all(0.3 < p.auroc < 0.7 for p in found.probes)


def test_the_baselines_show_a_label_that_is_only_length():
    positive = LENGTHS > 120
    found = probe(noise(), positive)
    assert found.length.auroc == pytest.approx(1.0)
    assert found.length.accuracy > 0.95
    assert found.majority_accuracy == pytest.approx((~positive[~IS_TRAIN]).mean())


def test_majority_is_that_of_the_training_half():
    positive = np.where(IS_TRAIN, np.arange(N_DOCS) % 4 > 0, np.arange(N_DOCS) % 4 == 0)
    assert probe(noise(), positive).majority_accuracy == pytest.approx(positive[~IS_TRAIN].mean())
    assert probe(noise(), positive).majority_accuracy < 0.5


def test_every_document_serves_one_half_by_its_hash():
    found = probe(noise(), labels())
    assert (found.n_train, found.n_heldout) == (IS_TRAIN.sum(), (~IS_TRAIN).sum())


def test_probing_twice_or_in_another_order_gives_the_same():
    acts, positive = noise(), labels()
    order = np.random.default_rng(3).permutation(N_DOCS)
    moved = probe_label(sparse.csr_matrix(acts[order]), positive[order], LENGTHS[order], [DOC_IDS[i] for i in order])
    first = probe(acts, positive)
    assert first == probe(acts, positive)
    for one, other in zip(first.probes, moved.probes):
        assert one.feature_ids == other.feature_ids
        assert one.auroc == pytest.approx(other.auroc)


def test_silent_features_leave_the_commoner_side_as_the_answer():
    found = probe(np.zeros((N_DOCS, D_SAE)), labels())
    assert all(p.feature_ids == () and p.auroc == 0.5 for p in found.probes)
    assert all(p.accuracy == found.majority_accuracy for p in found.probes)


def test_each_of_many_labels_is_probed_against_the_others_and_unlabelled_documents_are_left_out():
    acts, rng = noise(), np.random.default_rng(4)
    names = [("sport", "music", "law", None)[i] for i in rng.integers(0, 4, N_DOCS)]
    for i, name in enumerate(("sport", "music", "law")):
        acts[:, i] = [3.0 * (n == name or n is None) for n in names]
    found = probe_labels(sparse.csr_matrix(acts), names, LENGTHS, DOC_IDS, ks=(1,))
    assert {name: p.probes[0].feature_ids for name, p in found.items()} == {"law": (2,), "music": (1,), "sport": (0,)}
    assert all(p.probes[0].accuracy == 1.0 for p in found.values())
    assert found["law"].n_train + found["law"].n_heldout == sum(n is not None for n in names)


@pytest.mark.parametrize("names", [["a"] * N_DOCS, [None] * N_DOCS, [str(i) for i in range(N_DOCS)]])
def test_labels_that_make_no_classes_are_refused(names):
    with pytest.raises(InputError, match="needs 2 to 100"):
        probe_labels(sparse.csr_matrix(noise()), names, LENGTHS, DOC_IDS)


def test_a_label_too_rare_for_both_halves_is_named():
    names = ["common"] * N_DOCS
    names[0] = "rare"
    with pytest.raises(InputError, match=r"'(common|rare)': The .* half has documents of one label only"):
        probe_labels(sparse.csr_matrix(noise()), names, LENGTHS, DOC_IDS)


@pytest.mark.parametrize("ks", [(), (0,), (1, -2)])
def test_a_probe_needs_a_feature(ks):
    with pytest.raises(InputError, match="at least 1"):
        probe(noise(), labels(), ks=ks)


def test_rows_that_do_not_belong_together_are_refused():
    with pytest.raises(InputError, match="for each row"):
        probe(noise(), labels(), lengths=LENGTHS[:-1])
