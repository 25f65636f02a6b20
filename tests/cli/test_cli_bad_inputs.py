"""Bad input of every kind ends with exit 2, one sentence on stderr, nothing on stdout, and loses nothing."""

from __future__ import annotations

import errno
import gzip
import json
import re
import shutil

import pytest
import torch

from facviz import open_workspace
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, SaeWeights

ROW = b'{"text": "apple bread cloud", "label": 1}\n'
GAP = ["--task", "toxicity", "--anchor", "anchor", "--seed", "seed"]
COVERAGE = ["coverage", *GAP, "--kind", "absolute", "--threshold", "0.5"]


@pytest.fixture
def refused(facviz):
    """Run a command that must be refused; the one sentence that says why."""

    def run(*arguments: object) -> str:
        code, output, errors = facviz(*arguments)
        assert (code, output) == (2, ""), errors
        assert re.fullmatch(r"facviz: [^\n]+[.?]\n", errors), errors
        return errors.removeprefix("facviz: ").rstrip("\n")

    return run


def manifest_of(workspace) -> bytes:
    return (workspace / "tables" / "manifest.jsonl").read_bytes()


# Files -----------------------------------------------------------------------------------------------------------

FILES = {
    "an empty file": ("a.jsonl", b"", [], "holds no rows"),
    "blank lines only": ("a.jsonl", b"\n\n  \n", [], "holds no rows"),
    "no field that could be the text": ("a.jsonl", b'{"score": 3}\n', [], "no field for text among `score`"),
    "a wrong text field": ("a.jsonl", ROW, ["--text-field", "body"], "None of the rows"),
    "a wrong label field": ("a.jsonl", ROW, ["--label-field", "toxic"], "no field `toxic` for the label"),
    "mixed encodings": ("a.jsonl", ROW + b'{"text": "na\xefve"}\n', [], "not UTF-8 at line 2, byte 55"),
    "half of a UTF-16 file": ("a.csv", b"\xff\xfe\x00\xd8", [], "convert it to UTF-8"),
    "broken JSON everywhere": ("a.jsonl", b'{"text": "a"\n{text}\nnothing\n', [], "invalid JSON: 3"),
    "a number for JSON": ("a.json", b"5", [], "a.json"),
    "several lists in one JSON file": ("a.json", b'{"a": [{"text": "x"}], "b": [{"text": "y"}]}', [], "several lists"),
    "an unknown extension": ("a.docx", ROW, [], "unknown ending"),
    "a torn gzip file": ("a.jsonl.gz", gzip.compress(ROW * 9)[:-12], [], "not a whole gzip file"),
    "no gzip file at all": ("a.jsonl.gz", ROW, [], "not a whole gzip file"),
    "a damaged Parquet file": ("a.parquet", b"PAR1" + bytes(40) + b"PAR1", [], "cannot be read as Parquet"),
    "a column that stands twice": ("a.csv", b"text,text\na,b\n", [], "stands twice"),
    "fields of a file without fields": ("a.txt", b"a line\n", ["--text-field", "text"], "has no fields"),
    "roles nobody speaks in": ("a.jsonl", ROW, ["--roles", "assistant"], "no content tokens"),
    "no roles": ("a.jsonl", ROW, ["--roles", ","], "no `roles`"),
    "a limit of nothing": ("a.jsonl", ROW, ["--limit", "0"], "must be above 0"),
    "documents cut to nothing": ("a.jsonl", ROW, ["--max-tokens-per-doc", "0"], "must be above 0"),
    "a name that is a path": ("a.jsonl", ROW, ["--name", "../x"], "must be 1-64 letters"),
    "a layer below the embeddings": ("a.jsonl", ROW, ["--layer", "-1"], "must not be negative"),
}


@pytest.mark.parametrize(("name", "content", "more", "reason"), FILES.values(), ids=FILES)
def test_a_file_that_cannot_be_used(refused, bare, tmp_path, name, content, more, reason):
    path, before = tmp_path / name, manifest_of(bare)
    path.write_bytes(content)
    assert reason in refused("data", "add", path, "--name", "x", *more, "--workspace", bare, "--quiet")
    assert manifest_of(bare) == before


def test_a_path_that_is_no_file(refused, bare, tmp_path):
    reason = refused("data", "add", tmp_path / "missing.jsonl", "--name", "x", "--workspace", bare, "--quiet")
    assert "cannot be read (No such file or directory)" in reason


def test_a_folder_without_data(refused, bare, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.md").write_text("no data")
    reason = refused("data", "add", folder, "--name", "x", "--workspace", bare, "--quiet")
    assert "is a folder without a file to read" in reason
    assert "unknown ending: 1" in reason


# Configurations --------------------------------------------------------------------------------------------------

EDITS = {
    "not TOML": ("[coverage]", "[coverage", "is not valid TOML"),
    "not UTF-8": ("toxicity", "toxicit\udce9", "cannot be read as UTF-8"),
    "an unknown key": ("max_candidates", "max_candidate", "did you mean `max_candidates`?"),
    "an unknown table": ("[synthesis]", "[synthetic]", "unknown key `synthetic`"),
    "a wrong type": ("threshold = 0.5", 'threshold = "half"', "is 'half'; it must be a number"),
    "a missing table": ('[capture]\ndataset = "anchor"', "", "`capture` is missing"),
    "a table that is none": ('[datasets.sample]\nof = "anchor"\nn = 40\nlabel = "0"', "sample = 3", "must be a table"),
    "an unset environment variable": ('"anchor.jsonl"', '"${FACVIZ_TEST_UNSET}/a.jsonl"', "FACVIZ_TEST_UNSET"),
    "a NaN threshold": ("threshold = 0.5", "threshold = nan", "give a finite number"),
    "an infinite threshold": ("threshold = 0.5", "threshold = inf", "give a finite number"),
    "a negative threshold": ("threshold = 0.5", "threshold = -0.5", "must not be negative"),
    "an unknown threshold kind": ('"absolute"', '"percentile"', "choose one of 'relative', 'absolute'"),
    "an unknown task": ('task = "toxicity"', 'task = "world peace"', "There is no task 'world peace'"),
    "an unknown dataset": ('seed = "seed"', 'seed = "sead"', "names the dataset 'sead'"),
    "anchor and seed the same": ('seed = "seed"', 'seed = "anchor"', "Anchor and seed are the same dataset"),
    "no seed": ('seed = "seed"\n', "", "`coverage.seed` is missing"),
    "a name used twice": ('name = "seed"', 'name = "anchor"', "is used twice"),
    "a sample of itself": ('of = "anchor"', 'of = "seed"', "must be another one"),
    "a sample larger than its source": ("n = 40", "n = 49", "too few to draw 49"),
    "a sample of a label nobody has": ('label = "0"', 'label = "2"', "too few to draw"),
    "more active features than features": ('path = "models/sae"', "d_sae = 16\nk = 16", "k (16) must be smaller"),
    "an unknown architecture": ('path = "models/sae"', 'architecture = "guarded"', "choose one of 'batchtopk', 'topk'"),
    "a learning rate of 0": ('path = "models/sae"', "learning_rate = 0", "`learning_rate` is 0.0"),
    "a missing SAE": ("models/sae", "models/other", "There is no SAE at"),
    "one step-1 candidate": ("pair_candidates = 8", "pair_candidates = 1", "at least 2"),
    "more samples than candidates": (
        "max_candidates = 48",
        "max_candidates = 48\nper_feature = 49",
        "no feature could",
    ),
    "a label nobody has": (
        "[relevance]",
        '[relevance]\npositive = "toxic"',
        "has the label 'toxic'; labels there: 0, 1",
    ),
    "a threshold that nothing reaches": ("threshold = 0.5", "threshold = 50.0", "lower the threshold"),
    "a saturated coverage": ("threshold = 0.5", "threshold = 4.0", "set the threshold to 0.0"),
    "a layer out of range": ("layer = 1", "layer = 3", "Layer 3 does not exist"),
    "a missing backbone": ("models/backbone", "/no/such/folder", "There is no folder or GGUF file"),
    "a hub that cannot be reached": ("models/backbone", "owner/model", "hub cannot be reached"),
    "an SAE for another width": ("models/sae", "wide", "reads 48 dimensions but"),
    "no spans to keep": ("per_split = 3", "per_split = 0", "must be above 0"),
}


@pytest.mark.parametrize(("old", "new", "reason"), EDITS.values(), ids=EDITS)
def test_a_configuration_that_cannot_run(refused, planted_loop, loop_copy, old, new, reason):
    save_sae(loop_copy / "wide", d_in=48)
    config, workspace = loop_copy / "planted.toml", loop_copy / "workspace"
    text, before = config.read_text(encoding="utf-8"), manifest_of(workspace)
    assert text.count(old) >= 1
    config.write_bytes(text.replace(old, new, 1).encode("utf-8", "surrogateescape"))
    assert reason in refused("run", config, "--workspace", workspace, "--quiet")
    assert manifest_of(workspace).startswith(before)


def test_a_configuration_that_is_missing_or_a_folder(refused, tmp_path):
    assert "no configuration file" in refused("run", tmp_path / "none.toml", "--workspace", tmp_path / "w")
    assert "cannot be read" in refused("run", tmp_path, "--workspace", tmp_path / "w")
    assert not (tmp_path / "w").exists()


# Backbones and SAEs ----------------------------------------------------------------------------------------------


def save_sae(folder, d_in=32, d_sae=8):
    weights = SaeWeights(
        torch.ones(d_in, d_sae), torch.zeros(d_sae), torch.ones(d_sae, d_in), torch.zeros(d_in), Activation("relu")
    )
    return SAE(weights, {"layer": 1}).save(folder)


def break_weights(folder):
    (folder / "sae_weights.safetensors").write_bytes(b"not safetensors")


def tear_weights(folder):
    path = folder / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def poison_weights(folder):
    import safetensors.torch

    path = folder / "sae_weights.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["W_enc"][0, 0] = float("nan")
    safetensors.torch.save_file(tensors, path)


SAES = {
    "weights that are no safetensors": (break_weights, "no whole safetensors file"),
    "torn weights": (tear_weights, "not a whole safetensors file"),
    "a NaN among the weights": (poison_weights, "NaN"),
    "broken cfg.json": (lambda folder: (folder / "cfg.json").write_text("{"), "cfg.json is not readable JSON"),
    "a cfg.json without sizes": (lambda folder: (folder / "cfg.json").write_text("{}"), "does not state d_in"),
    "no weights": (lambda folder: (folder / "sae_weights.safetensors").unlink(), "no known SAE format"),
    "nothing there": (shutil.rmtree, "There is no SAE at"),
}


@pytest.mark.parametrize(("damage", "reason"), SAES.values(), ids=SAES)
def test_an_sae_that_cannot_be_loaded(refused, bare, tmp_path, damage, reason):
    folder, before = save_sae(tmp_path / "sae"), manifest_of(bare)
    damage(folder)
    assert reason in refused("sae", "load", folder, "--workspace", bare, "--quiet")
    assert manifest_of(bare) == before


def test_an_sae_of_another_width_than_the_backbone(refused, bare, tmp_path):
    folder = save_sae(tmp_path / "sae", d_in=48)
    assert "reads 48 dimensions but" in refused("sae", "load", folder, "--workspace", bare, "--quiet")


def test_an_unknown_sae_format(refused, bare, tmp_path):
    folder = save_sae(tmp_path / "sae")
    said = refused("sae", "load", folder, "--format", "pickle", "--workspace", bare, "--quiet")
    assert said.startswith("The SAE format 'pickle' is unknown; use auto or one of ")
    assert "saelens" in said


def test_a_backbone_without_tokenizer_and_one_without_weights(refused, planted_loop, tmp_path):
    for file, reason in (("tokenizer.json", "tokenizer"), ("model.safetensors", "cannot be loaded")):
        folder = shutil.copytree(planted_loop / "models" / "backbone", tmp_path / f"no-{file}")
        (folder / file).unlink()
        load = ["sae", "load", planted_loop / "models" / "sae", "--backbone", folder, "--workspace", tmp_path / "w"]
        assert reason in refused(*load, "--quiet")


def test_a_backbone_that_failed_is_not_remembered(refused, told, planted_loop, bare, tmp_path):
    sae = planted_loop / "models" / "sae"
    refused("sae", "load", sae, "--backbone", tmp_path / "typo", "--workspace", bare, "--quiet")
    refused("sae", "load", sae, "--layer", 9, "--workspace", bare, "--quiet")
    assert told("sae", "load", sae, "--workspace", bare)["layer"] == 1


# Workspaces ------------------------------------------------------------------------------------------------------


def test_a_workspace_must_be_named(refused):
    assert "give --workspace W or set FACVIZ_WORKSPACE" in refused(*COVERAGE)


def test_a_workspace_that_does_not_exist(refused, tmp_path):
    assert "is no facviz workspace" in refused(*COVERAGE, "--workspace", tmp_path / "none")


def test_a_workspace_that_is_a_file(refused, planted_loop, tmp_path):
    (tmp_path / "w").write_text("")
    assert "is a file" in refused("run", planted_loop / "planted.toml", "--workspace", tmp_path / "w")


def test_a_workspace_that_belongs_to_something_else(refused, planted_loop, tmp_path):
    (tmp_path / "thesis.tex").write_text("dear")
    assert "is not empty" in refused("run", planted_loop / "planted.toml", "--workspace", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_workspace_of_a_newer_facviz(refused, loop_copy):
    (loop_copy / "workspace" / "workspace.json").write_text('{"schema": 99}')
    assert "newer facviz" in refused(*COVERAGE, "--workspace", loop_copy / "workspace")


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"schema": "one"}'])
def test_a_damaged_workspace_file(refused, loop_copy, content):
    (loop_copy / "workspace" / "workspace.json").write_text(content)
    assert str(loop_copy / "workspace") in refused(*COVERAGE, "--workspace", loop_copy / "workspace")


def test_a_locked_workspace(refused, start_python, loop_copy):
    workspace = loop_copy / "workspace"
    holder = start_python(
        "import sys; from facviz import open_workspace\n"
        "with open_workspace(sys.argv[1]).lock(): print('held', flush=True); sys.stdin.read()",
        workspace,
    )
    assert holder.stdout.readline() == "held\n"
    before = manifest_of(workspace)
    for command in (COVERAGE, ["run", loop_copy / "planted.toml"], ["db", "rebuild"]):
        said = refused(*command, "--workspace", workspace, "--quiet")
        assert f"Another facviz (process {holder.pid}) is writing" in said
    assert manifest_of(workspace) == before


@pytest.mark.parametrize("damage", ["torn", "gone"])
def test_a_damaged_shard_is_named_and_made_again_by_its_stage(refused, told, loop_copy, damage):
    workspace = open_workspace(loop_copy / "workspace")
    path = workspace.manifest.live_shards()["doc_activation"][0]
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-50])
    said = refused(*COVERAGE[:-1], "0.6", "--workspace", workspace.root)
    assert path.name in said
    assert "run the stage that wrote it again" in said
    path.unlink(missing_ok=True)
    told("run", loop_copy / "planted.toml", "--workspace", workspace.root)
    assert told(*COVERAGE[:-1], "0.6", "--workspace", workspace.root)["n_missing"] == 12


@pytest.mark.parametrize("place", ["facviz.store.manifest.pq.write_table", "facviz.files.os.fsync"])
def test_a_full_disk(refused, told, loop_copy, monkeypatch, place):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    workspace = loop_copy / "workspace"
    before = manifest_of(workspace)
    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        said = refused(*COVERAGE[:-1], "0.6", "--workspace", workspace)
    assert "No space left on device" in said
    assert "finished work is kept" in said
    assert manifest_of(workspace).startswith(before)
    assert not list((workspace / "tables").rglob("*.tmp"))
    assert told(*COVERAGE[:-1], "0.6", "--workspace", workspace)["n_missing"] == 12


# Stages out of order ---------------------------------------------------------------------------------------------

TOO_EARLY = {
    "spans of an unknown dataset": (["spans", "--dataset", "other"], "There is no dataset 'other'"),
    "spans by an unknown SAE": (["spans", "--dataset", "anchor", "--sae", "beef"], "There is no SAE 'beef'"),
    "explanations before spans": (["explain", "--dataset", "anchor"], "run `facviz spans` first"),
    "relevance before spans": (["relevance", "--task", "toxicity", "--labels", "anchor"], "needs `facviz spans`"),
    "relevance by embedding before explanations": (
        ["relevance", "--task", "toxicity", "--labels", "anchor", "--source", "embedding"],
        "needs `facviz explain`",
    ),
    "coverage before spans": (COVERAGE, "run `facviz spans` on it first"),
    "coverage of one set with itself": ([*COVERAGE, "--seed", "anchor"], "are the same dataset"),
    "a measure of an unknown SAE": (["sae", "eval", "beef", "--dataset", "anchor"], "There is no SAE 'beef'"),
    "a capture of an unknown dataset": (["capture", "--dataset", "other"], "There is no dataset 'other'"),
    "training with too large a k": (
        ["sae", "train", "--dataset", "anchor", "--d-sae", "8", "--k", "8"],
        "smaller than d_sae",
    ),
    "training with too few tokens": (
        ["sae", "train", "--dataset", "anchor", "--epochs", "2"],
        "fewer captured tokens than one batch",
    ),
    "samples before there are any": (["export", "samples", "--out", "x"], "run `facviz synthesize` first"),
    "features before there are any": (["export", "features", "--out", "x"], "run `facviz spans` first"),
    "a report on nothing": (["export", "report", "--out", "x"], "run `facviz coverage` first"),
    "an export to a missing folder": (["export", "samples", "--out", "no/such/x"], "does not exist; make it first"),
    "an export onto a folder": (["export", "samples", "--out", "."], "is a folder; give a file"),
    "an SAE exported into a full folder": (["export", "sae", "--out", "."], "give a new or empty folder"),
}


@pytest.mark.parametrize(("command", "reason"), TOO_EARLY.values(), ids=TOO_EARLY)
def test_a_stage_whose_input_is_not_there(refused, bare, tmp_path, monkeypatch, command, reason):
    monkeypatch.chdir(tmp_path)
    assert reason in refused(*command, "--workspace", bare, "--quiet")
    assert not (tmp_path / "x").exists()


def test_no_sae_at_all(refused, told, planted_loop, tmp_path):
    models = ["--backbone", planted_loop / "models" / "backbone"]
    told("data", "add", planted_loop / "anchor.jsonl", "--name", "anchor", *models, "--workspace", tmp_path / "w")
    assert "no SAE yet" in refused("spans", "--dataset", "anchor", "--workspace", tmp_path / "w")


NOT_ANSWERABLE = {
    "coverage before relevance": (["coverage", *GAP[2:], "--task", "helpfulness"], "run `facviz relevance` first"),
    "an unknown seed set": ([*COVERAGE, "--seed", "sead"], "There is no dataset 'sead'"),
    "an unknown task": (["coverage", *GAP[2:], "--task", "peace"], "There is no task 'peace'"),
    "labels of one class": (
        ["relevance", "--task", "toxicity", "--labels", "seed", "--positive", "0"],
        "All documents carry the same label",
    ),
    "a label nobody has": (
        ["relevance", "--task", "toxicity", "--labels", "seed"],
        "No document of seed has the label '1'",
    ),
    "a NaN threshold": ([*COVERAGE, "--threshold", "nan"], "give a finite number"),
    "a negative threshold": ([*COVERAGE, "--threshold=-1"], "must not be negative"),
    "a FAC above 1 to reach": ([*COVERAGE, "--min-fac", "1.5"], "must lie between 0 and 1"),
    "a threshold that nothing reaches": (["coverage", *GAP], "so FAC has no denominator"),
    "a feature that is not missing": (
        ["synthesize", *COVERAGE[1:], "--features", "3"],
        "Feature 3 is not among the 12",
    ),
    "a saturated gap": (["synthesize", *COVERAGE[1:], "--threshold", "4"], "set the threshold to 0.0"),
    "a probability above 1": (["synthesize", *COVERAGE[1:], "--top-p", "2"], "must lie between 0 and 1"),
    "a paid model that is not set up": (
        ["synthesize", *COVERAGE[1:], "--provider", "auto"],
        "set ANTHROPIC_API_KEY, OPENAI_API_KEY or OPENAI_BASE_URL, or use `local`",
    ),
    "no candidates": (["synthesize", *COVERAGE[1:], "--max-candidates", "0"], "must be above 0"),
}


@pytest.mark.parametrize(("command", "reason"), NOT_ANSWERABLE.values(), ids=NOT_ANSWERABLE)
def test_a_question_without_an_answer(refused, loop_copy, command, reason):
    workspace = loop_copy / "workspace"
    before = manifest_of(workspace)
    assert reason in refused(*command, "--workspace", workspace, "--quiet")
    assert manifest_of(workspace).startswith(before)
    assert open_workspace(workspace).samples().num_rows > 0


# Usage -----------------------------------------------------------------------------------------------------------

USAGE = {
    "no command": [],
    "an unknown command": ["dashboard"],
    "an unknown flag": ["doctor", "--fast"],
    "a missing flag": ["coverage", "--task", "toxicity"],
    "a missing action": ["sae"],
    "an unknown action": ["data", "remove", "x", "--name", "y"],
    "an unknown export": ["export", "everything", "--out", "x"],
    "an unknown level": [*COVERAGE, "--level", "perhaps"],
    "a threshold that is no number": [*COVERAGE, "--threshold", "high"],
    "feature ids that are none": ["synthesize", *GAP, "--features", "a,b"],
    "an empty list of features": ["synthesize", *GAP, "--features", ","],
    "no configuration": ["run"],
    "a provider that is not there yet": ["explain", "--dataset", "x", "--provider", "oracle"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_wrong_usage_is_one_sentence_too(refused, arguments):
    assert re.search(r"see `facviz[a-z ]* --help`\.$", refused(*arguments))


def test_there_are_at_least_thirty_bad_inputs():
    assert sum(map(len, (FILES, EDITS, SAES, TOO_EARLY, NOT_ANSWERABLE, USAGE))) >= 100


def test_a_bad_input_says_nothing_in_json_mode_either(refused, bare):
    assert "run `facviz spans`" in refused("explain", "--dataset", "anchor", "--json", "--quiet", "--workspace", bare)


def test_a_stage_interrupted_by_the_user_says_how_to_go_on(refused, bare, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("facviz.pipeline.features.collect_spans", interrupted)
    said = refused("spans", "--dataset", "anchor", "--workspace", bare)
    assert said == "stopped; run the same command again to continue where it was."


def test_a_file_name_with_a_line_break_is_still_one_sentence(refused, bare, tmp_path):
    path = tmp_path / "two\nlines.docx"
    path.write_bytes(json.dumps({"text": "a"}).encode())
    assert "unknown ending" in refused("data", "add", path, "--name", "x", "--workspace", bare, "--quiet")
