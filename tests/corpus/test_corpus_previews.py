"""A preview shows what an import would do, and never reads more than its bounds."""

import gzip
import io
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from facviz.config import DatasetConfig, SampleConfig
from facviz.corpus import CorpusReader, files, preview, previews
from facviz.errors import InputError


@pytest.fixture
def look(tmp_path):
    """Write a file of rows, text or bytes and preview it."""

    def build(content, name="data.jsonl", n=20, **settings):
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return preview(path, DatasetConfig(name="d", path="elsewhere", **settings), n)

    return build


ROWS = [{"text": f"t{i}", "label": i % 2} if i % 3 else {"text": i} for i in range(90)]


def test_a_small_file_is_shown_as_its_import_would_read_it(look, tmp_path):
    shown = look([*ROWS, ROWS[1]], n=5)
    reader = CorpusReader(DatasetConfig(name="d", path=str(tmp_path / "data.jsonl")))
    documents = list(reader)
    assert shown.mapping == reader.mapping.describe()
    assert (shown.shape, shown.fields) == ("text", ("text", "label"))
    assert shown.documents == tuple(documents[:5])
    assert shown.dropped == tuple(reader.report.dropped[:5])
    assert shown.dropped_by_reason == {"field `text` is not text": 30}
    assert shown.labels == reader.report.labels
    assert (shown.n_rows, shown.n_documents, shown.n_duplicates) == (91, 60, 1)
    assert shown.is_complete


@pytest.mark.parametrize(("n", "is_complete"), [(1999, True), (2000, True), (2001, False), (5000, False)])
def test_at_most_two_thousand_rows_are_read_and_whether_these_are_all_is_said(look, n, is_complete):
    shown = look([{"text": f"t{i}"} for i in range(n)])
    assert shown.n_rows == min(n, 2000)
    assert shown.is_complete == is_complete
    assert len(shown.documents) == 20


def as_parquet(rows, **options):
    stream = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), stream, **options)
    return stream.getvalue()


def as_csv(rows):
    return "text\n" + "".join(row["text"] + "\n" for row in rows)


ENCODED = {
    "jsonl": lambda rows: "".join(json.dumps(row) + "\n" for row in rows),
    "json": lambda rows: json.dumps(rows),
    "csv": as_csv,
    "txt": as_csv,
    "parquet": as_parquet,
}


@pytest.mark.parametrize("ending", ENCODED)
@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "gzip"])
def test_reading_ends_with_the_bytes_allowed_and_keeps_the_whole_rows_before(look, monkeypatch, ending, is_packed):
    monkeypatch.setattr(previews, "MAX_BYTES", 150_000)
    rows = [{"text": f"{i} " + "x" * 1000} for i in range(1000)]
    content = ENCODED[ending](rows)
    content = content.encode() if isinstance(content, str) else content
    if is_packed and ending == "parquet":
        with pytest.raises(InputError, match="hold no whole row"):  # its index stands at the end
            look(gzip.compress(as_parquet(rows, use_dictionary=False, compression="none")), "data.parquet.gz")
        return
    shown = look(gzip.compress(content) if is_packed else content, f"data.{ending}{'.gz' * is_packed}")
    assert not shown.is_complete
    assert 30 <= shown.n_rows <= 200
    assert not shown.dropped
    texts = [d.text for d in shown.documents if d.text != "text"]
    assert texts == [row["text"] for row in rows[: len(texts)]]


def test_a_packed_file_of_blank_lines_is_given_up_at_the_limit(look, monkeypatch):
    monkeypatch.setattr(previews, "MAX_BYTES", 100_000)
    with pytest.raises(InputError, match=r"hold no whole row; import it without a preview\.$"):
        look(gzip.compress(b"\n" * 50_000_000), "data.jsonl.gz")


def test_columns_of_a_parquet_file_are_not_loaded_whole(tmp_path):
    path = tmp_path / "data.parquet"
    rows = [{"text": f"{i} " + "x" * 2000} for i in range(20_000)]
    path.write_bytes(as_parquet(rows, use_dictionary=False, compression="none", row_group_size=20_000))
    before = pa.total_allocated_bytes()
    reading = files.read_rows(path)
    next(reading)
    assert pa.total_allocated_bytes() - before < 10_000_000 < path.stat().st_size
    reading.close()


def test_a_folder_is_shown_from_its_first_files_with_what_is_skipped(tmp_path):
    root = tmp_path / "corpus"
    root.mkdir()
    for name in "abc":
        (root / f"{name}.jsonl").write_text("".join(f'{{"text": "{name}{i}"}}\n' for i in range(900)))
    (root / "notes.md").write_text("x")
    shown = preview(root, DatasetConfig(name="d"), n=2)
    assert [d.text for d in shown.documents] == ["a0", "a1"]
    assert (shown.n_rows, shown.n_files, shown.is_complete) == (2000, 3, False)
    assert shown.skipped_files == {"unknown ending": 1}


def test_settings_are_followed_except_path_limit_and_sample(look):
    rows = [{"title": f"t{i}", "text": "same"} for i in range(30)]
    shown = look(rows, text_field="title", text_role="assistant", limit=3, sample=SampleConfig("x", 1))
    assert (shown.n_documents, shown.documents[0].messages[0].role) == (30, "assistant")


def test_a_file_whose_rows_are_all_dropped_shows_why(look):
    shown = look([{"text": 1}, {"text": 2}], text_field="text")
    assert shown.documents == ()
    assert [row.reason for row in shown.dropped] == ["field `text` is not text"] * 2


def test_a_wrong_label_field_is_refused_only_when_no_row_can_follow(look):
    with pytest.raises(InputError, match="no field `toxic` for the label"):
        look([{"text": "a"}], label_field="toxic")
    late = [*({"text": f"t{i}"} for i in range(2500)), {"text": "last", "toxic": 1}]
    assert look(late, label_field="toxic").labels == {}


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [("", "a.jsonl", "holds no rows"), ("x", "a.docx", "unknown ending"), ('{"score": 1}', "a.jsonl", "no field for")],
)
def test_a_file_that_cannot_be_imported_is_refused_with_the_sentence_of_the_import(look, content, name, reason):
    with pytest.raises(InputError, match=reason):
        look(content, name)
