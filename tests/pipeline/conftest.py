"""Shared by tests of stages: either paid provider, as a stub server speaks for it."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["anthropic", "openai"])
def provider(request, monkeypatch, tmp_path):
    for name in ("ANTHROPIC_AUTH_TOKEN", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    prices = tmp_path / "prices.toml"
    prices.write_text(
        '[[price]]\nprovider = "openai"\nmodel = "stub-model"\neffective_from = 2026-01-01\ninput = 0.1\noutput = 4.0\n'
    )
    monkeypatch.setenv("FACVIZ_PRICES", str(prices))
    monkeypatch.setenv("FACVIZ_LLM_TIMEOUT", "3")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-never-a-real-key")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-a-real-key-either")

    def use(server):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        return request.param

    return use
