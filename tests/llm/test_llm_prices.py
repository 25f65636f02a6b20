"""Prices are dated, a user's own come first, and what nobody priced is unknown."""

from __future__ import annotations

import datetime as dt

import pytest

from facviz.errors import InputError
from facviz.llm.adapter import Usage
from facviz.llm.prices import PRICES_VARIABLE, load_prices

MILLION = 1_000_000
OWN = """
[[price]]
provider = "openai"
model = "house-model"
effective_from = 2026-01-01
input = 0
output = 0.5
"""


@pytest.fixture(autouse=True)
def no_own_prices(monkeypatch):
    monkeypatch.delenv(PRICES_VARIABLE, raising=False)


def test_every_token_kind_has_its_price():
    price = load_prices().find("anthropic", "claude-sonnet-5-5", dt.date(2026, 11, 1))
    assert price.cost_usd(Usage(MILLION, 0)) == pytest.approx(2.0)
    assert price.cost_usd(Usage(0, MILLION)) == pytest.approx(10.0)
    assert price.cost_usd(Usage(0, 0, MILLION, 0)) == pytest.approx(0.10)
    assert price.cost_usd(Usage(0, 0, 0, MILLION)) == pytest.approx(2.5)


def test_a_call_costs_what_held_on_its_day():
    table = load_prices()
    before, after = (table.find("anthropic", "claude-sonnet-5-5", dt.date(2026, 10, day)) for day in (6, 7))
    assert (before.cache_read, after.cache_read) == (0.20, 0.10)
    assert before.version != after.version
    assert table.find("anthropic", "claude-sonnet-5-5", dt.date(2020, 1, 1)) == before


def test_a_long_prompt_makes_the_whole_request_dearer():
    price = load_prices().find("anthropic", "claude-haiku-5-5")
    assert price.cost_usd(Usage(100_000, 1000)) == pytest.approx(0.0105)
    assert price.cost_usd(Usage(60_000, 1000, 40_001)) == pytest.approx((0.006 + 0.00040001 + 0.0005) * 5)


def test_a_date_in_the_models_name_is_ignored_and_other_models_are_unknown():
    table = load_prices()
    assert table.find("anthropic", "claude-haiku-4-5-20251001") == table.find("anthropic", "claude-haiku-4-5")
    assert table.find("anthropic", "claude-haiku-9") is None
    assert table.find("openai", "claude-haiku-4-5") is None


def test_every_shipped_price_says_where_it_was_read():
    for entry in load_prices()._entries:
        assert entry.source.startswith("https://"), entry
        assert entry.output >= entry.input > 0, entry


def test_a_users_price_comes_before_the_shipped_one(tmp_path, monkeypatch):
    own = tmp_path / "own.toml"
    own.write_text(OWN.replace("house-model", "claude-opus-5").replace('"openai"', '"anthropic"') + OWN)
    monkeypatch.setenv(PRICES_VARIABLE, str(own))
    table = load_prices()
    assert table.find("anthropic", "claude-opus-5").version == "user@2026-01-01"
    assert table.find("openai", "house-model").cost_usd(Usage(MILLION, MILLION)) == pytest.approx(0.5)
    assert table.find("anthropic", "claude-opus-5-5").origin == "facviz"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("not toml", "cannot be read"),
        ("prices = 3", r"no \[\[price\]\] entries"),
        (OWN.replace("output = 0.5", ""), "lacks `output`"),
        (OWN.replace("output = 0.5", "output = -1"), "`output` cannot be -1"),
        (OWN.replace("output = 0.5", "output = nan"), "`output` cannot be nan"),
        (OWN.replace("2026-01-01", '"soon"'), "`effective_from` cannot be 'soon'"),
        (OWN + "inputs = 3", "unknown key `inputs`"),
    ],
)
def test_a_price_table_that_cannot_be_used_is_refused_by_name(tmp_path, text, sentence):
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_prices(tmp_path / "own.toml")


def test_a_price_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_prices(tmp_path / "none.toml")
