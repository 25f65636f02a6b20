"""The benchmark of synthesis on the planted model, end to end, and its figures and page from numbers made by hand."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import synthesis as program
from benchmarks import synthesis_report, synthesis_scores, synthesis_studies
from benchmarks.synthesis_arms import ARMS, N_PAIR, N_TUNING, TWO_STEPS, Plan, run_arm, units_of
from benchmarks.synthesis_help import evaluate_arms
from facviz.config import BackboneConfig, CoverageConfig, DatasetConfig, RelevanceConfig, SampleConfig, check_ranges
from facviz.testing.workspaces import anchor_rows, make_planted_run

REPOSITORY = Path(__file__).resolve().parents[1]
PLAN = Plan(n_targets=4, n_candidates=4, max_tokens=8, n_seeds=2, batch=16)
PLANTED_ARMS = ("one-step", "paper", "plain", "self-instruct", "magpie", "evol", "random-feature")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The planted loop: marked words are in the anchor set alone; its features jump from 0 to their strength."""
    folder = tmp_path_factory.mktemp("planted_study")
    make_planted_run(folder)
    user = {"roles": ("user",)}
    rows = [{"text": " ".join(reversed(row["text"].split())), "label": row["label"]} for row in anchor_rows()]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return synthesis_studies.Study(
        name="planted",
        title="planted words",
        datasets=(
            DatasetConfig(name="anchor", path=str(folder / "anchor.jsonl"), role="anchor", **user),
            DatasetConfig(name="seed", role="seed", sample=SampleConfig(of="anchor", n=40, label="0"), **user),
            DatasetConfig(name="test", path=str(folder / "test.jsonl"), role="eval", **user),
        ),
        relevance=RelevanceConfig(labels="anchor", positive="1", n_permutations=2000),
        coverage=CoverageConfig(anchor="anchor", seed="seed", kind="absolute", threshold=0.5, n_bootstrap=50),
        sae=folder / "models" / "sae",
        backbone=BackboneConfig(name=str(folder / "models" / "backbone"), layer=1, dtype="bfloat16"),
        test="test",
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def prepared(study, work):
    return synthesis_studies.prepare(study, work, PLAN.n_targets, quiet=True)


@pytest.fixture(scope="module")
def arms(prepared, work):
    return program.run_arms(prepared, PLANTED_ARMS, range(2), PLAN, work, program.Clock(1e6))


def test_targets_are_missing_features_drawn_once(prepared, study, work):
    assert len(set(prepared.targets)) == 4
    assert set(prepared.targets) <= set(range(12, 24))
    assert prepared.act_threshold == (0.5,) * 4
    assert prepared.gap["n_missing"] == 12
    assert prepared.gap["within_reach"] == [True] * 4
    again = synthesis_studies.prepare(study, work, PLAN.n_targets, quiet=True)
    assert again.targets == prepared.targets
    fewer = synthesis_studies.prepare(study, work, 3, quiet=True)
    assert fewer.targets == prepared.targets[:3]


def test_the_list_of_a_gap_that_was_made_is_filled_however_short_it_is(study, tmp_path, monkeypatch):
    monkeypatch.setattr("facviz.coverage.measures.is_saturated", lambda *_: True)
    made = synthesis_studies.prepare(dataclasses.replace(study, relevance=None), tmp_path, 4, quiet=True)
    assert made.gap["saturated"] is True
    assert run_arm(made, "plain", 0, PLAN, tmp_path)["drawn"] == [4] * 4


def test_the_gap_is_measured_at_every_delta_and_at_the_papers(prepared):
    assert set(prepared.gap["by_delta"]) == {"0.75", "1", "1.25", "absolute 0"}
    assert prepared.gap["by_delta"]["absolute 0"]["n_missing"] == 12
    assert prepared.gap["by_delta"]["absolute 0"]["saturated"] is False


def test_every_arm_draws_the_same_and_its_samples_activate_what_it_says(arms, prepared):
    assert [(a["arm"], a["rng_seed"]) for a in arms] == [(name, seed) for seed in range(2) for name in PLANTED_ARMS]
    for arm in arms:
        assert arm["drawn"] == [4] * 4
        assert arm["n_beside"] == (8 if arm["arm"] in TWO_STEPS else 0)
        accepted = [s for s in arm["samples"] if s["accepted"]]
        assert all(max(s["shares"]) > 1 for s in accepted)
        strengths = {(2 + f % 4) / 0.5 for f in prepared.targets}
        assert {share for s in accepted for share in s["shares"]} <= {0.0, *strengths}
    assert any(a["samples"] for a in arms if a["arm"] == "plain")


def test_an_arm_that_ended_is_read_and_another_plan_or_engine_runs_anew(arms, prepared, work, monkeypatch):
    def fail(*_):
        raise AssertionError("nothing is to be drawn")

    monkeypatch.setattr("benchmarks.synthesis_arms.synthesize", fail)
    assert run_arm(prepared, "plain", 1, PLAN, work) == next(
        a for a in arms if (a["arm"], a["rng_seed"]) == ("plain", 1)
    )
    with pytest.raises(AssertionError, match="nothing is to be drawn"):
        run_arm(prepared, "plain", 1, Plan(n_targets=4, n_candidates=2), work)
    monkeypatch.setattr("benchmarks.synthesis_arms.ENGINE", ["another"])
    with pytest.raises(AssertionError, match="nothing is to be drawn"):
        run_arm(prepared, "plain", 1, PLAN, work)


def test_an_arm_that_cannot_run_is_left_out_and_the_others_go_on(prepared, work, monkeypatch, capsys):
    from facviz.errors import InputError

    asked = []

    def run(prepared, name, rng_seed, plan, work):
        asked.append((name, rng_seed))
        if name == "steered":
            raise InputError("no push here")
        return {"arm": name}

    monkeypatch.setattr(program, "run_arm", run)
    found = program.run_arms(prepared, ["steered", "plain"], range(2), PLAN, work, program.Clock(1e6))
    assert [a["arm"] for a in found] == ["plain", "plain"]
    assert asked == [("steered", 0), ("plain", 0), ("plain", 1)]
    assert "steered is left out: no push here" in capsys.readouterr().err
    with pytest.raises(TimeoutError):
        program.run_arms(prepared, ["plain"], range(2), PLAN, work, program.Clock(-1))


def test_the_program_writes_its_record_and_section_and_resumes(study, work, arms, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "demo", lambda: study)
    monkeypatch.setattr(program, "SMALL", PLAN)
    monkeypatch.setattr(synthesis_studies, "choose_progress", lambda quiet: _Silent())
    page, out = tmp_path / "results.md", tmp_path / "record.json"
    page.write_text("# Results\n\nbefore\n")
    asked = ["--small", "--work", str(work), "--page", str(page), "--out", str(out), "--arms", *PLANTED_ARMS]
    assert program.main([*asked, "--stop-after", "-1"]) == program.NOT_ENDED
    assert not out.exists()
    assert program.main(asked) == 0
    record = json.loads(out.read_text())
    assert list(record["studies"]["planted"]["arms"]) == list(PLANTED_ARMS)
    text = page.read_text()
    assert text.startswith("# Results\n\nbefore\n\n## Does synthesis fill the gap?\n\n<!-- synthesis: begin -->")
    assert "| `random-feature` | 32 + 16 |" in text
    assert "`planted`: one-step ≥ plain" in text
    assert program.main(asked) == 0
    assert page.read_text() == text
    assert (
        text.split("<!-- synthesis: begin -->")[1].split("<!-- synthesis: end -->")[0].strip()
        in capsys.readouterr().out
    )


@pytest.mark.slow
def test_the_small_run_fills_missing_features_of_the_demo_with_the_packaged_model(tmp_path):
    """In a process of its own, which gives its memory back."""
    out = tmp_path / "small.json"
    asked = ["--small", "--work", tmp_path, "--out", out, "--arms", "one-step", "plain"]
    command = [sys.executable, "-m", "benchmarks.synthesis", *map(str, asked)]
    told = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=900, check=True)
    [study] = json.loads(out.read_text())["studies"].values()
    one_step, plain = study["arms"]["one-step"], study["arms"]["plain"]
    assert (study["n_targets"], one_step["n_drawn"], plain["n_drawn"]) == (8, 64, 64)
    assert study["generator"].startswith("local/")
    covered = [arm["missing_coverage"]["with gate"]["1"]["value"] for arm in (one_step, plain)]
    assert covered[0] >= 0.25  # two of eight; aimed texts of that model cover three quarters
    assert covered[0] > covered[1]
    assert "### " in told.stdout


class _Silent:
    def update(self, *_):
        pass


def test_without_data_the_full_run_says_what_it_needs(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("FACVIZ_DATA", raising=False)
    with pytest.raises(SystemExit):
        program.main(["--work", str(tmp_path)])
    assert "--data" in capsys.readouterr().err


def test_what_the_arms_wrote_trains_heads(arms, prepared):
    found = evaluate_arms(prepared, arms, min_added=1)
    trained = {arm["arm"] for arm in found["arms"]}
    assert {"seed", "gold", "paper", "plain", "random-feature"} <= trained
    text = "\n\n".join(synthesis_report.evaluation_section(found))
    assert "### Does it help?" in text
    assert all(f"| {arm} |" in text for arm in trained)
    assert f"prevalence {found['prevalence']:.3f}" in text


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_has_settings_that_are_allowed_and_its_budget(arm):
    config = Plan().config(arm, (1, 2, 3), 7)
    check_ranges(dataclasses.replace(config, per_feature=1), arm)
    strategy = synthesis_scores.EQUAL_TOTAL.get(arm, arm)
    assert config.strategy == strategy
    n = 8
    if arm != strategy:  # in all as many as `paper+steered`
        n = 8 + N_PAIR + N_TUNING - N_PAIR * (strategy in TWO_STEPS)
    counts_last_step = strategy in (*TWO_STEPS, "steered")
    expected = config.max_candidates if counts_last_step else config.pair_candidates + config.max_candidates
    assert expected == n == config.per_feature  # so nothing stops early
    assert strategy not in TWO_STEPS or config.pair_candidates == N_PAIR
    assert (config.max_tokens, config.rng_seed, config.features) == (40, 7, (1, 2, 3))


def test_units_are_targets_or_equal_parts_of_the_pool():
    targeted = [{"feature_id": f} for f in (5, 9, 5)]
    assert units_of(targeted, "paper", (9, 5)) == [1, 0, 1]
    pool = [{"round": r, "slot": s} for r in (1, 0) for s in range(4)]
    assert units_of(pool, "plain", (9, 5)) == [1] * 4 + [0] * 4
    random = [{"gates": json.dumps({"aimed_at": f})} for f in (40, 30, 40)]
    assert units_of(random, "random-feature", (9, 5)) == [1, 0, 1]


def arm(name, seed, samples, n_units=4):
    """Samples are (unit, accepted, shares)."""
    told = [{"unit": u, "accepted": a, "shares": list(s)} for u, a, s in samples]
    return {
        "arm": name,
        "rng_seed": seed,
        "n_units": n_units,
        "drawn": [2] * n_units,
        "n_beside": 0,
        "samples": told,
        "steps": {"pool": 2 * n_units},
    }


HAND = arm("paper", 0, [(0, True, (1.1, 0, 0.8, 0)), (1, False, (0, 1.3, 0, 0)), (3, True, (0, 0, 0, 2.0))])


def test_coverage_and_accepted_share_by_hand():
    covered = synthesis_scores.covered
    assert covered(HAND, 1.0, with_gate=True).tolist() == [1, 0, 0, 1]
    assert covered(HAND, 0.75, with_gate=True).tolist() == [1, 0, 1, 1]
    assert covered(HAND, 1.25, with_gate=True).tolist() == [0, 0, 0, 1]
    assert covered(HAND, 1.0, with_gate=False).tolist() == [1, 1, 0, 1]
    assert covered(HAND, 1.0, with_gate=True, most_units=3).tolist() == [1, 0, 0, 0]
    assert synthesis_scores.accepted_shares(HAND, with_gate=True).tolist() == [0.5, 0, 0, 0.5]
    assert synthesis_scores.accepted_shares(HAND, with_gate=False).tolist() == [0.5, 0.5, 0, 0.5]


def test_a_summary_by_hand():
    nothing = [arm("plain", seed, []) for seed in range(2)]
    found = synthesis_scores.summarise([HAND, arm("paper", 1, []), *nothing], (0.75, 1.0), [True, False, True, False])
    paper = found["arms"]["paper"]
    assert paper["missing_coverage"]["with gate"]["1"]["value"] == 2 / 8
    assert paper["missing_coverage"]["without gate"]["0.75"]["value"] == 4 / 8
    assert paper["accepted_share"]["with gate"]["value"] == 1 / 8
    assert paper["sweep"] == {
        "0.3": pytest.approx(paper["sweep"]["0.6"]),  # two of four targets, then three: the third brought nothing
        "0.6": paper["sweep"]["0.6"],
        "1": paper["missing_coverage"]["with gate"]["1"],
    }
    assert (paper["n_drawn"], paper["n_accepted"], paper["n_copied"]) == (16, 2, 1)
    assert paper["within_reach"]["value"] == 1 / 4  # the first of the two within reach, by one of two seeds
    assert "within_reach" not in synthesis_scores.summarise([HAND], (1.0,), [False] * 4)["arms"]["paper"]
    [at_one] = [o for o in found["orderings"] if o["delta"] == 1.0]
    assert (at_one["first"], at_one["second"], at_one["value"]) == ("paper", "plain", 0.25)
    assert at_one["low"] == 0.0  # both seeds may be the one that brought nothing


def test_the_interval_covers_the_truth_and_a_paired_difference_is_narrower():
    rng = np.random.default_rng(0)
    easy = rng.random(200) < 0.5
    first = np.stack([easy, easy]).astype(float)
    second = first.copy()
    second[:, :10] = 0
    draw = synthesis_scores._Bootstrap(200, 0)
    alone, difference = draw.estimate(first), draw.difference(first, second)
    assert alone.low < 0.5 < alone.high
    assert difference.value == pytest.approx(first[0, :10].mean() * 10 / 200)
    assert difference.high - difference.low < alone.high - alone.low


def estimate(value, low=None, high=None):
    return {"value": value, "low": value - 0.05 if low is None else low, "high": value + 0.05 if high is None else high}


def figures(value, n_copied=0):
    shares = {"with gate": {d: estimate(value) for d in ("0.75", "1", "1.25")}}
    shares["without gate"] = shares["with gate"]
    return {
        "n_seeds": 3, "n_drawn": 960, "n_beside": 0, "n_accepted": 100, "n_copied": n_copied, "steps": {},
        "missing_coverage": shares, "accepted_share": {"with gate": estimate(0.2), "without gate": estimate(0.25)},
        "sweep": {"0.3": estimate(value / 3), "0.6": estimate(value / 2), "1": estimate(value)},
    }  # fmt: skip


def ordering(first, second, delta, value, low, high):
    return {"first": first, "second": second, "delta": delta, "value": value, "low": low, "high": high}


@pytest.fixture
def record():
    """Two-step beats one-step clearly at .75, unclearly at 1, and loses at 1.25; 1.25 is saturated in the end."""
    by_delta = {d: {"n_missing": 60, "n_anchor": 300, "saturated": False, "fac": 0.8} for d in ("0.75", "1", "1.25")}
    by_delta["absolute 0"] = {"n_missing": 0, "n_anchor": 320, "saturated": True, "fac": 1.0}
    gap = {
        "coverage_id": "c" * 12, "n_relevant": 320, "n_anchor": 300, "n_missing": 60, "fac": 0.8, "fac_low": 0.7,
        "fac_high": 0.9, "saturated": False, "anchor": "all", "seed": "some", "n_anchor_docs": 2000,
        "n_seed_docs": 1000, "n_anchor_tokens": 1, "n_seed_tokens": 1, "task": "toxicity", "sae_id": "s",
        "by_delta": by_delta,
        "within_reach": [True] * 37 + [False] * 3,
    }  # fmt: skip
    study = {
        "title": "Some texts", "n_targets": 40, "gap": gap, "generator": "local/model", "seconds": 9.0,
        "arms": {"paper": figures(0.6, 3), "one-step": figures(0.5), "plain": figures(0.1), "evol": figures(0.2)},
        "orderings": [
            ordering("paper", "one-step", 0.75, 0.2, 0.1, 0.3), ordering("paper", "one-step", 1.0, 0.1, -0.1, 0.2),
            ordering("paper", "one-step", 1.25, -0.1, -0.2, 0.1), ordering("one-step", "plain", 0.75, 0.4, 0.3, 0.5),
            ordering("one-step", "plain", 1.0, 0.4, 0.3, 0.5), ordering("one-step", "plain", 1.25, 0.4, 0.3, 0.5),
        ],
    }  # fmt: skip
    told = {"n_candidates": 8, "max_tokens": 40, "temperature": 0.8, "n_seeds": 3}
    return told | {"studies": {"some": study}, "deltas": [0.75, 1.0, 1.25]}


def test_the_reading_says_what_holds_where_and_what_does_not(record):
    text = synthesis_report.report(record)
    assert "| `paper` | 960 | 60 % (55–65) |" in text
    assert "`some`: paper ≥ one-step holds at δ 0.75, 1 and **not** at 1.25; at 1, 1.25 the interval" in text
    assert "`some`: one-step ≥ plain holds at every unsaturated δ that tells them apart (0.75, 1, 1.25)." in text
    assert "`some`: paper+steered did not run, so its goal of 80 % is open." in text
    assert "the best baseline at δ 1 is evol, 20 %; `paper`, 60 %, is above." in text
    assert "turned down 3 by paper (accepted 100)" in text
    assert "absolute δ of 0, 0 of 320 are missing: **saturated**" in text
    assert "| one-step → two-step | 69.6 → 81.8 % | 41.1 → 45.8 % | 31.8 → 40.7 % |" in text
    assert "other model, other scale" in text
    assert "| some | paper − one-step | +20 (+10 to +30) | +10 (-10 to +20) | -10 (-20 to +10) |" in text


def test_a_single_seed_is_named_for_what_it_is(record):
    text = synthesis_report.report(record)
    assert "with 3 seeds" in text
    assert "benchmarks.synthesis --seeds 3\n```" in text
    text = synthesis_report.report(record | {"n_seeds": 1})
    assert "**with one seed only**" in text
    assert "--seeds 1\n" in text
    assert "--gaps" not in text


def test_a_saturated_delta_decides_nothing(record):
    study = record["studies"]["some"]
    study["gap"]["by_delta"]["1.25"]["saturated"] = True
    text = synthesis_report.report(record)
    assert (
        "`some`: paper ≥ one-step holds at every unsaturated δ that tells them apart (0.75, 1); at 1 the interval"
        in text
    )
    assert "Saturated as well: relative 1.25." in text


def test_a_delta_at_which_neither_covers_more_decides_nothing(record):
    study = record["studies"]["some"]
    study["orderings"][2] |= {"value": 0.0, "low": 0.0, "high": 0.0}
    text = synthesis_report.report(record)
    assert "paper ≥ one-step holds at every unsaturated δ that tells them apart (0.75, 1); at 1 the interval" in text
    assert "includes zero; at 1.25 both cover the same targets." in text
    for found in study["orderings"][:3]:
        found |= {"value": 0.0, "low": 0.0, "high": 0.0}
    assert "paper ≥ one-step is not decided at any unsaturated δ; at 0.75, 1, 1.25 both" in synthesis_report.report(
        record
    )


@pytest.mark.parametrize(("value", "verdict"), [(0.85, "reached"), (0.5, "**not reached**")])
def test_the_goal_is_told_as_it_came_out(record, value, verdict):
    study = record["studies"]["some"]
    study["arms"]["paper+steered"] = figures(value) | {"within_reach": estimate(0.9)}
    text = synthesis_report.report(record)
    assert f"the goal of 80 % by paper+steered at δ 1 is {verdict}: {100 * value:.0f} % (" in text
    assert ("The most is 60 % (55–65), by paper." in text) == (value < 0.6)
    assert ("Of the 37 targets within reach it is reached: 90 %" in text) == (value < 0.8)


def test_a_known_gap_is_filled_until_each_target_has_a_sample_and_arms_are_not():
    filling, comparing = (plan.config("paper", (3, 5), 0) for plan in (program.GAPS, program.FULL))
    assert (filling.per_feature, filling.max_candidates, filling.passes) == (1, program.GAPS.n_candidates, 2)
    assert comparing.per_feature == comparing.max_candidates == 8


def test_known_gaps_take_no_arms_of_ones_own(capsys):
    with pytest.raises(SystemExit):
        program.main(["--gaps", "--arms", "paper", "--data", "."])
    assert "leave --arms out" in capsys.readouterr().err


def test_what_is_beyond_reach_is_counted_for_arms_that_aim_alone():
    plain = arm("plain", 0, [(1, True, (0, 2.0, 0, 0))])
    found = synthesis_scores.summarise([HAND, plain], (1.0,), [True, False, True, True])["aimed"]
    # HAND draws two for each of four targets; units 0 and 3 are accepted, 1 is turned down for copying
    assert found["beyond"] == {"n_runs": 1, "n_drawn": 2, "n_accepted": 0, "n_covered": 0}
    assert found["within"] == {"n_runs": 3, "n_drawn": 6, "n_accepted": 2, "n_covered": 2}
    text = synthesis_report._beyond("some", {"aimed": found})
    assert text == [
        "`some`: arms that aim, at targets not within reach: 0 of 2 candidates accepted, covered in 0 of 1 runs; at "
        "the others: 2 of 6 candidates accepted, covered in 2 of 3 runs."
    ]
    assert synthesis_report._beyond("some", {}) == []


def test_known_gaps_stand_with_their_bar(record):
    study = record["studies"]["some"] | {"title": "code", "arms": {"paper": figures(0.7)}, "orderings": []}
    told = {"n_candidates": 16, "max_tokens": 64, "temperature": 1.0, "passes": 2}
    text = synthesis_report.report({"gaps": told | {"choices": {"code": study}}})
    assert "| code | 60 | 40 (37 within reach) | paper | 70 % (65–75) | reached | missed | – | 100 of 960 |" in text
    assert "to accept one, 16 at most in each of 2 rounds" in text
    assert "at most 64 tokens, sampled at temperature 1." in text
    assert "--gaps --choices code\n" in text
    other = study | {"n_targets": 10, "arms": {"paper": figures(0.2)}}
    both = synthesis_report.report({"gaps": told | {"choices": {"code": study, "news": other}}})
    assert "Of all 50 targets together 60 % are covered." in both


def test_the_section_is_replaced_and_the_rest_of_the_page_kept(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A\n\n<!-- synthesis: begin -->\nold\n<!-- synthesis: end -->\n\n## B\n")
    synthesis_report.write_section(page, "new")
    assert page.read_text() == "# A\n\n<!-- synthesis: begin -->\n\nnew\n\n<!-- synthesis: end -->\n\n## B\n"


def test_the_evaluation_section_shows_lines_correlations_and_the_frontier(evaluation_summary):
    text = "\n\n".join(synthesis_report.evaluation_section(evaluation_summary))
    assert "| prevalence (floor) | – | 0.525 |" in text
    assert "| ceiling, all 922 real texts | – | 0.983 (0.975–0.990) |" in text
    assert "| paper | 31 | 0.949 (" in text
    assert "- r(FAC, AUPRC) over arms: 0.98 (0.30 to 1.00), n = 4." in text
    assert "- r(FAC, AUPRC) over arms without gold: 0.98, n = 3." in text
    assert "| gold | 0.960 (0.940–0.980) / 70 % | 0.973 (0.953–0.993) / 86 % |" in text


def test_general_texts_are_first_messages_by_theme_and_none_twice(tmp_path):
    import gzip

    folder = tmp_path / "general_instructions"
    folder.mkdir()
    said = [
        ("gpteacher:codegen", "sort"),
        ("gpteacher:codegen", "sort"),
        ("t0:imdb_x", "film"),
        ("t0:dream_x", "sleep"),
    ]
    rows = []
    for number, (source, text) in enumerate(said):
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": f"reply {number}"}]
        rows.append({"source": source, "messages": turns})
    with gzip.open(folder / "conversations.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    found = synthesis_studies.general_rows(tmp_path)
    assert sorted((r["theme"], r["text"]) for r in found) == [("code", "sort"), ("other", "sleep"), ("reviews", "film")]
    study = synthesis_studies.general(tmp_path, tmp_path)
    assert study.datasets[1].sample.without == ("code", "reviews", "news")
    gaps = synthesis_studies.known_gaps(tmp_path, tmp_path)
    assert [g.title for g in gaps] == ["code", "reviews", "news"]
    half = (tmp_path / "half-b.jsonl").read_text().splitlines()
    assert len(half) == 2
    assert {g.folder for g in gaps} == {"known-gaps"}
