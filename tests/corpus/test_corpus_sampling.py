"""Samples depend on content and seed only."""

import random
from collections import Counter

import pytest

from facviz.config import SampleConfig
from facviz.corpus import draw_sample
from facviz.errors import InputError
from facviz.records import Document

DOCUMENTS = [Document.from_text(f"document {i}", label="1" if i % 3 == 0 else "0") for i in range(30)]


def test_a_sample_has_n_distinct_documents_in_their_original_order():
    drawn = draw_sample(DOCUMENTS, SampleConfig(of="d", n=12))
    places = [DOCUMENTS.index(d) for d in drawn]
    assert len(set(places)) == 12
    assert places == sorted(places)


def test_the_same_documents_are_drawn_from_every_file_order():
    config = SampleConfig(of="d", n=9, rng_seed=4)
    shuffled = random.Random(0).sample(DOCUMENTS, len(DOCUMENTS))
    assert {d.doc_id for d in draw_sample(shuffled, config)} == {d.doc_id for d in draw_sample(DOCUMENTS, config)}


def test_only_documents_with_the_wanted_label_are_drawn_and_all_of_them_when_n_is_their_number():
    drawn = draw_sample(DOCUMENTS, SampleConfig(of="d", n=10, label="1"))
    assert drawn == [d for d in DOCUMENTS if d.label == "1"]


def test_every_document_is_drawn_about_equally_often():
    counts = Counter(
        d.text for rng_seed in range(600) for d in draw_sample(DOCUMENTS[:10], SampleConfig("d", 3, rng_seed=rng_seed))
    )
    assert len(counts) == 10
    assert all(130 < n < 230 for n in counts.values())  # 180 expected, standard deviation 11


def test_too_few_documents_are_refused_with_both_numbers():
    with pytest.raises(InputError, match=r"has 10 documents with the label `1`, too few to draw 11; lower `n`\.$"):
        draw_sample(DOCUMENTS, SampleConfig(of="d", n=11, label="1"))
    with pytest.raises(InputError, match="has 30 documents, too few to draw 31"):
        draw_sample(DOCUMENTS, SampleConfig(of="d", n=31))


def test_documents_with_the_labels_to_leave_out_are_never_drawn():
    drawn = draw_sample(DOCUMENTS, SampleConfig(of="d", n=20, without=("1",)))
    assert drawn == [d for d in DOCUMENTS if d.label == "0"]
    with pytest.raises(InputError, match=r"has 20 documents without `1`, too few to draw 21; lower `n`\.$"):
        draw_sample(DOCUMENTS, SampleConfig(of="d", n=21, without=("1",)))


def test_unlabelled_documents_stay_when_labels_are_left_out():
    documents = [Document.from_text("a"), Document.from_text("b", label="x")]
    assert draw_sample(documents, SampleConfig(of="d", n=1, without=("x",))) == documents[:1]


def test_a_label_to_leave_out_that_no_document_has_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"No document of d has the label `2` .*; labels there: `0`, `1`\.$"):
        draw_sample(DOCUMENTS, SampleConfig(of="d", n=5, without=("1", "2")))
