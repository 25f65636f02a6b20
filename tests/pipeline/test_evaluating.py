"""`facviz evaluate` on the planted loop: what is compared, what it finds, and that a kill costs one head."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import time
from functools import partial

import numpy as np
import pytest

from facviz.config import DatasetConfig, EvaluationConfig, load_run_config
from facviz.errors import InputError
from facviz.pipeline import evaluating as stage
from facviz.pipeline.data import add_dataset
from facviz.pipeline.evaluation_inputs import read_material
from facviz.pipeline.session import Session, load_documents
from facviz.records import Split, split_of
from facviz.store.events import append_event, candidate_of, new_event
from facviz.store.workspace import open_workspace
from facviz.synthesis.pool import NOTHING_FIRES
from facviz.testing.fakes import SilentProgress
from facviz.testing.planted import WORDS
from facviz.testing.workspaces import COMPANIONS, MARKED, NEUTRALS

PLAN = EvaluationConfig(n_seeds=2, n_bootstrap=100)


def heldout_rows():
    """48 texts of eight words in random order, half of them with marked words: none like a text of the corpus."""
    rng = random.Random(0)
    plain = [*COMPANIONS, *NEUTRALS]
    for number in range(48):
        marked = rng.sample(MARKED, 2) if number % 2 else []
        words = marked + rng.sample(plain, 8 - len(marked))
        rng.shuffle(words)
        yield {"text": " ".join(words), "label": str(number % 2)}


@pytest.fixture
def workspace(loop_copy):
    workspace = open_workspace(loop_copy / "workspace")
    path = loop_copy / "heldout.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in heldout_rows()), encoding="utf-8")
    backbone = load_run_config(loop_copy / "planted.toml").backbone
    session = Session(workspace, backbone, SilentProgress())
    add_dataset(session, DatasetConfig("heldout", str(path), role="eval", roles=("user",)))
    return workspace


@pytest.fixture
def evaluate(loop_copy, workspace):
    backbone = load_run_config(loop_copy / "planted.toml").backbone

    def run(task="toxicity", **settings):
        session = Session(workspace, backbone, SilentProgress())
        return stage.evaluate(session, task, dataclasses.replace(PLAN, **settings))

    return run


def arm_of(found, name):
    return next(arm for arm in found["arms"] if arm["arm"] == name)


def test_planted_words_are_learned_from_samples_as_from_real_texts(evaluate, workspace):
    found = evaluate()
    assert (found["positive"], found["test"], found["gold"], found["is_split"]) == (["1"], "heldout", "anchor", False)
    assert (found["n_test"], found["prevalence"]) == (48, 0.5)
    seed, paper, gold = (arm_of(found, name) for name in ("seed", "paper", "gold"))
    assert not seed["is_trained"]
    assert seed["auprc"] == found["prevalence"]  # the seed set has no positive: nothing to learn
    assert {arm["n_positive"] for arm in found["arms"]} == {0, 12}
    assert len({arm["n_negative"] for arm in found["arms"]}) == 1
    assert paper["n_available"] == paper["n_added"] == found["n_added"] == 12
    assert paper["auprc"] > found["prevalence"]
    assert gold["auprc"] > 0.9  # a marked word stands in every positive and in no negative
    assert gold["gain"]["low"] > 0
    assert (seed["missing_coverage"], paper["missing_coverage"]) == (0.0, 1.0)
    assert (seed["fac"], paper["fac"]) == (pytest.approx(5 / 17, abs=1e-4), 1.0)
    assert found["ceiling"]["auprc"] >= gold["auprc"] - 0.05
    assert [p["n_added"] for p in found["frontier"] if p["arm"] == "paper"] == [1, 3, 6, 12]
    n_arms = len(found["arms"])
    assert [c["n"] for c in found["correlation"] if c["over"] == "arms"] == [n_arms, n_arms - 1, n_arms - 2]


def test_defect_10_class_is_not_origin_real_positives_are_an_arm_and_every_arm_is_probed_for_what_gives_it_away(
    evaluate, workspace
):
    found = evaluate()
    with workspace.reader() as reader:
        run = stage.find_run(reader, workspace.manifest, "toxicity", "")
        material = read_material(reader, run, {}, PLAN)
    written = {d.doc_id for name, arm in material.added.items() if name != "gold" for d in arm}
    real = {d.doc_id for d in material.added["gold"]}
    assert written
    assert real
    assert not written & real
    assert not written & {d.doc_id for d in material.test.documents}  # both classes of the test set are real
    paper, gold = arm_of(found, "paper"), arm_of(found, "gold")
    assert paper["n_added"] == gold["n_added"] == 12
    assert paper["n_negative"] == gold["n_negative"]
    for arm in (paper, gold):
        assert arm["probe"]["against"] == "real texts of the positive class"
        assert 0 <= arm["probe"]["lowest"] <= arm["probe"]["auroc"] <= arm["probe"]["highest"] <= 1
    assert gold["probe"]["auroc"] < 0.9  # real against real: an honest probe sees next to nothing


class Unasked:
    """A reader of the same workspace, for which the generator also wrote texts that nobody asked for."""

    def __init__(self, reader, texts):
        self._reader, self._texts = reader, texts

    def __getattr__(self, name):
        return getattr(self._reader, name)

    def rows(self, name, **parameters):
        rows = self._reader.rows(name, **parameters)
        if name != "coverage_candidates":
            return rows
        asked = {"synth_id": "made", "strategy": "magpie", "accepted": False, "review": "unreviewed", "feature_id": -1}
        written = [(text, reason) for text in self._texts for reason in (NOTHING_FIRES, "degenerate")]
        messages = [
            [{"role": "user", "content": text + (" degenerate" if r == "degenerate" else "")}] for text, r in written
        ]
        return rows + [
            {**asked, "candidate_id": f"m{i}", "text": m[0]["content"], "messages": m, "reason": reason}
            for i, (m, (_, reason)) in enumerate(zip(messages, written))
        ]


def _with_unasked(texts, reader, *rest):
    return read_material(Unasked(reader, texts), *rest)


@pytest.fixture
def unasked(monkeypatch):
    """40 texts without a marked word, as the generator writes them."""
    rng = random.Random(1)
    texts = [" ".join(rng.sample([*COMPANIONS, *NEUTRALS], 7)) for _ in range(40)]
    monkeypatch.setattr(stage, "read_material", partial(_with_unasked, texts))
    return texts


def test_defect_10_an_arm_of_real_positives_and_generated_negatives_and_one_where_both_classes_have_both_origins(
    evaluate, unasked, workspace
):
    found = evaluate()
    paper, gold, seed = (arm_of(found, name) for name in ("paper", "gold", "seed"))
    assert 0 < found["n_generated_negative"] == min(found["n_negative"] // 2, len(unasked))
    assert seed["mixed"] is None
    for arm in (paper, gold):
        assert arm["n_negative"] == found["n_negative"]  # in place of real ones, not beside them
        assert arm["mixed"]["low"] <= arm["mixed"]["auprc"] <= arm["mixed"]["high"]
    assert gold["mixed"]["auprc"] > 0.9  # what tells the classes apart is still there
    rows = workspace.evaluations(found["eval_id"]).to_pylist()
    stored = {r["arm"]: r["value"] for r in rows if r["metric"] == "auprc_generated_negatives"}
    assert stored == {a["arm"]: a["mixed"]["auprc"] for a in found["arms"] if a["mixed"]}
    heads = {path.name for path in (workspace.root / "evaluation" / found["eval_id"]).glob("*mixed*")}
    assert len(heads) == 2 * (len(found["arms"]) - 1)  # seeds × arms that add something, at full size only


def test_only_unasked_texts_that_fire_nothing_are_generated_negatives_and_none_is_left_in_the_test_set(
    unasked, workspace
):
    with workspace.reader() as reader:
        run = stage.find_run(reader, workspace.manifest, "toxicity", "")
        heldout = [d.text for d in load_documents(reader, reader.dataset("heldout")["dataset_id"])]
        written = [d.text for d in read_material(reader, run, {}, PLAN).added["paper"]]
        before = read_material(reader, run, {}, PLAN)
        texts = [*unasked, unasked[0], written[0], heldout[0]]
        material = read_material(Unasked(reader, texts), run, {}, PLAN)
    assert [d.text for d in material.unasked] == [*unasked, heldout[0]]
    assert before.unasked == ()
    assert material.n_exact == before.n_exact + 1


def test_an_unasked_text_that_fires_a_missing_feature_after_all_is_no_negative(evaluate, workspace, monkeypatch):
    found = evaluate()
    with workspace.reader() as reader:
        missing = [r["feature_id"] for r in reader.rows("missing", coverage_id=found["coverage_id"])]
    rng = random.Random(2)
    quiet = [" ".join(rng.sample([*COMPANIONS, *NEUTRALS], 7)) for _ in range(9)]
    loud = [f"{text} {WORDS[missing[i % len(missing)]]}" for i, text in enumerate(quiet)]
    counted = []
    for texts in (quiet, [*quiet, *loud]):
        monkeypatch.setattr(stage, "read_material", partial(_with_unasked, texts))
        counted.append(evaluate()["n_generated_negative"])
    assert counted == [9, 9]


def test_only_the_synthesis_runs_asked_for_count(evaluate, workspace):
    with workspace.reader() as reader:
        [run] = reader.rows("syntheses")
    known = evaluate(syntheses=(run["synth_id"],))
    assert known["arms"] == evaluate()["arms"]
    with pytest.raises(InputError, match=f"no synthesis run 'other'.*known: {run['synth_id']}"):
        evaluate(syntheses=("other",))


def test_without_unasked_texts_there_is_no_such_control(evaluate):
    found = evaluate()
    assert found["n_generated_negative"] == 0
    assert {arm["mixed"] for arm in found["arms"]} == {None}


def test_defect_20_one_seed_decides_every_draw_of_an_evaluation_and_is_in_its_record(loop_copy, workspace):
    backbone = load_run_config(loop_copy / "planted.toml").backbone

    def measured(name, rng_seed):
        copied = open_workspace(shutil.copytree(workspace.root, loop_copy / name))
        found = stage.evaluate(
            Session(copied, backbone, SilentProgress()), "toxicity", dataclasses.replace(PLAN, rng_seed=rng_seed)
        )
        assert found["rng_seed"] == rng_seed
        return {k: v for k, v in found.items() if k not in ("seconds", "eval_id", "rng_seed")}

    first, again, other = measured("first", 3), measured("again", 3), measured("other", 40)
    assert first == again
    assert [a["by_seed"] for a in first["arms"]] != [a["by_seed"] for a in other["arms"]]


def test_every_number_of_the_summary_stands_in_the_table(evaluate, workspace):
    found = evaluate()
    rows = workspace.evaluations(found["eval_id"]).to_pylist()
    means = {r["arm"]: r for r in rows if r["metric"] == "auprc" and r["rng_seed"] is None and r["n_added"] in (0, 12)}
    for arm in found["arms"]:
        row = means[arm["arm"]]
        assert (row["value"], row["low"], row["high"]) == (arm["auprc"], arm["low"], arm["high"])
        by_seed = [
            r["value"] for r in rows if (r["arm"], r["metric"]) == (arm["arm"], "auprc") and r["rng_seed"] is not None
        ]
        assert by_seed == arm["by_seed"]
        assert np.mean(by_seed) == pytest.approx(arm["auprc"], abs=1e-4)
    assert json.loads(rows[0]["settings"])["prevalence"] == found["prevalence"]


def test_no_test_document_is_one_that_an_arm_may_train_on(workspace):
    half = dataclasses.replace(PLAN, test="anchor", min_jaccard=1.0)
    with workspace.reader() as reader:
        run = stage.find_run(reader, workspace.manifest, "toxicity", "")
        material = read_material(reader, run, {}, half)
        everything = load_documents(reader, reader.dataset("anchor")["dataset_id"])
        near = read_material(reader, run, {}, dataclasses.replace(PLAN, test="heldout", min_jaccard=0.01))
    test = {d.doc_id for d in material.test.documents}
    trained = [*material.seed.documents, *material.gold.documents, *(d for a in material.added.values() for d in a)]
    assert material.is_split
    assert test
    assert not test & {d.doc_id for d in trained}
    assert material.n_exact > 0  # documents of the seed set that fall into the half for testing
    n_half = sum(split_of(d.doc_id) is Split.SCORE for d in everything)
    assert len(test) + material.n_exact + material.n_near == n_half
    assert all(split_of(d.doc_id) is Split.EXPLAIN for d in material.gold.documents)
    assert not {d.doc_id for d in material.gold.documents} & {d.doc_id for d in material.seed.documents}
    assert near.n_near > 0


def test_a_second_run_returns_the_first_and_another_setting_is_another(evaluate):
    first = evaluate()
    assert evaluate() == first
    assert evaluate(rng_seed=5)["eval_id"] != first["eval_id"]


def test_what_a_kill_interrupts_is_one_head_and_the_end_is_the_same(evaluate, workspace, monkeypatch, tmp_path):
    trained = []

    def counted(*args, **kwargs):
        trained.append(1)
        if len(trained) == 7:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    real = stage.train_head
    monkeypatch.setattr(stage, "train_head", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate()
    assert not workspace.evaluations().num_rows
    [torn] = list((workspace.root / "evaluation").glob("*/seed-12-0-*.npz"))
    torn.write_bytes(torn.read_bytes()[:40])
    resumed = evaluate()
    n_heads = len(resumed["arms"]) * 2 + sum(2 * (p["n_added"] < 12) for p in resumed["frontier"]) + 1
    assert len(trained) == n_heads + 1 + 1  # the interrupted one and the torn one again
    for path in (workspace.root / "evaluation").rglob("*.npz"):
        path.unlink()
    again = evaluate(n_bootstrap=101)  # another evaluation, from nothing
    compared = ("auprc", "by_seed", "strengths", "probe", "fac")
    assert [{k: arm[k] for k in compared} for arm in again["arms"]] == [
        {k: arm[k] for k in compared} for arm in resumed["arms"]
    ]


def test_kill_nine_leaves_whole_heads_that_are_not_trained_again(evaluate, workspace, start_python):
    program = "import sys\nfrom facviz.cli import main\nsys.exit(main(sys.argv[1:]))"
    asked = ["evaluate", "--task", "toxicity", "--arms", "gold", "--n-seeds", 6, "--n-bootstrap", 100, "--quiet"]
    process = start_python(program, *asked, "--workspace", workspace.root)
    folder, heads = workspace.root / "evaluation", []
    while len(heads) < 3 and process.poll() is None:
        heads = [path for path in folder.glob("*/*.npz") if path.parent.name != "states"]
        time.sleep(0.002)
    process.kill()
    assert process.wait(30) == -9, process.stderr.read()
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npz")}
    found = evaluate(arms=("gold",), n_seeds=6)
    assert {path.parent.name for path in heads} == {found["eval_id"]}
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert len(list((folder / found["eval_id"]).glob("*.npz"))) == 6 * (1 + 4) + 1


def test_a_rejected_sample_is_in_no_arm(evaluate, workspace):
    before = arm_of(evaluate(), "paper")["n_available"]
    target = workspace.samples().to_pylist()[0]["candidate_id"]
    append_event(workspace.root / "events", new_event("ann", candidate_of(target), "reject"))
    assert arm_of(evaluate(), "paper")["n_available"] == before - 1


def test_texts_for_features_of_other_themes_are_no_positives(workspace):
    themes = {f: "marked" if f < 16 else "other" for f in range(12, 24)}
    with workspace.reader() as reader:
        run = stage.find_run(reader, workspace.manifest, "toxicity", "")
        material = read_material(reader, run, themes, PLAN)
        assert material.n_other_themes == 0  # the label "1" has no themes
        assert len(material.added["paper"]) == 12
        with pytest.raises(InputError, match="no verified sample of the positive class"):
            read_material(reader, run, themes, dataclasses.replace(PLAN, positive=("0",)))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"arms": ("evol",)}, "There is no arm 'evol' here; choose from"),
        ({"positive": ("9",)}, "0 documents labelled 9"),
        ({"coverage": "nope"}, "There is no coverage run 'nope'"),
        ({"test": "absent"}, "There is no dataset 'absent'"),
        ({"min_added": 500}, "No arm has 500 texts"),
        ({"positive": ("0", "1")}, "48 documents labelled 0, 1 among 48"),
        ({"positive": ("0",)}, "All documents of the seed set seed are labelled 0"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_evaluated_is_said_in_one_sentence(evaluate, settings, sentence):
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        evaluate(**settings)


def test_a_task_without_coverage_is_told_what_comes_first(evaluate):
    with pytest.raises(InputError, match="no coverage run of the task topic yet"):
        evaluate(task="topic")
