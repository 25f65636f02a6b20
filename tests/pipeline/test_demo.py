"""The demo installs whole or not at all, resets without losing anything, and is rebuilt by its own command."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
from pathlib import Path

import pytest
import torch

from facviz.cli import main
from facviz.config import load_run_config
from facviz.errors import WorkspaceError
from facviz.files import append_line
from facviz.pipeline import demo_build
from facviz.pipeline.demo import default_target, describe_demo, install_demo, reset_demo
from facviz.sae.formats import load_sae
from facviz.store.workspace import Workspace, open_workspace
from facviz.testing.fakes import SilentProgress
from facviz.testing.planted import WORDS
from facviz.testing.workspaces import COMPANIONS, MARKED, NEUTRALS

THEMES = ("alpha", "beta", "gamma", "rest")
"""Every third marked word belongs to one of the first three themes; companions and neutrals to the last."""

MEASURED = {"fvu": 0.25, "l0": 3.5, "dead": 1}


def themed_rows() -> list[dict[str, str]]:
    """Eight words a document: a theme's own four marked words stand in its documents only."""
    rows = []
    for theme in THEMES:
        own = MARKED[THEMES.index(theme) :: 3] if theme != "rest" else COMPANIONS
        for i in range(24):
            shared = [NEUTRALS[(i + j) % 8] for j in range(4)]
            words = [own[(i + j) % 4] for j in range(3)] + [own[i % 4] if theme == "rest" else COMPANIONS[i % 4]]
            turn = i // 8
            text = " ".join([*words[turn:], *shared, *words[:turn]])
            rows.append({"id": f"{theme}-{i}", "text": text, "theme": theme})
    return rows


def themed_toml(planted: Path) -> str:
    return f"""\
task = "topic"

[backbone]
name = "{planted / "models" / "backbone"}"
layer = 1
dtype = "float32"

[[datasets]]
name = "messages"
path = "messages.jsonl"
role = "anchor"
roles = ["user"]
label_field = "theme"

[[datasets]]
name = "narrow"
role = "seed"
roles = ["user"]
[datasets.sample]
of = "messages"
n = 20
without = ["alpha", "beta", "gamma"]

[capture]
dataset = "messages"
tokens = 400
heldout_tokens = 100

[sae]
path = "sae"
d_sae = 40
k = 4
epochs = 1
batch_tokens = 64

[explain]
embedding_score = false

[relevance]
positive = "*"
n_permutations = 2000

[coverage]
anchor = "messages"
seed = "narrow"
kind = "absolute"
threshold = 0.5
n_bootstrap = 50

[synthesis]
pair_candidates = 8
max_candidates = 32
batch = 8
max_tokens = 8
temperature = 1.0
top_p = 1.0
"""


@pytest.fixture(scope="module")
def rebuilt(planted_loop, tmp_path_factory):
    """A planted demo folder, rebuilt once: its path and what the rebuild told; read only."""
    folder = tmp_path_factory.mktemp("demo")
    sae = load_sae(planted_loop / "models" / "sae")
    sae.metadata[demo_build.MEASURED] = MEASURED
    sae.save(folder / "sae")
    (folder / "demo.toml").write_text(themed_toml(planted_loop), encoding="utf-8")
    lines = [json.dumps(row) + "\n" for row in themed_rows()]
    (folder / "messages.jsonl").write_text("".join(lines), encoding="utf-8")
    work = tmp_path_factory.mktemp("work") / "here"
    told = demo_build.rebuild_demo(SilentProgress(), source=folder, work=work)
    assert not work.exists()
    return folder, told


@pytest.fixture
def source(rebuilt):
    return rebuilt[0]


@pytest.fixture
def target(tmp_path):
    return tmp_path / "share" / "demo"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_story_is_that_of_the_words_counted_by_hand(rebuilt):
    story = rebuilt[1]["story"]
    assert story["lacking_themes"] == ["alpha", "beta", "gamma"]
    assert {theme: story["missing_by_theme"][theme] for theme in THEMES[:3]} == {"alpha": 4, "beta": 4, "gamma": 4}
    assert set(story["missing_by_theme"]) == set(THEMES[:3])
    assert story["n_missing"] == story["n_missing_in_lacking_themes"] == 12
    assert story["filled_share"] == rebuilt[1]["synthesis"]["n_filled"] / 12
    assert sum(story["filled_by_theme"].values()) == rebuilt[1]["synthesis"]["n_filled"] > 0
    assert story["fac_after"] > story["fac_before"]
    assert story["holds"] is False  # 12 missing features are fewer than 30


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, True),
        ({"MIN_MISSING": 13}, False),
        ({"MIN_THEMES": 4}, False),
        ({"FAC_BEFORE": (0.9, 1.0)}, False),
        ({"MIN_FILLED": 1.01}, False),
    ],
)
def test_the_story_holds_only_within_all_bounds(rebuilt, monkeypatch, change, holds):
    folder, told = rebuilt
    for name, value in ({"MIN_MISSING": 12, "FAC_BEFORE": (0.1, 0.9), "MIN_FILLED": 0.0} | change).items():
        monkeypatch.setattr(demo_build, name, value)
    config = load_run_config(folder / "demo.toml")
    story = demo_build.tell_story(open_workspace(folder / "workspace"), config, told)
    assert story["holds"] is holds


def test_every_relevant_feature_carries_the_theme_its_word_stands_in(source):
    workspace = open_workspace(source / "workspace")
    with workspace.reader() as reader:
        [sae_row] = reader.rows("saes")
        judged = reader.rows("relevance", task="topic", sae_id=sae_row["sae_id"])
    themes = {WORDS[r["feature_id"]]: r["theme"] for r in judged if r["verdict"] == "yes" and r["feature_id"] < 24}
    assert {word: themes[word] for word in MARKED} == {word: THEMES[i % 3] for i, word in enumerate(MARKED)}


def test_the_packed_workspace_has_tables_and_no_weights_activations_or_work_files(source):
    names = set(files_of(source / "workspace"))
    assert {name.split("/")[0] for name in names} == {"tables", "workspace.json"}
    assert not [name for name in names if name.endswith((".safetensors", ".npz", ".tmp"))]


def test_the_measures_that_travel_with_the_sae_stand_in_its_row_and_in_what_is_told(rebuilt):
    folder, told = rebuilt
    with open_workspace(folder / "workspace").reader() as reader:
        [row] = reader.rows("saes")
    assert json.loads(row["metrics"]) == MEASURED
    assert row["k"] == 4
    assert {name: told["sae"][name] for name in MEASURED} == MEASURED


def test_an_installed_demo_reads_as_the_shipped_one_and_runs_stages(source, target, capsys):
    assert install_demo(target, source) == target
    shipped, installed = files_of(source / "workspace"), files_of(target)
    [weights] = [name for name in installed if name.endswith("sae_weights.safetensors")]
    assert installed.pop(weights) == (source / "sae" / "sae_weights.safetensors").read_bytes()
    installed.pop(weights.replace("sae_weights.safetensors", "cfg.json"))
    assert installed == shipped
    question = ["--task", "topic", "--anchor", "messages", "--seed", "narrow", "--kind", "absolute", "--json"]
    assert main(["coverage", *question, "--threshold", "1.5", "--workspace", str(target), "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["n_missing"] == 12
    spans = ["spans", "--dataset", "messages", "--per-split", "4", "--workspace", str(target), "--json", "--quiet"]
    assert main(spans) == 0  # reads the weights


def test_installing_again_changes_nothing(source, target):
    install_demo(target, source)
    append_line(target / "events" / "review.jsonl", {"event_id": "mine"})
    before = files_of(target)
    assert install_demo(target, source) == target
    assert files_of(target) == before


def test_installing_into_an_empty_folder_works_and_into_a_full_one_is_refused(source, target):
    target.mkdir(parents=True)
    install_demo(target, source)
    assert open_workspace(target).samples().num_rows > 0
    other = target.with_name("other")
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match="not empty and no facviz workspace"):
        install_demo(other, source)
    assert [p.name for p in other.iterdir()] == ["letter.txt"]


def test_a_failed_copy_leaves_neither_a_workspace_nor_rubbish(source, target, monkeypatch):
    copied = []

    def fail_later(a, b):
        copied.append(b)
        if len(copied) == 4:
            raise OSError(28, "No space left on device")
        Path(b).write_bytes(Path(a).read_bytes())

    monkeypatch.setattr(shutil, "copyfile", fail_later)
    with pytest.raises(WorkspaceError, match="No space left on device"):
        install_demo(target, source)
    assert list(target.parent.iterdir()) == []


def test_two_installations_at_once_end_with_one_whole_demo(source, target, monkeypatch):
    meet = threading.Barrier(2)
    rename = Path.rename
    pids = iter(range(100_000, 100_010))
    monkeypatch.setattr(os, "getpid", lambda: next(pids))

    def together(self, new):
        meet.wait(20)
        return rename(self, new)

    monkeypatch.setattr(Path, "rename", together)
    failed = []

    def install():
        try:
            install_demo(target, source)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=install) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [p.name for p in target.parent.iterdir()] == ["demo"]
    assert open_workspace(target).samples().num_rows > 0


def test_a_reset_keeps_the_demo_in_use_until_the_next_reset(source, target):
    install_demo(target, source)
    append_line(target / "events" / "review.jsonl", {"event_id": "mine"})
    root, kept = reset_demo(target, source)
    assert root == target
    assert not (target / "events").exists()
    assert b"mine" in (kept / "events" / "review.jsonl").read_bytes()
    again = reset_demo(target, source)[1]
    assert {p.name for p in target.parent.iterdir()} == {"demo", again.name}


def test_a_reset_where_there_is_nothing_installs(source, target):
    assert reset_demo(target, source) == (target, None)
    assert describe_demo(target, source) == {"workspace": str(target), "is_demo": True, "is_current": True}


def test_a_reset_never_touches_a_workspace_of_ones_own_or_folders_that_only_look_kept(source, target):
    own = Workspace.create(target)
    own.remember(note="mine")
    assert describe_demo(target, source) == {"workspace": str(target), "is_demo": False, "is_current": False}
    with pytest.raises(WorkspaceError, match="not the demo but a workspace of your own"):
        reset_demo(target, source)
    assert own.meta["note"] == "mine"
    shutil.rmtree(target)
    install_demo(target, source)
    alike = Workspace.create(target.with_name("demo-20200101-000000-000000"))
    reset_demo(target, source)
    reset_demo(target, source)
    assert alike.meta == {"schema": alike.meta["schema"]}


def test_a_reset_waits_for_no_stage_but_refuses_while_one_writes(source, target):
    install_demo(target, source)
    before = files_of(target)
    with open_workspace(target).lock(), pytest.raises(WorkspaceError, match="is writing to"):
        reset_demo(target, source)
    after = files_of(target)
    after.pop(".lock")
    assert after == before


def test_the_default_place_follows_the_data_folder_of_the_system(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_target() == tmp_path / "data" / "facviz" / "demo"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_target() == tmp_path / ".local" / "share" / "facviz" / "demo"


def test_an_installation_without_demo_files_says_where_to_get_them(tmp_path):
    with pytest.raises(WorkspaceError, match="No demo ships with this installation"):
        install_demo(tmp_path / "demo", tmp_path / "nowhere")
    assert not (tmp_path / "demo").exists()


def test_importing_the_installer_loads_no_model_library(run_python):
    program = "import sys, facviz.pipeline.demo\nprint(*(n for n in ('torch', 'transformers') if n in sys.modules))"
    assert run_python(program) == ""


def test_retraining_puts_a_new_sae_in_half_precision_in_place_before_the_loop_runs(source, tmp_path, monkeypatch):
    folder = tmp_path / "demo"
    shutil.copytree(source, folder)
    texts = [" ".join(random.Random(i).choices(WORDS, k=8)) for i in range(700)]
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (folder / "queries.jsonl").write_text("".join(lines[:300]), encoding="utf-8")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(lines[300:]), encoding="utf-8")
    monkeypatch.setattr(demo_build, "GENERAL_DOCUMENTS", 350)
    met = []

    def stopped(session, config):
        met.append(load_sae(Path(config.sae.path)))
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_build, "run_loop", stopped)
    work = tmp_path / "work"
    for _ in range(2):  # the second one continues from the trained SAE
        with pytest.raises(KeyboardInterrupt):
            demo_build.rebuild_demo(SilentProgress(), retrain=corpus, source=folder, work=work)
    [trained, again] = met
    with open_workspace(work / "training").reader() as reader:
        documents = reader.rows("documents", dataset_id=reader.dataset("training")["dataset_id"])
    assert {row["text"] for row in documents} == set(texts[:650])
    assert trained.d_sae == 40
    assert {"fvu", "l0", "dead", "n_eval_tokens"} <= set(trained.metadata[demo_build.MEASURED])
    assert torch.equal(trained.W_dec, trained.W_dec.half().float())
    assert torch.equal(trained.W_dec, again.W_dec)
    assert files_of(folder / "workspace") == files_of(source / "workspace")
