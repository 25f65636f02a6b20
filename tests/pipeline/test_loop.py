"""The planted loop end to end: every number equals the one worked out by hand in `facviz.testing.workspaces`."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from facviz import open_workspace
from facviz.cli import main
from facviz.config import BackboneConfig
from facviz.records import Document, Message, split_of
from facviz.synthesis.plan import BatchPlace
from facviz.testing.planted import D_SAE, DEAD_FEATURE, LAYER, STRENGTHS, TWIN_FEATURE, WORDS
from facviz.testing.workspaces import COMPANIONS, MARKED, NEUTRALS, anchor_rows

COVERED = [0, 1, 2, 3, TWIN_FEATURE]
MISSING = list(range(12, 24))
COMPANION_IDS, NEUTRAL_IDS, MARKED_IDS = range(4), range(4, 12), range(12, 24)
TEMPLATE_TOKENS = 2
COVERAGE = ["coverage", "--task", "toxicity", "--anchor", "anchor", "--seed", "seed", "--kind", "absolute"]


def word_of(feature: int) -> str:
    return "apple" if feature == TWIN_FEATURE else WORDS[feature]


def strength_of(feature: int) -> float:
    return STRENGTHS["apple"] / 2 if feature == TWIN_FEATURE else STRENGTHS[WORDS[feature]]


def fired_by(text: str, act_threshold: float = 0.5) -> set[int]:
    """Features active on a text, read off its words."""
    live = [f for f in range(D_SAE) if f != DEAD_FEATURE]
    return {f for f in live if word_of(f) in text.split() and strength_of(f) > act_threshold}


def manifest_of(folder) -> bytes:
    return (folder / "workspace" / "tables" / "manifest.jsonl").read_bytes()


@pytest.fixture
def facviz(capsys):
    """Run a command in this process; its exit code, its JSON object and its standard error."""

    def run(*arguments: object):
        code = main([*map(str, arguments), "--json", "--quiet"])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if captured.out else None, captured.err

    return run


@pytest.fixture
def workspace(planted_loop):
    return open_workspace(planted_loop / "workspace")


@pytest.fixture
def rows(workspace):
    """Rows of a named query on the shared workspace."""
    with workspace.reader() as reader:
        sae_id = reader.rows("saes")[0]["sae_id"]
        ids = {row["name"]: row["dataset_id"] for row in reader.rows("datasets")}

        def read(query, dataset="anchor", **parameters):
            common = {"sae_id": sae_id, "dataset_id": ids[dataset], "mode": "inference", "task": "toxicity"}
            return reader.rows(query, **(common | parameters))

        yield read


@pytest.fixture
def coverage_run(workspace):
    [run] = workspace.coverage().to_pylist()
    return run


@pytest.fixture
def synthesis(workspace):
    [summary] = workspace.manifest.latest_done("synthesize").values()
    return summary


def test_the_corpus_is_as_the_table_on_paper_says():
    rows = anchor_rows()
    assert [row["label"] for row in rows] == [1, 0] * 48
    assert len({row["text"] for row in rows}) == 96
    assert {len(row["text"].split()) for row in rows} == {8}
    expected = {
        **dict.fromkeys(COMPANIONS, (36, 12)),
        **dict.fromkeys(NEUTRALS, (18, 42)),
        **dict.fromkeys(MARKED, (8, 0)),
    }
    for word in WORDS:
        counts = tuple(sum(word in row["text"].split() for row in rows if row["label"] == y) for y in (1, 0))
        assert counts == expected[word], word


def test_the_seed_set_is_drawn_from_the_unmarked_documents(rows):
    seed = rows("documents", "seed")
    assert len(seed) == 40
    assert {row["label"] for row in seed} == {"0"}
    assert {row["text"] for row in seed} <= {row["text"] for row in anchor_rows() if row["label"] == 0}


def test_fac_and_the_missing_features_are_those_computed_by_hand(coverage_run, rows):
    assert (coverage_run["n_relevant"], coverage_run["n_anchor"], coverage_run["n_missing"]) == (17, 17, 12)
    assert coverage_run["fac"] == round(5 / 17, 4)
    assert coverage_run["fac_low"] <= coverage_run["fac"] <= coverage_run["fac_high"]
    assert coverage_run["saturated"] is False
    found = {row["feature_id"]: row for row in rows("missing", coverage_id=coverage_run["coverage_id"])}
    assert sorted(found) == MISSING
    for row in found.values():
        assert (row["n_anchor_docs"], row["act_threshold"]) == (8, 0.5)
        assert row["relevance_score"] == pytest.approx(0.5 + 8 / 96)


def test_the_curve_over_thresholds_is_the_table_on_paper(coverage_run):
    points = {p["threshold"]: p for p in json.loads(coverage_run["details"])["curve"]}
    by_hand = {0.0: (17, 12), 0.5: (17, 12), 1.0: (16, 12), 1.5: (16, 12), 2.0: (12, 9), 4.0: (4, 3)}
    assert {t: (p["n_anchor"], p["n_missing"]) for t, p in points.items()} == by_hand
    assert [points[t]["fac"] for t in (0.5, 1.0, 2.0, 4.0)] == [5 / 17, 0.25, 0.25, 0.25]
    assert json.loads(coverage_run["details"])["unsaturated_threshold"] == 0.0


def test_sets_are_compared_at_equal_content_tokens(coverage_run):
    compared = json.loads(coverage_run["details"])["equal_tokens"]
    assert {name: found["n_tokens"] for name, found in compared.items()} == {"anchor": 320.0, "seed": 320.0}
    assert compared["seed"]["fac"] == round(5 / 17, 4)
    assert compared["anchor"]["fac"] > 0.9


def test_relevance_is_that_of_the_labels(rows):
    found = {row["feature_id"]: row for row in rows("relevance")}
    assert sorted(found) == [f for f in range(D_SAE) if f != DEAD_FEATURE]
    auroc = {
        **dict.fromkeys([*COMPANION_IDS, TWIN_FEATURE], 0.75),
        **dict.fromkeys(NEUTRAL_IDS, 0.25),
        **dict.fromkeys(MARKED_IDS, 0.5 + 8 / 96),
    }
    for feature, row in found.items():
        assert row["score"] == pytest.approx(auroc[feature])
        assert row["verdict"] == ("no" if feature in NEUTRAL_IDS else "yes")


def test_statistics_are_those_of_the_corpus(rows):
    found = rows("stats")
    assert [row["feature_id"] for row in found] == list(range(D_SAE))
    dead = found.pop(DEAD_FEATURE)
    assert (dead["is_dead"], dead["n_docs"], dead["density"], dead["max_act"]) == (True, 0, 0.0, 0.0)
    for row in found:
        feature = row["feature_id"]
        n_docs = 8 if feature in MARKED_IDS else 60 if feature in NEUTRAL_IDS else 48
        assert (row["n_docs"], row["max_act"], row["is_dead"]) == (n_docs, strength_of(feature), False)
        assert row["density"] == pytest.approx(n_docs / 768)
        assert row["p95_act"] == strength_of(feature)
        assert row["is_always_on"] is False


@pytest.mark.parametrize("dataset", ["anchor", "seed"])
def test_spans_are_the_first_documents_of_each_half_with_the_peak_on_the_word(rows, dataset):
    documents = [row["text"].split() for row in rows("documents", dataset)]
    halves = [str(split_of(Document.from_text(" ".join(words)).doc_id)) for words in documents]
    found = {(row["feature_id"], row["split"], row["rank"]): row for row in rows("dataset_spans", dataset)}
    expected = {}
    for feature in set(range(D_SAE)) - {DEAD_FEATURE}:
        for half in ("explain", "score"):
            firing = [n for n, words in enumerate(documents) if word_of(feature) in words and halves[n] == half]
            expected |= {(feature, half, rank): number for rank, number in enumerate(firing[:3])}
    assert {key: row["doc_no"] for key, row in found.items()} == expected
    for (feature, _, _), row in found.items():
        words = documents[row["doc_no"]]
        place = words.index(word_of(feature))
        text = " ".join(words)
        assert (row["act"], row["peak_token"]) == (strength_of(feature), TEMPLATE_TOKENS + place)
        assert (row["start_token"], row["end_token"]) == (TEMPLATE_TOKENS, TEMPLATE_TOKENS + 8)
        assert (row["start_char"], row["end_char"]) == (0, len(text))
        assert ("".join(row["tokens"]), row["tokens"][place].strip()) == (text, word_of(feature))
        assert row["acts"] == [strength_of(feature) if i == place else 0.0 for i in range(8)]


def test_explanations_name_the_word_a_feature_fires_on(workspace):
    found = {row["feature_id"]: row for row in workspace.explanations().to_pylist()}
    assert sorted(found) == [f for f in range(D_SAE) if f != DEAD_FEATURE]
    for feature, row in found.items():
        assert row["outcome"] == "explained"
        assert row["text"].startswith(f'fires on "{word_of(feature)}"')


def test_the_summary_counts_what_the_tables_hold(rows, synthesis):
    candidates = rows("candidates", synth_id=synthesis["synth_id"])
    features = rows("synthesis_features", synth_id=synthesis["synth_id"])
    assert synthesis["n_candidates"] == len(candidates) == sum(f["n_candidates"] for f in features)
    assert synthesis["n_accepted"] == sum(c["accepted"] for c in candidates) == sum(f["n_accepted"] for f in features)
    assert synthesis["n_filled"] == sum(f["state"] == "filled" for f in features)
    reasons = [c["reject_reason"] for c in candidates if c["reject_reason"]]
    assert synthesis["rejected"] == {reason: reasons.count(reason) for reason in set(reasons)}
    assert len(reasons) + synthesis["n_accepted"] == len(candidates)
    assert 0 < synthesis["n_accepted"] <= synthesis["n_filled"]


def test_every_candidate_is_measured_as_its_words_say(rows, synthesis):
    for row in rows("candidates", synth_id=synthesis["synth_id"]):
        words, word = row["text"].split(), word_of(row["feature_id"])
        assert row["act"] == (strength_of(row["feature_id"]) if word in words else 0.0)
        assert row["peak_token"] == (TEMPLATE_TOKENS + words.index(word) if word in words else -1)
        assert row["messages"] == [{"role": "user", "content": row["text"]}]
        assert row["act_threshold"] == 0.5
        if row["accepted"]:
            assert word in words
            assert json.loads(row["gates"])["verified_act"] == row["act"]


def test_the_pair_of_a_feature_points_at_its_strongest_and_weakest_candidate(rows, synthesis, workspace):
    candidates = {row["candidate_id"]: row for row in rows("candidates", synth_id=synthesis["synth_id"])}
    shards = workspace.manifest.live_shards()["pair"]
    pairs = [row for path in shards for row in pa.parquet.read_table(path).to_pylist()]
    assert [pair["feature_id"] for pair in sorted(pairs, key=lambda p: p["feature_id"])] == MISSING
    states = [pair["state"] for pair in pairs]
    assert synthesis["pair_states"] == {state: states.count(state) for state in set(states)}
    for pair in pairs:
        own = [c for c in candidates.values() if c["feature_id"] == pair["feature_id"]]
        fires = {word_of(pair["feature_id"]) in c["text"].split() for c in own if c["reject_reason"] == "step one"}
        assert pair["state"] == ("none_active" if True not in fires else "paired" if False in fires else "no_contrast")
        if pair["state"] == "paired":
            assert candidates[pair["strong_id"]]["act"] == pair["margin"] == strength_of(pair["feature_id"])
            assert candidates[pair["weak_id"]]["act"] == 0


def test_defect_4_texts_and_features_join_by_keys_that_follow_from_the_plan(rows, synthesis):
    candidates = rows("candidates", synth_id=synthesis["synth_id"])
    assert len({c["candidate_id"] for c in candidates}) == len(candidates)
    for c in candidates:
        place = BatchPlace(synthesis["synth_id"], c["feature_id"], c["step"], c["round"])
        assert (c["candidate_id"], c["rng_seed"]) == (
            place.candidate_id(c["slot"]),
            place.rng_seed(0, json.loads(c["gates"])["part"]),
        )
        assert (c["generator"].split("/")[0], c["strategy"]) == ("local", "paper")


def test_defect_6_no_missing_feature_is_dropped_silently(rows, synthesis, loop_copy, facviz):
    states = {row["feature_id"]: row["state"] for row in rows("synthesis_features", synth_id=synthesis["synth_id"])}
    assert sorted(states) == MISSING
    assert synthesis["n_attempted"] == 12
    assert set(states.values()) <= {"filled", "exhausted"}
    few = ["synthesize", *COVERAGE[1:], "--threshold", 0.5, "--max-features", 2, "--max-candidates", 4]
    code, chosen, _ = facviz(*few, "--workspace", loop_copy / "workspace")
    assert (code, chosen["n_attempted"]) == (0, 2)
    assert chosen["synth_id"] != synthesis["synth_id"]


def test_fac_after_synthesis_equals_that_of_all_texts_taken_together(rows, synthesis, workspace):
    seed = [row["text"] for row in rows("documents", "seed")]
    accepted = [row["text"] for row in workspace.samples().to_pylist()]
    relevant = {*COVERED, *MISSING}
    before, after = (set().union(*map(fired_by, texts)) & relevant for texts in (seed, seed + accepted))
    assert before == set(COVERED)
    assert synthesis["fac_before"] == round(len(before) / 17, 4)
    assert synthesis["fac_after"] == round(len(after) / 17, 4)
    assert synthesis["missing_coverage"] == round(len(after - before) / 12, 4)


def test_an_exported_line_is_enough_to_prove_that_its_target_fires(planted_loop, tmp_path, facviz):
    from facviz import SaeEncoder, load_backbone, load_sae

    out = tmp_path / "samples.jsonl"
    code, told, _ = facviz("export", "samples", "--out", out, "--workspace", planted_loop / "workspace")
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert (code, told["n_samples"]) == (0, len(lines))
    assert lines
    backbone = load_backbone(str(planted_loop / "models" / "backbone"), LAYER)
    encoder = SaeEncoder(backbone, load_sae(planted_loop / "models" / "sae"), config=BackboneConfig())
    for line in lines:
        document = Document(tuple(Message(**m) for m in line["messages"]))
        act = float(encoder.encode_alone(document).max_acts[0, line["feature_id"]])
        assert document.text == line["text"]
        assert act > 1.05 * line["act_threshold"]
        assert act == line["act"] == strength_of(line["feature_id"])


def test_a_second_run_gives_the_same_answer_without_computing_anything(loop_copy, facviz, monkeypatch):
    before = manifest_of(loop_copy)
    for stage in ("facviz.pipeline.features.SpanCollector", "facviz.synthesis.engine.Synthesizer.fill_all"):
        monkeypatch.setattr(stage, None)
    run = ["run", loop_copy / "planted.toml", "--workspace", loop_copy / "workspace"]
    code, first, _ = facviz(*run)
    assert code == 0
    again = facviz(*run)[1]
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    assert manifest_of(loop_copy) == before


def test_a_run_elsewhere_ends_with_the_same_ids_texts_and_numbers(planted_loop, tmp_path, facviz, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, there, _ = facviz("run", planted_loop / "planted.toml", "--workspace", "elsewhere")
    here = facviz("run", planted_loop / "planted.toml", "--workspace", planted_loop / "workspace")[1]
    assert code == 0
    for told in (there, here):
        del told["workspace"], told["seconds"]
    assert there == here
    tables = [open_workspace(path) for path in (tmp_path / "elsewhere", planted_loop / "workspace")]
    assert tables[0].samples().equals(tables[1].samples())
    assert repr(tables[0].features().to_pylist()) == repr(
        tables[1].features().to_pylist()
    )  # as text: a NaN equals none


def test_defect_7_a_seed_pass_overwrites_no_anchor_pass(rows, workspace):
    with workspace.reader() as reader:
        stats = {row["name"]: rows("stats", row["name"]) for row in reader.rows("datasets")}
        paths = workspace.manifest.live_shards()["doc_activation"]
    assert {name: stats[name][12]["n_docs"] for name in stats} == {"anchor": 8, "seed": 0}
    assert len(paths) == len(set(paths)) == 3 + 1  # 96 and 40 documents in shards of 40


def test_another_threshold_is_another_coverage_run_and_the_old_one_stays(loop_copy, coverage_run, facviz):
    measure = [*COVERAGE, "--workspace", loop_copy / "workspace"]
    code, other, _ = facviz(*measure, "--threshold", 1.0)
    before = manifest_of(loop_copy)
    assert facviz(*measure, "--threshold", 1.0) == (code, other, "") == (0, other, "")
    assert manifest_of(loop_copy) == before
    assert (other["n_anchor"], other["n_missing"], other["fac"]) == (16, 12, 0.25)
    assert other["coverage_id"] != coverage_run["coverage_id"]
    table = open_workspace(loop_copy / "workspace").coverage()
    assert {coverage_run["coverage_id"], other["coverage_id"]} <= set(table.column("coverage_id").to_pylist())
    old = [row for row in table.to_pylist() if row["coverage_id"] == coverage_run["coverage_id"]]
    assert old == [coverage_run]


def test_a_relative_threshold_is_a_share_of_what_the_feature_reaches_on_the_anchor(loop_copy, facviz):
    relative = [*COVERAGE[:-1], "relative", "--threshold", 0.75, "--workspace", loop_copy / "workspace"]
    code, told, _ = facviz(*relative)
    assert (code, told["fac"], told["n_missing"]) == (0, round(5 / 17, 4), 12)
    with open_workspace(loop_copy / "workspace").reader() as reader:
        found = reader.rows("missing", coverage_id=told["coverage_id"])
    assert {r["feature_id"]: r["act_threshold"] for r in found} == {f: 0.75 * strength_of(f) for f in MISSING}


def test_a_saturated_run_refuses_to_synthesize_and_names_a_better_threshold(loop_copy, facviz):
    config = loop_copy / "planted.toml"
    config.write_text(config.read_text().replace("threshold = 0.5", "threshold = 4.0"))
    code, told, errors = facviz("run", config, "--workspace", loop_copy / "workspace")
    assert (code, told) == (2, None)
    assert errors == (
        "facviz: Only 3 of 4 relevant features are missing at this threshold, so filling them would prove nothing; "
        "set the threshold to 0.0.\n"
    )
    measured = open_workspace(loop_copy / "workspace").coverage().to_pylist()
    assert [run["saturated"] for run in measured] == [False, True]


def test_the_front_door_answers_in_arrow_tables(workspace):
    tables = [
        workspace.features(),
        workspace.spans(12),
        workspace.explanations(),
        workspace.coverage(),
        workspace.samples(),
    ]
    assert all(isinstance(table, pa.Table) for table in tables)
    assert [table.num_rows > 0 for table in tables] == [True] * 5
    assert tables[0].num_rows == 2 * D_SAE
    assert set(tables[1].column("feature_id").to_pylist()) == {12}
    acts = np.array(tables[4].column("act"))
    assert (acts > 1.05 * np.array(tables[4].column("act_threshold"))).all()


def test_the_workspace_can_be_read_while_a_stage_writes(loop_copy, facviz):
    workspace = open_workspace(loop_copy / "workspace")
    with workspace.lock():
        assert open_workspace(workspace.root).coverage().num_rows == 1
        assert facviz("export", "features", "--out", loop_copy / "f.jsonl", "--workspace", workspace.root)[0] == 0
