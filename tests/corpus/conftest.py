import gzip
import json

import pytest

from facviz.config import DatasetConfig
from facviz.corpus import CorpusReader


@pytest.fixture
def open_reader(tmp_path):
    """Write `content` (bytes, text, or rows for JSONL) under a file name and return a reader for it."""

    def build(content, file_name="data.jsonl", **settings):
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        data = content.encode() if isinstance(content, str) else content
        path = tmp_path / file_name
        path.write_bytes(gzip.compress(data) if file_name.endswith(".gz") else data)
        return CorpusReader(DatasetConfig(name="d", path=str(path), **settings))

    return build


@pytest.fixture
def read(open_reader):
    """Documents and reader of a file written for the test."""

    def build(content, file_name="data.jsonl", **settings):
        reader = open_reader(content, file_name, **settings)
        return list(reader), reader

    return build
