"""FAC of two FAC TSV files against numbers worked out by hand."""

from __future__ import annotations

import pytest

from facviz.errors import CoverageError, InputError
from facviz.exchange.fac_tsv import read_fac_tsv
from facviz.exchange.tsv_coverage import coverage_of_tables, how_activated

ANCHOR = """FeatureID\tTask\tVerify\tWords
1\tyes|||a\tyes\tSpan 1: a
2\tprobably|||a\tno\tSpan 1: b
3\tmaybe|||a\tmaybe\tSpan 1: c
4\tno|||a\tyes\tSpan 1: d
5\tyes|||a\tyes\t
6\tCannot Tell.\tyes\tSpan 1: e
9\tyes|||a\tyes\tSpan 1: f
"""
SEED = """FeatureID\tTask\tWords
1\tno|||a\tSpan 1: a
3\tyes|||a\t
4\tyes|||a\tSpan 1: d
9\tyes|||a\tSpan 1: f
"""


@pytest.fixture
def tables(tmp_path):
    def read(anchor, seed):
        found = []
        for name, text in (("anchor.tsv", anchor), ("seed.tsv", seed)):
            (tmp_path / name).write_text(text, encoding="utf-8")
            found.append(read_fac_tsv(tmp_path / name))
        return found

    return read


def test_fac_and_missing_features_by_hand(tables):
    # Relevant at maybe: 1, 2, 3, 5, 9; 5 names no span in the anchor. The seed fires 1, 4 and 9, of 3 it has no span.
    found = coverage_of_tables(*tables(ANCHOR, SEED))
    assert (found.n_relevant, found.n_anchor, found.n_covered, found.missing.tolist()) == (5, 4, 2, [2, 3])
    assert found.fac == 2 / 4
    assert (found.n_anchor_activated, found.n_seed_activated, found.n_unclear) == (6, 3, 1)
    assert found.saturated


@pytest.mark.parametrize(("level", "missing", "fac"), [("probably", [2], 2 / 3), ("yes", [], 1.0)])
def test_a_stricter_level_counts_fewer_features(tables, level, missing, fac):
    found = coverage_of_tables(*tables(ANCHOR, SEED), level=level)
    assert (found.missing.tolist(), found.fac) == (missing, pytest.approx(fac))


def test_verify_counts_only_when_asked_for(tables):
    found = coverage_of_tables(*tables(ANCHOR, SEED), require_verify=True)
    assert (found.n_relevant, found.missing.tolist(), found.fac) == (4, [3], pytest.approx(2 / 3))


def test_defect_1_missing_by_the_seeds_verdicts_is_told_apart_from_missing_by_activation(tables):
    found = coverage_of_tables(*tables(ANCHOR, SEED))
    assert found.missing_as_published.tolist() == [1]  # covered, yet judged no; 2 has no line and 3 is judged yes
    assert coverage_of_tables(*tables(ANCHOR, "FeatureID\n1\n")).missing_as_published is None


def test_without_words_a_line_is_what_activates(tables):
    anchor, seed = tables("FeatureID\tTask\n1\tyes\n2\tyes\n", "FeatureID\n2\n")
    assert coverage_of_tables(anchor, seed).missing.tolist() == [1]
    assert how_activated(seed) == "each with a line"


def test_questions_without_an_answer_are_refused(tables):
    with pytest.raises(InputError, match="no relevance column"):
        coverage_of_tables(*tables(SEED.replace("Task", "Other"), SEED))
    with pytest.raises(InputError, match="no column Verify"):
        coverage_of_tables(*tables(SEED, SEED), require_verify=True)
    with pytest.raises(CoverageError):
        coverage_of_tables(*tables("FeatureID\tTask\n1\tno\n", SEED))
    with pytest.raises(InputError, match="level"):
        coverage_of_tables(*tables(ANCHOR, SEED), level="perhaps")
