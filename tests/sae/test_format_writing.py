"""Safetensors files written block by block equal those the library writes, also from views that are not contiguous."""

import pytest
import torch
from safetensors.torch import load_file

from facviz.errors import SaeError
from facviz.sae.formats import writing
from facviz.sae.formats.writing import write_tensors


@pytest.mark.parametrize("block_bytes", [1, 100, 2**20])
def test_what_is_read_back_is_what_was_given_in_any_blocks(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(writing, "_BLOCK_BYTES", block_bytes)
    W_enc, threshold = torch.randn(5, 7), torch.randn(7)
    half, full = torch.float16, torch.float32
    given = {"W_enc": (W_enc, half), "W_dec": (W_enc.T, half), "threshold": (threshold, full), "b": (W_enc[0], full)}
    write_tensors(tmp_path / "x.safetensors", given)
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == given.keys()
    for name, (tensor, dtype) in given.items():
        assert found[name].dtype == dtype
        assert torch.equal(found[name], tensor.to(dtype))


def test_a_value_beyond_half_precision_is_refused(tmp_path):
    with pytest.raises(SaeError, match="too large for float16; save the SAE in full precision"):
        write_tensors(tmp_path / "x.safetensors", {"W_enc": (torch.full((2, 2), 1e6), torch.float16)})
