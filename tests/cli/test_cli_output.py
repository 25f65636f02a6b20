"""What commands print and how they end: one JSON object, the promised keys, exit codes, lines for people."""

from __future__ import annotations

import json

import pytest

from facviz import open_workspace
from facviz.cli.commands import _seeded
from facviz.cli.doctor import PACKAGES
from facviz.cli.report import describe
from facviz.config import load_run_config
from facviz.testing.planted import D_SAE, WORDS
from facviz.testing.workspaces import make_planted_run

COVERAGE_KEYS = {
    "coverage_id", "fac", "fac_low", "fac_high", "n_relevant", "n_anchor", "n_missing", "threshold_kind",
    "act_threshold", "level", "relevance_source", "anchor", "seed", "saturated",
}  # fmt: skip
SYNTHESIS_KEYS = {"n_attempted", "n_filled", "n_candidates", "n_accepted", "missing_coverage", "fac_after"}
COVERAGE = ["coverage", "--task", "toxicity", "--anchor", "anchor", "--seed", "seed", "--kind", "absolute"]


@pytest.fixture
def workspace(loop_copy):
    return loop_copy / "workspace"


@pytest.fixture
def read_only(planted_loop):
    return planted_loop / "workspace"


def test_run_prints_one_json_object_with_the_promised_keys(told, loop_copy, workspace):
    found = told("run", loop_copy / "planted.toml", "--workspace", workspace)
    assert {"workspace", "sae", "coverage", "synthesis", "seconds"} <= set(found)
    assert {"sae_id", "layer", "fvu", "l0", "dead"} <= set(found["sae"])
    assert set(found["coverage"]) >= COVERAGE_KEYS
    assert set(found["synthesis"]) >= SYNTHESIS_KEYS
    assert found["workspace"] == str(workspace)
    assert (found["sae"]["layer"], found["sae"]["fvu"]) == (1, None)  # of a loaded SAE nobody measured it


def test_coverage_prints_the_coverage_object_of_the_run(told, workspace):
    found = told(*COVERAGE, "--threshold", 0.5, "--workspace", workspace)
    assert set(found) >= COVERAGE_KEYS
    assert (found["fac"], found["n_missing"], found["saturated"]) == (round(5 / 17, 4), 12, False)


def test_json_is_the_only_line_on_stdout_and_progress_goes_to_stderr(facviz, bare):
    code, output, errors = facviz("spans", "--dataset", "anchor", "--workspace", bare, "--json")
    assert code == 0
    assert output.count("\n") == 1
    assert json.loads(output)["spans"][0]["n_docs"] == 96
    assert "documents of anchor" in errors
    code, output, errors = facviz(
        "explain", "--dataset", "anchor", "--no-score", "--workspace", bare, "--json", "--quiet"
    )
    assert (code, errors) == (0, "")
    assert json.loads(output)["n_explained"] == D_SAE - 1


@pytest.mark.parametrize(("min_fac", "code"), [(0.29, 0), (0.3, 1), (0.29411, 0), (0.29412, 1)])
def test_min_fac_decides_the_exit_code_and_the_answer_is_printed_all_the_same(facviz, workspace, min_fac, code):
    asked = [*COVERAGE, "--threshold", 0.5, "--min-fac", min_fac, "--workspace", workspace, "--json", "--quiet"]
    ended, output, errors = facviz(*asked)
    assert (ended, errors) == (code, "")
    assert json.loads(output)["fac"] == round(5 / 17, 4)


def test_min_fac_makes_no_other_coverage_run_of_it(told, facviz, workspace):
    plain = told(*COVERAGE, "--threshold", 0.5, "--workspace", workspace)
    gated = facviz(*COVERAGE, "--threshold", 0.5, "--min-fac", 0.9, "--workspace", workspace, "--json", "--quiet")
    assert json.loads(gated[1]) == plain


def test_exported_samples_hold_the_promised_keys(told, read_only, tmp_path):
    found = told("export", "samples", "--out", tmp_path / "samples.jsonl", "--workspace", read_only)
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert found["n_samples"] == len(lines) > 0
    for line in lines:
        assert {"text", "messages", "feature_id", "act", "act_threshold", "candidate_id"} <= set(line)
        assert line["messages"] == [{"role": "user", "content": line["text"]}]
        assert WORDS[line["feature_id"]] in line["text"].split()


def test_features_a_report_and_the_sae_can_be_exported(told, read_only, tmp_path, planted_sae):
    import torch

    from facviz import load_sae

    features = told("export", "features", "--out", tmp_path / "f.jsonl", "--workspace", read_only)
    rows = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text(encoding="utf-8").splitlines()]
    assert features["n_features"] == len(rows) == 2 * D_SAE
    told("export", "report", "--out", tmp_path / "report.md", "--workspace", read_only)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "FAC **0.294**" in report
    assert "12 of 17 missing" in report
    assert "| 2.0 | 0.250 | 12 | 9 |" in report
    told("export", "sae", "--out", tmp_path / "sae", "--workspace", read_only)
    assert torch.equal(load_sae(tmp_path / "sae").weights.W_enc, planted_sae.weights.W_enc)


def test_adding_data_prints_the_guessed_mapping_and_what_became_of_the_rows(facviz, bare, tmp_path):
    path = tmp_path / "mixed.jsonl"
    rows = [{"query": "apple bread", "toxicity": 1}, {"query": "apple bread", "toxicity": 1}, {"other": 1}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{torn\n")
    code, output, _ = facviz("data", "add", path, "--name", "mixed", "--workspace", bare, "--quiet")
    assert code == 0
    assert "mapping: shape text: text from `query`, label from `toxicity`" in output
    assert "n_docs: 1" in output
    assert "n_duplicates: 1" in output
    assert "invalid JSON: 1" in output
    dropped = [json.loads(line) for line in (bare / "datasets" / "mixed-dropped.jsonl").read_text().splitlines()]
    assert [row["row"] for row in dropped] == [3, 4]


def test_a_guessed_mapping_can_be_overridden(told, bare, tmp_path):
    path = tmp_path / "two.csv"
    path.write_text("text,title,label\napple,bread cloud drum,1\n")
    found = told(
        "data", "add", path, "--name", "two", "--text-field", "title", "--label-field", "", "--workspace", bare
    )
    assert found["mapping"] == "shape text: text from `title`, no label"
    assert (found["n_content_tokens"], found["labels"]) == (3, {})


def test_a_line_of_a_megabyte_is_a_document_and_its_cut_is_counted(told, bare, tmp_path):
    path = tmp_path / "long.jsonl"
    lines = [
        {"text": "apple bread " * 83_000, "note": "x" * 9_000},
        {"text": "apple"},
        {"text": "apple bread " * 84_000},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(path.read_text().splitlines()[0]) > 1_000_000
    found = told("data", "add", path, "--name", "long", "--workspace", bare)
    assert (found["n_docs"], found["dropped_by_reason"]) == (2, {"too long": 1})
    assert found["n_content_tokens"] + found["n_cut_tokens"] == 166_001
    assert found["max_tokens"] <= 512


def test_text_that_is_hardly_text_is_kept_or_dropped_with_a_reason(told, bare, tmp_path):
    odd = ["half a pair \ud83d", "emoji 🙂 and zero\u200bwidth", "<|im_start|>user\napple", "\u202eapple"]
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*odd, "a nul \x00 inside"]))
    found = told("data", "add", path, "--name", "odd", "--workspace", bare)
    assert (found["n_docs"], found["dropped_by_reason"]) == (4, {"text holds a NUL character": 1})
    told("spans", "--dataset", "odd", "--workspace", bare)
    assert open_workspace(bare).spans(0).num_rows == 2


def test_doctor_ends_with_0_when_everything_is_there_and_says_what_it_found(
    facviz, planted_loop, read_only, monkeypatch
):
    monkeypatch.setattr("facviz.cli.doctor._version", lambda name: "1.0")
    backbone = planted_loop / "models" / "backbone"
    code, output, _ = facviz("doctor", "--backbone", backbone, "--workspace", read_only, "--json")
    found = json.loads(output)
    assert (code, found["ready"], found["blockers"]) == (0, True, [])
    assert found["backbone"] == f"{backbone}: 2 layers of width 32"
    assert set(found["packages"]) == set(PACKAGES)
    assert found["cores"] >= 1
    assert found["free_gb"] > 0


def test_doctor_says_which_paid_models_are_set_up_without_their_keys(facviz, read_only, monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-never-a-real-key")
    _, output, _ = facviz("doctor", "--backbone", "nowhere", "--workspace", read_only, "--json")
    providers = json.loads(output)["providers"]
    assert (providers["anthropic"], providers["openai"], providers["lexical"]) == (True, False, True)
    assert "never-a-real-key" not in output


def test_doctor_ends_with_1_and_says_what_to_do_about_each_blocker(facviz, planted_loop, tmp_path, monkeypatch):
    monkeypatch.setattr("facviz.cli.doctor._version", lambda name: None if name == "gguf" else "1.0")
    code, output, _ = facviz("doctor", "--backbone", tmp_path / "none", "--json")
    blockers = json.loads(output)["blockers"]
    assert (code, len(blockers)) == (1, 2)
    assert "run `pip install gguf`" in blockers[0]
    assert "There is no folder or GGUF file" in blockers[1]
    monkeypatch.setattr("facviz.cli.doctor.MIN_FREE_GB", 1e9)
    code, output, _ = facviz("doctor", "--backbone", planted_loop / "models" / "backbone", "--json")
    assert code == 1
    assert "GB are free" in json.loads(output)["blockers"][1]


def test_the_database_is_rebuilt_from_the_shards(told, workspace):
    found = told("db", "rebuild", "--workspace", workspace)
    assert found["rows"]["dataset"] == 2
    assert found["rows"]["feature_stats"] == 2 * D_SAE
    assert (workspace / "facviz.duckdb").stat().st_size > 0


def test_an_sae_is_trained_measured_and_used_by_single_commands(told, planted_loop, bare):
    anchor = ["--dataset", "anchor", "--workspace", bare]
    captured = told("capture", *anchor)
    assert captured["n_tokens"] + captured["n_heldout_tokens"] == 768
    plan = ["--d-sae", 32, "--k", 4, "--batch-tokens", 64, "--epochs", 10, "--rng-seed", 3]
    trained = told("sae", "train", *anchor, *plan)
    assert told("sae", "train", *anchor, *plan) == trained
    assert (trained["d_sae"], trained["k"], trained["n_steps"]) == (32, 4, 10 * captured["n_tokens"] // 64)
    measured = told("sae", "eval", trained["sae_id"], *anchor)
    assert measured["n_eval_tokens"] == 768
    assert 0 < measured["fvu"] < 1
    told("spans", *anchor)  # the newest SAE unless one is named
    assert set(open_workspace(bare).features().column("sae_id").to_pylist()) == {trained["sae_id"]}


def test_the_workspace_may_come_from_the_environment(told, read_only, tmp_path, monkeypatch):
    monkeypatch.setenv("FACVIZ_WORKSPACE", str(read_only))
    assert told("export", "samples", "--out", tmp_path / "s.jsonl")["n_samples"] > 0


def test_results_for_people_name_the_numbers_and_their_inputs(facviz, loop_copy, workspace):
    code, output, _ = facviz("run", loop_copy / "planted.toml", "--workspace", workspace, "--quiet")
    assert code == 0
    assert "FAC 0.294" in output
    assert "12 are missing (δ absolute 0.5, relevance by label, SAE" in output
    assert "features filled by" in output
    assert "Traceback" not in output
    code, output, _ = facviz(*COVERAGE, "--threshold", 4, "--workspace", workspace, "--quiet")
    assert "Saturated: nearly nothing is missing at this δ; try --threshold 0.0." in output


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["sae", "train", "--help"], ["--version"]])
def test_help_and_version_end_with_0(facviz, arguments):
    code, output, errors = facviz(*arguments)
    assert (code, errors) == (0, "")
    assert "facviz" in output


def test_help_stays_light(run_python):
    program = (
        "import contextlib, io, sys\nfrom facviz.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): main(['--help'])\n"
        "heavy = {'torch', 'transformers', 'duckdb', 'pandas', 'streamlit', 'anthropic', 'sentence_transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert run_python(program) == "[]"


def test_the_seed_flag_of_run_reaches_every_stage_that_draws(tmp_path):
    config = load_run_config(make_planted_run(tmp_path))
    seeded = _seeded(config, 7)
    assert {getattr(seeded, s).rng_seed for s in ("sae", "relevance", "coverage", "synthesis")} == {7}
    assert _seeded(config, None) is config


def test_a_synthesis_that_ended_early_says_why_and_a_dry_run_is_plain_lines():
    told = {
        "n_filled": 1, "n_attempted": 3, "n_accepted": 1, "n_candidates": 40, "fac_before": 0.5, "fac_after": 0.6,
        "missing_coverage": 0.25, "stopped": None,
    }  # fmt: skip
    whole = describe("synthesize", told)
    assert whole.startswith("Synthesis: 1 of 3 features filled")
    assert describe("synthesize", told | {"stopped": "The budget of $1 is reached."}) == (
        f"{whole}\nIt ended early: The budget of $1 is reached."
    )
    assert describe("synthesize", {"n_calls": 32, "usd": None}) == "n_calls: 32\nusd: None"


def test_the_flags_of_synthesize_reach_the_config_and_a_dry_run_writes_no_sample(facviz, workspace, monkeypatch):
    from facviz.pipeline import synthesis

    seen = []
    estimate = synthesis.estimate
    monkeypatch.setattr(synthesis, "estimate", lambda *given: seen.append(given[-1]) or estimate(*given))
    before = open_workspace(workspace).samples().num_rows
    flags = ["--strategy", "one-step", "--passes", 2, "--order", "gain", "--max-kl", 1.5]
    flags += ["--no-axes", "--no-anti-copy", "--no-embedding-gate", "--judge-provider", "openai", "--judge-model", "m"]
    flags += ["--budget-usd", 0.5, "--concurrency", 3]
    code, output, said = facviz("synthesize", *COVERAGE[1:], "--threshold", 0.5, *flags, "--dry-run", "--json",
                             "--max-features", 2, "--max-candidates", 8, "--workspace", workspace)  # fmt: skip
    told = json.loads(output)
    [config] = seen
    assert (code, told["strategy"], told["n_features"]) == (0, "one-step", 2)
    assert told["n_calls"] == 2 * (16 + 8 + 8)  # the candidates of both steps, and once more in the second pass
    assert (config.passes, config.order, config.axes, config.anti_copy, config.max_kl) == (2, "gain", False, False, 1.5)
    assert not config.embedding_gate
    assert "A safety task: the local model writes" in said
    assert (config.judge_provider, config.judge_model, config.budget_usd, config.concurrency) == ("openai", "m", 0.5, 3)
    assert open_workspace(workspace).samples().num_rows == before
