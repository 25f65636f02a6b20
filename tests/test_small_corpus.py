"""The small corpus of this repository: made by its script, varied, and labelled as the example says."""

import importlib.util
import json
from collections import Counter
from pathlib import Path

import pytest

from facviz.config import load_run_config
from facviz.corpus import CorpusReader
from facviz.prompts import load_task

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "data" / "small"
EXAMPLE = REPOSITORY / "docs" / "examples" / "small.toml"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_small_corpus", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows():
    return [json.loads(line) for line in (FOLDER / "messages.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_script_remakes_the_committed_file(script, rows):
    assert script.make_messages() == rows


def test_another_seed_makes_another_corpus(script, rows):
    assert script.make_messages(rng_seed=1) != rows


def test_messages_are_short_distinct_and_filled_in(rows):
    texts = [row["text"] for row in rows]
    assert len(set(texts)) == len(texts) == 1500
    assert all(8 <= len(text.split()) <= 60 for text in texts)
    assert not [text for text in texts if set(text) & set("{}[]|") or "  " in text]
    assert sum(len(text.split()) for text in texts) > 40_000


def test_ten_themes_have_equal_parts_and_three_carry_the_label(script, rows):
    assert set(Counter(row["theme"] for row in rows).values()) == {150}
    assert {row["theme"] for row in rows} == set(script.THEMES)
    assert {row["theme"] for row in rows if row["label"] == "1"} == set(script.LABELLED)
    assert Counter(row["label"] for row in rows) == {"0": 1050, "1": 450}


def test_the_file_stays_small_enough_to_ship():
    assert (FOLDER / "messages.jsonl").stat().st_size <= 400_000


def test_the_example_reads_every_message_and_draws_a_seed_set_without_the_label(rows):
    config = load_run_config(EXAMPLE)
    reader = CorpusReader(config.datasets[0])
    documents = list(reader)
    assert [d.text for d in documents] == [row["text"] for row in rows]
    assert reader.report.n_dropped == reader.report.n_duplicates == 0
    assert {d.label for d in documents} == {"0", config.relevance.positive}
    assert config.datasets[1].sample.label == "0"
    assert load_task(config.task).roles == config.datasets[0].roles
