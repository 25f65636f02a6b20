"""Every file format, compressed or not, gives the same documents; stray quotes and encodings lose nothing."""

import csv
import hashlib
import io
import json
import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from facviz.corpus import csv_rows, files, json_stream
from facviz.corpus.json_stream import read_json_items
from facviz.records import DroppedRow

ROWS = [
    {"text": 'She said "no",\nthen left.', "label": "toxic"},
    {"text": "naïve café 日本語 🙂", "label": "safe"},
    {"text": "tab\there, comma", "label": "safe"},
]


def as_delimited(rows, delimiter):
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def as_parquet(rows):
    stream = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


ENCODED = {
    "jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "ndjson": "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode(),
    "json": json.dumps(ROWS, indent=1).encode(),
    "csv": as_delimited(ROWS, ","),
    "tsv": as_delimited(ROWS, "\t"),
    "parquet": as_parquet(ROWS),
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("ending", ENCODED)
def test_every_format_gives_the_same_documents(read, ending, suffix):
    documents, reader = read(ENCODED[ending], f"data.{ending}{suffix}")
    assert [(d.text, d.label) for d in documents] == [(row["text"], row["label"]) for row in ROWS]
    assert reader.report.n_rows == 3
    assert reader.report.labels == {"toxic": 1, "safe": 2}
    assert reader.mapping.describe() == "shape text: text from `text`, label from `label`"


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_txt_file_is_one_document_per_non_empty_line_and_says_so(read, suffix):
    documents, reader = read(" \n = Title = \n\nFirst line.\r\nLast", f"wiki.TXT{suffix}", text_role="text")
    assert [d.text for d in documents] == [" = Title = ", "First line.", "Last"]
    assert {d.messages[0].role for d in documents} == {"text"}
    assert reader.mapping.describe() == "shape text: one document per non-empty line, no label"


def test_the_report_holds_the_hash_of_the_bytes_on_disk(read):
    _, reader = read(ENCODED["csv"], "data.csv")
    assert reader.report.sha256 == hashlib.sha256(ENCODED["csv"]).hexdigest()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv"])
def test_a_byte_order_mark_is_understood(read, ending, encoding):
    documents, _ = read(ENCODED[ending].decode().encode(encoding), f"data.{ending}")
    assert [d.text for d in documents] == [row["text"] for row in ROWS]


def test_an_object_around_one_list_of_objects_is_read_and_other_lists_are_passed_over(read):
    content = {"version": 1, "columns": ["text"], "none": [], "data": ROWS, "meta": {"n": [1, 2]}}
    documents, reader = read(json.dumps(content), "data.json")
    assert len(documents) == reader.report.n_rows == 3


@given(
    st.lists(st.recursive(st.none() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=5)),
    st.sampled_from([None, 2]),
    st.integers(1, 30),
)
def test_streamed_json_items_equal_the_json_module_at_every_chunk_size(items, indent, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK_CHARS", chunk)
        text = json.dumps(items, indent=indent)
        assert list(read_json_items(io.StringIO(text), "x.json")) == items


def test_a_long_json_list_is_never_held_whole():
    class Counting(io.StringIO):
        n_read = 0

        def read(self, size):
            chunk = super().read(size)
            self.n_read += len(chunk)
            return chunk

    stream = Counting(json.dumps(["x" * 1000] * 1000))
    items = read_json_items(stream, "x.json")
    next(items)
    assert stream.n_read < 100_000
    assert sum(1 for _ in items) == 999


def test_defect_28_a_lone_quote_in_a_csv_loses_no_row(read):
    content = 'text,label\nfirst,1\n"lone start,0\nthird,1\nsize 5" pipe,0\n"quoted, well",1\nlast,0\n'
    documents, reader = read(content, "data.csv")
    assert [d.text for d in documents] == ["first", "third", 'size 5" pipe', "quoted, well", "last"]
    assert reader.report.dropped == [DroppedRow(3, csv_rows.BAD_QUOTE, '"lone start,0')]
    assert reader.report.n_rows == 6


STRAY = ["a,1", '"b,1', 'c",1', '"d",1', '"e"x,1', '"', ',"g', 'h"",1', '"""i,1']


@given(st.lists(st.sampled_from(STRAY), max_size=8))
def test_every_line_of_a_csv_with_stray_quotes_stands_in_exactly_one_record_or_report(lines):
    line = 1
    for record in csv_rows._read_records(io.StringIO("\n".join(lines)), ","):
        number, fields = (record.row, []) if isinstance(record, DroppedRow) else record
        assert number == line
        line += 1 + "".join(fields).count("\n")
    assert line == len(lines) + 1


def test_an_unclosed_quote_at_the_end_of_a_csv_is_reported_and_the_rows_after_it_kept(read):
    documents, reader = read('text,label\na,1\n"never closed,0\nb,1\nc,0', "data.csv")
    assert [d.text for d in documents] == ["a", "b", "c"]
    assert reader.report.dropped_by_reason == {csv_rows.BAD_QUOTE: 1}


def test_a_csv_row_with_the_wrong_number_of_columns_is_dropped_and_counted(read):
    documents, reader = read("text,label\na,1\nb, with a comma,0\nc\n\nd,0\n", "data.csv")
    assert [d.text for d in documents] == ["a", "d"]
    assert reader.report.dropped_by_reason == {
        "3 columns where the header has 2": 1,
        "1 columns where the header has 2": 1,
    }
    assert [row.row for row in reader.report.dropped] == [3, 4]


csv_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(csv_text, min_size=1, max_size=6), st.sampled_from(["csv", "tsv"]))
def test_what_a_csv_writer_wrote_is_read_back(read, texts, ending):
    rows = [{"text": "first", "label": "x"}, *({"text": text, "label": "x"} for text in texts)]
    documents, _ = read(as_delimited(rows, {"csv": ",", "tsv": "\t"}[ending]), f"data.{ending}")
    kept = [t.replace("\r\n", "\n") for t in ["first", *texts] if t.strip()]
    assert [d.text for d in documents] == list(dict.fromkeys(kept))


def test_a_csv_field_of_a_megabyte_is_read(read):
    long = "x" * 999_999
    documents, reader = read(f'text,label\n"{long}",1\n"{long}yy",1\nz,0\n', "data.csv")
    assert [len(d.text) for d in documents] == [999_999, 1]
    assert reader.report.dropped_by_reason == {"too long": 1}


def test_an_endless_line_is_dropped_without_being_held_and_the_next_one_is_read(read, monkeypatch):
    monkeypatch.setattr(files, "MAX_LINE_CHARS", 50)
    documents, reader = read('{"text": "a"}\n{"text": "' + "b" * 500 + '"}\n{"text": "c"}\n')
    assert [d.text for d in documents] == ["a", "c"]
    assert [(row.row, row.reason) for row in reader.report.dropped] == [(2, "too long")]


def test_the_file_is_read_as_it_is_asked_for(open_reader, monkeypatch):
    reader = open_reader([{"text": f"row {i}"} for i in range(5000)])
    documents = iter(reader)
    next(documents)
    assert reader.report.n_rows == 1
    assert sum(1 for _ in documents) == 4999


def test_importing_the_corpus_loads_no_heavy_library():
    code = "import sys, facviz.corpus; print({'pyarrow', 'pandas', 'torch', 'duckdb', 'streamlit'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
