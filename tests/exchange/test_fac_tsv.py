"""FAC TSV files are read by column name, every line ends as a row or in a report, and writing gives them back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facviz.errors import InputError
from facviz.exchange.cells import guard, unguard
from facviz.exchange.fac_tsv import Decision, FacRow, Judgement, fac_tsv_text, read_fac_tsv, words_of
from facviz.records import ExplanationOutcome, Verdict

PUBLISHED = (
    "FeatureID\tTask\tVerify\tSummary\tWords\n"
    "7\tyes|||It names \\n two crimes.\tprobably\tRobbery.\tSpan 1: rob the bank\\nSpan 2: a\\ttab\n"
    "9\tno|||Dates.\tmaybe\tDates.\tSpan 1: in 1945\n"
    "11\t-\t-\tCannot Tell.\tSpan 1: of\n"
    "12\t-\t-\t-\t\n"
)


def write(folder, text, name="features.tsv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def test_a_published_file_becomes_typed_rows(tmp_path):
    table = read_fac_tsv(write(tmp_path, PUBLISHED))
    assert (table.malformed, table.unreadable) == ((), ())
    first, second, third, last = table.rows
    assert (first.feature_id, first.line, first.summary) == (7, 2, "Robbery.")
    assert first.words == "Span 1: rob the bank\nSpan 2: a\ttab"
    assert (first.task.decision, first.task.analysis) == (Decision.YES, "It names \n two crimes.")
    assert first.verify == Judgement(Decision.PROBABLY, "probably")
    assert second.task.decision.verdict is Verdict.NO
    assert [row.outcome for row in table.rows][:2] == [ExplanationOutcome.EXPLAINED] * 2
    assert third.task.decision is Decision.NOT_JUDGED
    assert (last.outcome, last.has_spans, third.has_spans) == (None, False, True)


def test_writing_what_was_read_gives_the_same_bytes(tmp_path):
    table = read_fac_tsv(write(tmp_path, PUBLISHED))
    assert fac_tsv_text(table.rows, table.columns) == PUBLISHED


def test_columns_are_found_by_name_in_any_order_and_unknown_ones_are_no_harm(tmp_path):
    path = write(tmp_path, "Words\tnote\tVerify\tFeatureID\nSpan 1: a\tx\tmaybe\t3\n")
    [row] = read_fac_tsv(path).rows
    assert (row.feature_id, row.words, row.verify.decision) == (3, "Span 1: a", Decision.MAYBE)
    assert (row.summary, row.task) == (None, None)


def test_the_column_of_another_judge_can_be_named(tmp_path):
    [row] = read_fac_tsv(write(tmp_path, "FeatureID\tToxical\n3\tProbably|||x\n"), task_column="Toxical").rows
    assert row.task == Judgement(Decision.PROBABLY, "Probably", "x")


def test_defect_28_no_line_is_lost_to_a_lone_quote_and_every_bad_one_is_reported_with_its_number(tmp_path):
    lines = [
        "FeatureID\tVerify\tSummary\tWords",
        '1\tyes\tThe word "if\tSpan 1: "if',
        "2\tyes\tonly three",
        "x3\tyes\tA.\tSpan 1: a",
        "",
        "1\tno\tAgain.\tSpan 1: b",
        '5\tyes\t"quoted ""as"" CSV"\tSpan 1: c',
        '6\tyes\t"a\ttab in quotes"\tSpan 1: d',
        "7\tyes\tE.\tSpan 1: e",
    ]
    raw = "\n".join(lines).encode() + b"\n8\tyes\t\xff\tSpan 1: f\r\n\n\n"
    table = read_fac_tsv(write(tmp_path, raw))
    assert [(r.feature_id, r.summary) for r in table.rows] == [
        (1, 'The word "if'), (5, 'quoted "as" CSV'), (6, "a\ttab in quotes"), (7, "E."),
    ]  # fmt: skip
    assert [(d.row, d.reason) for d in table.malformed] == [
        (3, "3 columns where the header has 4"),
        (4, "'x3' is no feature id"),
        (5, "it is empty"),
        (6, "feature 1 stands already on line 2"),
        (10, "it is not UTF-8"),
    ]
    assert len(table.rows) + len(table.malformed) == len(lines) - 1 + 1


def test_defect_24_cannot_tell_is_an_outcome_however_it_is_written(tmp_path):
    cells = ["Cannot Tell.", "cannot tell", "CANNOT TELL"]
    text = "FeatureID\tSummary\n" + "".join(f"{i}\t{cell}\n" for i, cell in enumerate(cells))
    assert {row.outcome for row in read_fac_tsv(write(tmp_path, text)).rows} == {ExplanationOutcome.CANNOT_TELL}
    assert Judgement.parse("Cannot Tell.|||unclear").decision is Decision.CANNOT_TELL
    assert Decision.CANNOT_TELL.verdict is None


def test_defect_26_a_verdict_that_is_none_of_the_four_is_reported_and_never_no(tmp_path):
    path = write(tmp_path, "FeatureID\tTask\n1\tit depends on the reader|||Hm.\n2\tMaybe.\n")
    table = read_fac_tsv(path)
    assert [row.task.decision for row in table.rows] == [Decision.UNREADABLE, Decision.MAYBE]
    [reported] = table.unreadable
    assert reported.row == 2
    assert "it depends on the reader" in reported.reason


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path, encoding):
    [row] = read_fac_tsv(write(tmp_path, "FeatureID\tSummary\r\n4\tgrün\r\n", encoding=encoding)).rows
    assert (row.feature_id, row.summary) == (4, "grün")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no readable header"),
        ("Words\tSummary\n", "no column FeatureID"),
        ("FeatureID\tWords\tWords\n", "stands twice"),
        (b"\xff\xfeF\x00\xff", "UTF-16"),
    ],
)
def test_a_file_that_is_none_is_refused_in_one_sentence(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence) as refused:
        read_fac_tsv(write(tmp_path, text))
    assert "\n" not in str(refused.value)


def test_a_file_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_fac_tsv(tmp_path / "none.tsv")


TEXT = st.text(st.characters(exclude_characters="\r\\", exclude_categories=["Cs"]), max_size=30)


@given(st.lists(st.tuples(TEXT, TEXT, TEXT, st.sampled_from(list(Verdict))), max_size=4))
def test_any_text_survives_a_file(tmp_path_factory, rows):
    made = [
        FacRow(i, words=w, summary=s, verify=Judgement.of(None), task=Judgement.of(v, a))
        for i, (w, s, a, v) in enumerate(rows)
    ]
    columns = ("FeatureID", "Task", "Verify", "Summary", "Words")
    path = write(tmp_path_factory.mktemp("t"), fac_tsv_text(made, columns))
    table = read_fac_tsv(path)
    assert table.malformed == ()
    for before, after in zip(made, table.rows, strict=True):
        assert (before.feature_id, before.words, before.summary) == (after.feature_id, after.words, after.summary)
        assert (before.task, before.verify) == (after.task, after.verify)


@given(st.text(max_size=8))
def test_a_guarded_cell_is_never_a_formula_and_comes_back(text):
    assert not guard(text).startswith(("=", "+", "-", "@"))
    assert unguard(guard(text)) == text


def test_formulas_are_guarded_in_a_file_but_the_dash_for_nothing_is_not():
    row = FacRow(1, words=words_of(["=1+1"]), summary='=HYPERLINK("x")', verify=Judgement.of(None))
    text = fac_tsv_text([row], ("FeatureID", "Verify", "Summary", "Words"))
    assert text.splitlines()[1].split("\t") == ["1", "-", '\'=HYPERLINK("x")', "Span 1: =1+1"]
