"""Files and settings that cannot be used raise InputError with one sentence that says what to do."""

import gzip
import json

import pytest

from facviz.config import DatasetConfig, SampleConfig
from facviz.corpus import CorpusReader
from facviz.errors import InputError

GOOD = '{"text": "a", "source": "b"}\n'


def refuse(action):
    """The message of the InputError that `action` raises, checked to be one sentence."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 600
    return message


BAD_CONTENT = {
    "empty file": ("", "data.jsonl", "holds no rows"),
    "blank lines": ("\n \n\n", "data.txt", "holds no rows"),
    "empty list": ("[]", "data.json", "holds no rows"),
    "empty JSON file": ("", "data.json", "holds no rows"),
    "header only": ("text,label\n", "data.csv", "holds no rows"),
    "no JSON at all": ("hello\nworld\n", "data.jsonl", "(invalid JSON: 2)"),
    "no objects": ("[1]\n2\n", "data.jsonl", "(not an object: 2)"),
    "broken JSON": ('[{"text": "a"}, {"text" "b"}]', "data.json", "character 17"),
    "cut JSON": ('[{"text": "a"}', "data.json", "character 15"),
    "JSON Lines called JSON": (GOOD + GOOD, "data.json", ".jsonl"),
    "a JSON number": ("3", "data.json", "must hold one list of objects"),
    "two lists": ('{"train": [{"text": "a"}], "test": [{"text": "b"}]}', "data.json", "`train` and `test`"),
    "no text field": ('{"id": 1, "turns": ["a"]}\n', "data.jsonl", "among `id`, `turns`; name the right one"),
    "bare header quote": ('text,"label\na,1\n', "data.csv", "header"),
    "two columns of one name": ("text,text\na,b\n", "data.csv", "`text` stands twice"),
    "only empty texts": ('{"text": ""}\n{"text": " "}\n', "data.jsonl", "data.jsonl"),
    "Latin-1": (
        "text\nok\nna\xefve\n".encode("latin-1"),
        "data.csv",
        "line 3, byte 11 of the file; convert it to UTF-8",
    ),
    "Latin-1 inside gzip": (GOOD.encode() + b"\xff", "data.jsonl.gz", "line 2, byte 30 of the file"),
    "cut UTF-16": ("text\nok\n".encode("utf-16") + b"\0", "data.csv", "convert it to UTF-8"),
    "UTF-16 without a mark": (GOOD.encode("utf-16-le"), "data.jsonl", "repair the file"),
    "no Parquet": (b"PAR1 nonsense PAR1", "data.parquet", "Parquet"),
    "no Parquet inside gzip": (b"nonsense", "data.parquet.gz", "Parquet"),
}


@pytest.mark.parametrize(("content", "file_name", "expected"), BAD_CONTENT.values(), ids=BAD_CONTENT)
def test_a_file_that_yields_nothing_is_refused_with_one_sentence(open_reader, content, file_name, expected):
    reader = open_reader(content, file_name)
    assert expected in refuse(lambda: list(reader))


def test_a_text_field_in_no_row_is_refused_naming_the_fields_there_are(open_reader):
    message = refuse(lambda: list(open_reader(GOOD, text_field="txet")))
    assert "missing field `txet`: 1" in message
    assert "`text`, `source`" in message


@pytest.mark.parametrize("limit", [None, 1])
def test_a_label_field_in_no_row_is_refused_naming_the_fields_there_are(open_reader, limit):
    message = refuse(lambda: list(open_reader(GOOD + GOOD, label_field="lable", limit=limit)))
    assert "no field `lable`" in message
    assert "`text`, `source`" in message


def test_a_label_field_in_some_rows_is_enough(read):
    documents, _ = read([{"text": "a"}, {"text": "b", "toxic": 1}], label_field="toxic")
    assert [d.label for d in documents] == [None, "1"]


@pytest.mark.parametrize("shape", ["messages", "prompt_completion", "chosen_rejected"])
def test_a_shape_the_fields_do_not_have_is_refused(open_reader, shape):
    assert "`source`" in refuse(lambda: list(open_reader(GOOD, shape=shape)))


def test_one_bad_line_does_not_stop_the_others(read):
    documents, reader = read("{broken\n" + GOOD)
    assert [d.text for d in documents] == ["a"]
    assert reader.report.dropped_by_reason == {"invalid JSON": 1}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("damage", ["not gzip", "cut", "flipped"])
def test_a_broken_gzip_is_refused(tmp_path, ending, damage):
    packed = bytearray(gzip.compress(json.dumps({"text": "abc " * 50}).encode()))
    if damage == "cut":
        packed = packed[:-12]
    elif damage == "flipped":
        packed[15] ^= 0xFF
    else:
        packed = bytearray(b"plain text")
    path = tmp_path / f"data.{ending}.gz"
    path.write_bytes(packed)
    assert "gzip" in refuse(lambda: list(CorpusReader(DatasetConfig(name="d", path=str(path)))))


def test_a_missing_file_a_folder_and_an_unknown_ending_are_refused_before_reading(tmp_path):
    (tmp_path / "data.xlsx").write_text("x")
    (tmp_path / "data.gz").write_text("x")
    (tmp_path / "folder.csv").mkdir()
    refusals = {"absent.csv": "no file", "folder.csv": "folder", "data.xlsx": ".jsonl", "data.gz": ".parquet"}
    for name, expected in refusals.items():
        config = DatasetConfig(name="d", path=str(tmp_path / name))
        assert expected in refuse(lambda config=config: CorpusReader(config))


def test_a_sampled_dataset_has_no_file_to_read():
    assert "`path`" in refuse(lambda: CorpusReader(DatasetConfig(name="d", sample=SampleConfig(of="x", n=1))))


@pytest.mark.parametrize(
    ("file_name", "settings"),
    [
        ("data.txt", {"shape": "messages"}),
        ("data.txt", {"text_field": "text"}),
        ("data.jsonl", {"shape": "prompt_completion", "text_field": "text"}),
        ("data.jsonl", {"shape": "chosen_rejected", "label_field": "source"}),
    ],
)
def test_settings_that_contradict_each_other_are_refused_before_reading(open_reader, file_name, settings):
    refuse(lambda: open_reader(GOOD, file_name, **settings))


def test_a_field_name_with_line_breaks_still_gives_one_line(open_reader):
    reader = open_reader([{"a\nb\ud800": 1}])
    assert "`a b\ufffd`" in refuse(lambda: reader.mapping)
