"""The demo as it ships: clean messages in named themes, a configuration that reads them, and a story that holds."""

import importlib.util
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from facviz.config import load_run_config
from facviz.corpus import CorpusReader
from facviz.overlap import normalised, words_of
from facviz.pipeline.demo import install_demo, shipped_workspace
from facviz.pipeline.demo_build import tell_story
from facviz.records import LLMReply, Outcome
from facviz.sae.formats import load_sae
from facviz.store.workspace import open_workspace

FOLDER = Path(__file__).resolve().parents[1] / "data" / "demo"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_demo_corpus", FOLDER / "make_corpus.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows():
    return [json.loads(line) for line in (FOLDER / "messages.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_shipped_messages_are_whole_usable_and_distinct(script, rows):
    texts = [row["text"] for row in rows]
    assert 1000 <= len(texts) <= 1800
    assert [t for t in texts if not script.is_usable(t)] == []
    assert len({normalised(t) for t in texts}) == len({row["id"] for row in rows}) == len(texts)


def test_at_most_one_in_a_hundred_shipped_messages_shares_most_of_its_words_with_another(rows):
    sets = [frozenset(words_of(row["text"])) for row in rows]
    vocabulary = {w: i for i, w in enumerate(sorted(set().union(*sets)))}
    has = np.zeros((len(sets), len(vocabulary)), dtype=np.float32)
    for i, words in enumerate(sets):
        has[i, [vocabulary[w] for w in words]] = 1
    shared = has @ has.T
    sizes = has.sum(axis=1)
    jaccard = shared / (sizes[:, None] + sizes[None] - shared)
    np.fill_diagonal(jaccard, 0)
    assert (jaccard.max(axis=1) > 0.9).mean() <= 0.01


def test_eight_to_twelve_themes_none_outweighing_the_others_carry_words_of_their_messages(script, rows):
    counts = Counter(row["theme"] for row in rows)
    assert 8 <= len(counts) <= 12
    assert max(counts.values()) <= script.MAX_PER_THEME
    assert min(counts.values()) >= script.MIN_PER_THEME
    assert set(counts) <= set(script.THEMES)
    for theme in counts:
        own = {row["text"] for row in rows if row["theme"] == theme}
        assert sum(any(w in t.lower() for w in script.THEMES[theme]) for t in own) > len(own) / 5, theme


def test_the_configuration_reads_every_message_and_leaves_themes_out_of_the_seed_set(rows):
    config = load_run_config(FOLDER / "demo.toml")
    anchor, seed = config.datasets
    corpus = CorpusReader(anchor)
    assert Counter(d.label for d in corpus) == Counter(row["theme"] for row in rows)
    assert corpus.report.n_dropped == corpus.report.n_duplicates == 0
    themes = {row["theme"] for row in rows}
    assert len(seed.sample.without) >= 3
    assert set(seed.sample.without) < themes
    assert seed.sample.n <= sum(row["theme"] not in seed.sample.without for row in rows)
    assert Path(config.sae.path) == FOLDER / "sae"


def test_the_story_of_the_shipped_workspace_holds_for_the_shipped_configuration():
    config = load_run_config(FOLDER / "demo.toml")
    manifest = shipped_workspace().manifest
    [measured] = manifest.latest_done("coverage").values()
    [synthesis] = manifest.latest_done("synthesize").values()
    story = tell_story(shipped_workspace(), config, {"coverage": measured, "synthesis": synthesis})
    assert story["holds"], story
    assert story["lacking_themes"] == list(config.datasets[1].sample.without)
    assert measured["act_threshold"] == config.coverage.threshold
    assert (measured["n_seed_docs"], measured["saturated"]) == (config.datasets[1].sample.n, False)


def test_the_shipped_tables_hold_exactly_the_shipped_messages(rows):
    with shipped_workspace().reader() as reader:
        anchor = reader.dataset("messages")
        documents = reader.rows("documents", dataset_id=anchor["dataset_id"])
    assert [(d["text"], d["label"]) for d in documents] == [(row["text"], row["theme"]) for row in rows]


def test_the_demo_stays_small_and_names_no_folder_of_the_machine_it_was_made_on():
    files = [path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) <= 25 * 2**20
    told = (FOLDER / "workspace" / "tables" / "manifest.jsonl").read_text(encoding="utf-8")
    assert str(FOLDER.parents[1]) not in told
    assert "/home/" not in told
    assert "/tmp/" not in told


def test_the_shipped_sae_is_the_one_its_row_describes(tmp_path):
    workspace = open_workspace(install_demo(tmp_path / "demo"))
    with workspace.reader() as reader:
        [row] = reader.rows("saes")
    sae = load_sae(workspace.sae_folder(row["sae_id"]) / "weights")
    assert (sae.d_in, sae.d_sae) == (row["d_in"], row["d_sae"])
    assert json.loads(row["metrics"]) == sae.metadata["heldout_metrics"]


@pytest.mark.parametrize(
    ("text", "is_usable"),
    [
        ("How do I keep bread fresh for a week?", True),
        ("Too short?", False),
        ("how do I keep bread fresh for a week?", False),
        ("How do I keep bread fresh for a", False),
        ("Write to me at someone@example.com about bread, please.", False),
        ("Look at www.example.net for a recipe of good bread.", False),
        ("Is this bread on YouTube any good for a beginner?", False),
        ("What a stupid recipe this is, is it not?", False),
        ("Wie geht es dem Brötchen heute Morgen im Ofen?", False),
        ("Return {'a': 1} from a function that takes a list.", False),
        (" ".join(["Very"] + ["long"] * 70) + ".", False),
        ("I like bread and I like bread and I like bread and I like bread.", False),
    ],
)
def test_a_query_is_kept_only_when_it_is_a_whole_plain_harmless_text(script, text, is_usable):
    assert script.is_usable(text) is is_usable


def test_cleaning_keeps_the_first_of_texts_that_differ_only_in_case_marks_and_space(script):
    raw = ["Can you bake\n a  cake today?", "Can you bake a cake, today?", "no", "Can you bake two cakes today?"]
    assert script.clean_queries(iter(raw)) == ["Can you bake a cake today?", "Can you bake two cakes today?"]


def test_of_vectors_that_lie_close_the_first_is_kept(script):
    angles = np.array([0.0, 0.1, 1.0, 1.05, 2.0])  # cos(0.1) and cos(0.05) are above 0.9
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert script.distinct_rows(vectors) == [0, 2, 4]


def test_clusters_become_themes_by_their_own_words(script, monkeypatch):
    monkeypatch.setattr(script, "N_CLUSTERS", 3)
    monkeypatch.setattr(script, "MIN_PER_THEME", 10)
    rng = random.Random(0)
    filler = ["please", "today", "maybe", "again", "quickly", "slowly"]
    subjects = [["recipe", "oven"], ["vacation", "beach"], ["quantum", "field"]]
    texts = [" ".join([*subjects[i % 3], *rng.sample(filler, 3)]) for i in range(60)]
    noise = np.random.default_rng(0).normal(0, 0.02, (60, 3))
    vectors = (np.eye(3)[np.arange(60) % 3] + noise).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = script.group_by_theme(texts, vectors, 0)
    assert found == {
        "recipes and cooking": list(range(0, 60, 3)),
        "trips and travel": list(range(1, 60, 3)),
    }


def test_a_theme_that_is_too_large_is_thinned_out_and_a_small_one_is_not(script):
    rng = np.random.default_rng(0)
    assert script.thin_out(range(20), rng) == list(range(20))
    thinned = script.thin_out(range(500), rng)
    assert len(set(thinned)) == script.MAX_PER_THEME
    assert thinned == sorted(thinned)
    assert max(thinned) > 400


class Writer:
    """Writes its request's seed, and one reply that was cut off."""

    def __init__(self, backbone):
        self.requests = []
        backbone.append(self)

    def complete(self, requests):
        self.requests += requests
        [request] = requests
        return [[LLMReply(f"seed {request.rng_seed}", Outcome.OK, 2), LLMReply("cut", Outcome.TRUNCATED, 2)]]


def test_a_stopped_generation_continues_with_the_batches_that_are_left(script, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "LocalChat", Writer)
    monkeypatch.setattr(script, "BATCH", 2)
    cache, writers = tmp_path / "queries.jsonl", []
    first = list(script.write_queries(writers, 4, 0, cache))
    whole = list(script.write_queries(writers, 8, 0, cache))
    assert first == ["seed 0", "seed 1"]
    assert whole == ["seed 0", "seed 1", "seed 2", "seed 3"]
    assert [len(w.requests) for w in writers] == [2, 2]
    assert whole == list(script.write_queries([], 8, 0, None))
    other = list(script.write_queries([], 4, 1, cache))
    assert not set(other) & set(whole)
