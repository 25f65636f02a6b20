"""A 65,536-feature SAE of the published code: loaded from the command line in 3 GB, then opened on the SAE page."""

from __future__ import annotations

import json
import shutil

import pytest
from page_checks import complaints, shown
from tiny_llama import texts

from facviz.store.workspace import Workspace

MAKE_LARGE = """
import sys
import torch
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
from facviz.testing.planted import planted_tokenizer

folder, d_in, d_sae = Path(sys.argv[1]), 4096, 65536
tokenizer = planted_tokenizer()
config = LlamaConfig(
    vocab_size=len(tokenizer), hidden_size=d_in, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
    num_key_value_heads=1, head_dim=16, max_position_embeddings=512, pad_token_id=tokenizer.pad_token_id,
)
LlamaForCausalLM(config).save_pretrained(folder / "backbone")
tokenizer.save_pretrained(folder / "backbone")
weight = {"W_enc": 2 * torch.randn(d_in, d_sae) / d_in**0.5, "b_enc": torch.zeros(d_sae)}
weight |= {"b_dec": torch.zeros(d_in), "mask": torch.ones(d_sae)}
torch.save({"weight": weight, "config": {"d_inp": d_in, "d_hide": d_sae, "topK": 20}}, folder / "TopK7_l1_h65k_e1.pth")
"""
LOAD = """
import re
import sys
from facviz.cli import main

code = main(sys.argv[1:])
status = open("/proc/self/status").read()
print(code, re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
"""


@pytest.fixture
def large(tmp_path):
    """A folder for 4 GB, emptied whatever happens."""
    folder = tmp_path / "large"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_tied_sae_of_65536_features_loads_with_its_health_in_three_gigabytes_and_has_its_page(
    large, run_python, open_app
):
    run_python(MAKE_LARGE, large)
    where = ["--backbone", large / "backbone", "--workspace", large / "w", "--quiet"]
    corpus = large / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(8)), encoding="utf-8")
    run_python(LOAD, "data", "add", corpus, "--name", "corpus", *where, "--json")
    file = large / "TopK7_l1_h65k_e1.pth"
    told, ended = run_python(LOAD, "sae", "load", file, *where, "--json", timeout=600).splitlines()
    found, (code, peak_kilobytes) = json.loads(told), map(int, ended.split())
    assert (found["format"], found["d_sae"], found["k"], found["layer"]) == ("fac", 65536, 20, 1)
    assert (found["health"]["verdict"], code) == ("does not fit", 1)  # directions of norm 2 overshoot
    assert peak_kilobytes * 1024 <= 3 * 2**30
    opened = Workspace.create(large / "w")
    with opened.reader() as reader:
        row = reader.rows("feature_direction", sae_id=found["sae_id"], feature_id=65535)[0]
    assert (len(row["top_tokens"]), row["neighbours"]) == (10, [])
    app = open_app(large / "w", "sae")
    assert complaints(app) == []
    assert "does not fit layer 1" in shown(app)
    assert 65_536 in app.dataframe[0].value.to_numpy()
