"""Evaluations read back: the newest of each kind, verdicts in words, and measures side by side."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.views.sae import list_encodings, list_saes
from facviz.views.sae_quality import (
    Evaluation,
    density_curves,
    density_datasets,
    find_match,
    fit_of,
    list_evaluations,
    loss_words,
    measured,
    newest,
    probing_table,
    side_by_side,
)

HEALTH = {
    "verdict": "fits",
    "sentence": "The SAE fits.",
    "given": {"layer": 1, "template": True, "fvu": 0.2},
    "table": [
        {"layer": 2, "template": True, "fvu": 0.4, "low": 0.3, "high": 0.5},
        {"layer": 1, "template": True, "fvu": 0.2, "low": 0.1, "high": None},
    ],
    "n_tokens": 100,
}


@pytest.fixture
def write(database):
    """Write an evaluation as a stage does; the open database sees it."""

    def add(sae_id, kind, measures, dataset="anchor", at="2026-01-01T00:00:00Z"):
        text = measures if isinstance(measures, str) else json.dumps(measures)
        row = {"sae_id": sae_id, "dataset": dataset, "kind": kind, "measures": text, "at": at}
        scope = Scope("sae_evaluation", f"{sae_id}/{kind}/{dataset}", "e" * 16)
        table = rows_to_arrow("sae_evaluation", [row])
        database.workspace.manifest.write_shard(scope, "sae_evaluation", "0", table)
        database.sync()

    return add


def made(kind, measures, dataset="anchor"):
    return Evaluation(kind, dataset, "2026", measures)


def test_the_newest_of_each_kind_counts_and_what_cannot_be_read_is_passed_over(database, write):
    [sae] = list_saes(database)
    write(sae.sae_id, "eval", {"fvu": 0.5}, "anchor", "2026-01-01T00:00:00Z")
    write(sae.sae_id, "eval", {"fvu": 0.25, "l0": 3.0, "dead": 1, "n_always_on": 2}, "seed", "2026-01-03T00:00:00Z")
    write(sae.sae_id, "heldout", {"fvu": 0.1}, "", "2026-01-02T00:00:00Z")
    write(sae.sae_id, "fidelity", "no json")
    write(sae.sae_id, "probing", "[1]")
    found = list_evaluations(database)[sae.sae_id]
    assert [(e.kind, e.dataset) for e in found] == [("eval", "seed"), ("heldout", ""), ("eval", "anchor")]
    assert newest(found, "heldout").measures == {"fvu": 0.1}
    assert newest(found, "fidelity") is None
    [row] = list_saes(database, measured({sae.sae_id: found}))
    assert (row.fvu, row.l0, row.n_dead, row.n_always_on) == (0.25, 3.0, 1, 2)
    assert measured({"x": [made("health", HEALTH)]}) == {}


def test_a_verdict_comes_with_its_table_best_first_and_the_given_place_marked():
    fit = fit_of([made("health", HEALTH)])
    assert (fit.words, fit.sentence, fit.n_tokens, fit.dataset) == ("✓ fits", "The SAE fits.", 100, "anchor")
    assert [(p.name, p.fvu, p.is_given) for p in fit.table] == [
        ("layer 1, template", 0.2, True),
        ("layer 2, template", 0.4, False),
    ]
    assert fit_of([]) is None
    words = [fit_of([made("health", HEALTH | {"verdict": v})]).words for v in ("plausible", "does not fit")]
    assert words == ["~ plausible", "✗ does not fit"]


def test_what_the_model_loses_is_words_and_unknown_is_a_dash():
    assert loss_words([made("fidelity", {"delta_ce": 0.5, "ce_score_mean": 0.9})]) == ("0.500", "90 %")
    assert loss_words([made("fidelity", {"delta_ce": 0.5, "ce_score_mean": None})]) == ("0.500", "–")
    assert loss_words([made("eval", {})]) == ("–", "–")


def test_measures_stand_side_by_side_and_those_nobody_took_are_left_out(database):
    [sae] = list_saes(database)
    nothing = {row["Measure"]: row[sae.name] for row in side_by_side([sae], {})}
    assert nothing == {"Layer": "1 · resid"}
    values = {"explained_variance": 0.875, "l2_ratio": 0.97, "duplicates": 3, "n_eval_tokens": 768}
    found = {sae.sae_id: [made("eval", values), made("fidelity", {"delta_ce": None}), made("health", HEALTH)]}
    table = {row["Measure"]: row[sae.name] for row in side_by_side([sae], found)}
    assert table == {
        "Layer": "1 · resid",
        "Measured on": "anchor, 768 tokens",
        "Explained variance": "88 %",
        "Length of reconstructions": "0.970",
        "Features with a duplicate": "3",
        "Fits the model": "✓ fits",
    }


def test_saes_are_compared_on_a_data_set_they_share_whatever_is_newer(database):
    [sae] = list_saes(database)
    other = replace(sae, sae_id="other", fvu=0.9)
    mine = [made("eval", {"fvu": 0.5, "dead": 0}, "new"), made("eval", {"fvu": 0.25, "dead": 13}, "shared")]
    both = {sae.sae_id: mine, "other": [made("heldout", {"fvu": 0.1}, "x"), made("eval", {"fvu": 0.125}, "shared")]}
    table = {row["Measure"]: list(row.values())[1:] for row in side_by_side([sae, other], both)}
    assert table["FVU"] == ["0.250", "0.125"]
    assert table["Measured on"] == ["shared, – tokens"] * 2
    assert table["Dead features"] == ["13 (50 %)", "–"]
    held_out = made("heldout", {"fvu": 0.75}, "x")
    table = side_by_side([sae, other], {sae.sae_id: [*mine, held_out], "other": [held_out]})
    assert [list(row.values())[1:] for row in table if row["Measure"] == "FVU"] == [["0.750", "0.750"]]
    apart = {sae.sae_id: mine[:1]}
    table = {row["Measure"]: list(row.values())[1:] for row in side_by_side([sae, other], apart)}
    assert table["FVU"] == ["0.500", "0.900"]
    assert table["Measured on"] == ["new, – tokens", "held-out texts"]
    assert table["Dead features"] == ["0", "–"]


def test_densities_come_from_what_an_sae_has_read_else_from_its_evaluation(database):
    [sae] = list_saes(database)
    counted = {"edges": [-1.0, 0.0], "counts": [4], "n_dead": 1}
    found = {sae.sae_id: [made("eval", {"density_counts": counted}, "other")]}
    assert density_datasets(database, [sae], found) == ["anchor", "seed", "other"]
    [read] = density_curves(database, [sae], found, "anchor")
    anchor = list_encodings(database, sae.sae_id)[0]
    assert (sum(read.counts), read.n_dead) == (anchor.n_active, 1)
    filled = np.flatnonzero(read.counts)
    # The rarest marked word stands on 8 of 768 words, the most frequent neutral one on 60.
    assert read.edges[filled[0]] <= np.log10(8 / 768) < read.edges[filled[0] + 1]
    assert read.edges[filled[-1]] <= np.log10(60 / 768) < read.edges[filled[-1] + 1]
    [stored] = density_curves(database, [sae], found, "other")
    assert (stored.edges, stored.counts, stored.n_dead) == ([-1.0, 0.0], [4], 1)
    assert density_curves(database, [sae], {}, "other") == []


def test_probes_stand_beside_guessing_and_length():
    probing = {"k": {"1": {"accuracy": 0.8}, "5": {"accuracy": None}}, "majority": 0.5, "length": {"accuracy": 0.6}}
    [row] = probing_table([made("probing", {"labels": {"x": probing}})])
    assert row == {"Label": "x", "1 feature": "80 %", "5 features": "–", "Larger class": "50 %", "Length": "60 %"}
    assert probing_table([]) == []


def test_a_matching_is_found_whichever_sae_was_named_first():
    result = {"method": "mutual nearest", "mean_max_cosine": 0.5, "share_matched": 0.25, "n": 8}
    results = [(("sae", "match", "c", "d"), result), (("sae", "match", "b", "a"), result)]
    found = find_match(results, "a", "b")
    assert (found.a, found.b, found.method, found.mean_max_cosine, found.share_matched, found.n) == (
        "b", "a", "mutual nearest", 0.5, 0.25, 8,
    )  # fmt: skip
    assert find_match(results, "a", "c") is None
    assert find_match([(("sae", "match", "a", "b"), {})], "a", "b") is None
