"""Configuration: every mistake is one sentence that names it, and fingerprints change with what changes a result."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import pytest

from facviz.config import (
    NOT_IN_FINGERPRINT,
    BackboneConfig,
    CaptureConfig,
    CoverageConfig,
    DatasetConfig,
    EvaluationConfig,
    ExplainConfig,
    RelevanceConfig,
    RunConfig,
    SaeConfig,
    SampleConfig,
    SpansConfig,
    SynthesisConfig,
    check_ranges,
    fingerprint,
    from_mapping,
    load_run_config,
)
from facviz.errors import InputError

VALID = """\
task = "toxicity"

[[datasets]]
name = "corpus"
path = "data/corpus.jsonl"

[[datasets]]
name = "few"
[datasets.sample]
of = "corpus"
n = 20

[capture]
dataset = "corpus"

[coverage]
anchor = "corpus"
seed = "few"
"""


@pytest.fixture
def load(tmp_path):
    def build(content):
        path = tmp_path / "run.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_run_config(path)

    return build


def test_a_short_file_is_enough_and_the_rest_are_defaults(load, tmp_path):
    config = load(VALID)
    assert config.task == "toxicity"
    assert config.datasets[0] == DatasetConfig("corpus", path=str(tmp_path / "data" / "corpus.jsonl"))
    assert config.datasets[1] == DatasetConfig("few", sample=SampleConfig("corpus", 20))
    assert config.coverage == CoverageConfig(anchor="corpus", seed="few")
    assert (config.sae, config.synthesis, config.spans) == (SaeConfig(), SynthesisConfig(), SpansConfig())


def test_every_kind_of_value_arrives_as_its_type(load):
    config = load(
        VALID
        + """
threshold = 1
include_always_on = true
min_fac = 0.5
[synthesis]
features = [3, 1]
max_features = 7
[spans]
datasets = ["few"]
[backbone]
dtype = "float32"
layer = 0
"""
    )
    assert (config.coverage.threshold, type(config.coverage.threshold)) == (1.0, float)
    assert config.coverage.include_always_on is True
    assert config.synthesis.features == (3, 1)
    assert config.spans.datasets == ("few",)
    assert (config.backbone.dtype, config.backbone.layer) == ("float32", 0)


def test_defect_6_all_missing_features_are_attempted_unless_told_otherwise(load):
    assert SynthesisConfig().max_features is None
    assert SynthesisConfig().features == ()
    assert load(VALID).synthesis.max_features is None
    assert load(VALID + "[synthesis]\nmax_features = 5\n").synthesis.max_features == 5


def changed(old: str, new: str) -> str:
    assert VALID.count(old) == 1
    return VALID.replace(old, new)


def extra(text: str) -> str:
    return VALID + text + "\n"


BAD = {
    "NaN δ": (extra("threshold = nan"), r"`threshold` is nan; give a finite number"),
    "infinite δ": (extra("threshold = inf"), r"`threshold` is inf; give a finite number"),
    "endless δ": (extra("threshold = 1" + "0" * 400), r"`threshold` is inf; give a finite number"),
    "negative δ": (extra("threshold = -0.5"), r"`threshold` is -0.5; it must not be negative"),
    "share above one": (extra("min_fac = 1.5"), r"`min_fac` is 1.5; it must lie between 0 and 1"),
    "negative share": (extra("[relevance]\nmax_q = -0.1"), r"`max_q` is -0.1; it must lie between 0 and 1"),
    "negative seed": (extra("rng_seed = -1"), r"`rng_seed` is -1; it must not be negative"),
    "no permutations": (extra("[relevance]\nn_permutations = 0"), r"`n_permutations` is 0; it must be above 0"),
    "no features": (extra("[sae]\nd_sae = 0\nk = -1"), r"`d_sae` is 0; it must be above 0"),
    "k as large as the SAE": (extra("[sae]\nd_sae = 32\nk = 32"), r"k \(32\) must be smaller than d_sae \(32\)"),
    "no learning": (extra("[sae]\nlearning_rate = 0"), r"`learning_rate` is 0.0; it must be above 0"),
    "negative revival": (extra("[sae]\naux_k = -1"), r"`aux_k` is -1; it must not be negative"),
    "never dead": (extra("[sae]\ndead_after_tokens = 0"), r"`dead_after_tokens` is 0; it must be above 0"),
    "nothing held out": (changed('dataset = "corpus"', 'dataset = "corpus"\nheldout_tokens = 0'), "must be above 0"),
    "nothing scored": (extra("[explain]\nmax_scored = 0"), r"`max_scored` is 0; it must be above 0"),
    "no room": (extra("[backbone]\nmax_tokens = 0"), r"`backbone`: `max_tokens` is 0; it must be above 0"),
    "negative layer": (extra("[backbone]\nlayer = -1"), r"`layer` is -1; it must not be negative"),
    "a step without a pair": (
        extra('[synthesis]\nstrategy = "one-step"\nstep = "pairs"'), r"one-step has no step `pairs`; leave `step` out"
    ),
    "a push from outside": (
        extra('[synthesis]\nstrategy = "steered"\nprovider = "openai"'), r"written by the provider `local` alone"
    ),
    "a model of nobody": (extra('[synthesis]\nmodel = "m"'), r"`model` names a model of a paid provider"),
    "a judge of nobody": (extra('[synthesis]\njudge_model = "m"'), r"name one in `judge_provider` as well"),
    "a budget for nothing": (extra("[synthesis]\nbudget_usd = 1.0"), r"nothing here costs money; leave it out"),
    "no pass": (extra("[synthesis]\npasses = 0"), r"`passes` is 0; it must be above 0"),
    "one candidate": (extra("[synthesis]\npair_candidates = 1"), r"a contrastive pair needs at least 2"),
    "negative window": (extra("[spans]\nbefore_tokens = -1"), r"`before_tokens` is -1; it must not be negative"),
    "zero documents": (changed("n = 20", "n = 0"), r"`n` is 0; it must be above 0"),
    "text for a number": (changed("n = 20", 'n = "20"'), r"`sample`: `n` is '20'; it must be a whole number"),
    "fraction for a count": (changed("n = 20", "n = 2.5"), r"`n` is 2.5; it must be a whole number"),
    "bool for a count": (changed("n = 20", "n = true"), r"`n` is True; it must be a whole number"),
    "bool for a fraction": (extra("threshold = true"), r"`threshold` is True; it must be a number"),
    "number for a bool": (extra("include_always_on = 1"), r"`include_always_on` is 1; it must be true or false"),
    "number for a text": (changed('task = "toxicity"', "task = 3"), r"`task` is 3; it must be a text"),
    "list for a text": (changed('seed = "few"', 'seed = ["few"]'), r"`seed` is \['few'\]; it must be a text"),
    "text for a list": (extra('[spans]\ndatasets = "few"'), r"`spans`: `datasets` must be a list"),
    "number in a list of texts": (extra("[spans]\ndatasets = [1]"), r"`datasets` is 1; it must be a text"),
    "text in a list of numbers": (extra('[synthesis]\nfeatures = ["1"]'), r"`features` is '1'; it must be a whole"),
    "value for a table": ('sae = 3\n' + VALID, r"`sae` must be a table"),
    "list for a table": ('sae = [1]\n' + VALID, r"`sae` must be a table"),
    "table for a list": (extra("[spans.datasets]\na = 1"), r"`datasets` must be a list"),
    "no such choice": (extra('kind = "both"'), r"`kind` is 'both'; choose one of 'relative', 'absolute'"),
    "list for a choice": (extra('kind = ["relative"]'), r"choose one of 'relative', 'absolute'"),
    "unknown key": (extra("treshold = 1"), r"unknown key `treshold`; did you mean `threshold`\?"),
    "unknown table": (extra("[synthesiss]"), r"unknown key `synthesiss`; did you mean `synthesis`\?"),
    "strange key": (extra("[sae]\nqqq = 1"), r"unknown key `qqq`; known keys: path, continue_from, architecture"),
    "missing key": (changed("n = 20\n", ""), r"`sample`: `n` is missing; add it"),
    "missing table": (changed('[capture]\ndataset = "corpus"\n', ""), r"`capture` is missing; add it"),
    "no anchor": (changed('anchor = "corpus"\n', ""), r"`coverage.anchor` is missing; name the anchor dataset"),
    "no seed": (changed('seed = "few"\n', ""), r"`coverage.seed` is missing; name the seed dataset"),
    "same twice": (changed('seed = "few"', 'seed = "corpus"'), r"Anchor and seed are the same dataset"),
    "equal names": (changed('name = "few"', 'name = "corpus"'), r"dataset name corpus is used twice"),
    "bad name": (changed('name = "few"', 'name = "a/b"'), r"dataset name 'a/b' must be 1-64 letters"),
    "empty name": (changed('name = "few"', 'name = ""'), r"dataset name '' must be 1-64 letters"),
    "path and sample": (changed('name = "few"', 'name = "few"\npath = "x"'), r"few needs either `path` or `sample`"),
    "neither": (changed('path = "data/corpus.jsonl"\n', ""), r"corpus needs either `path` or `sample`"),
    "no roles": (changed('name = "few"', 'name = "few"\nroles = []'), r"few has no `roles`; name at least one"),
    "unknown seed": (changed('seed = "few"', 'seed = "few2"'), r"`coverage.seed` names the dataset 'few2'.*few"),
    "unknown corpus": (changed('dataset = "corpus"', 'dataset = "x"'), r"`capture.dataset` names the dataset 'x'"),
    "unknown labels": (extra('[relevance]\nlabels = "x"'), r"`relevance.labels` names the dataset 'x'"),
    "unknown spans": (extra('[spans]\ndatasets = ["x"]'), r"`spans.datasets` names the dataset 'x'"),
    "unknown explained": (extra('[explain]\ndataset = "x"'), r"`explain.dataset` names the dataset 'x'"),
    "unknown pool": (changed('of = "corpus"', 'of = "x"'), r"`sample.of` names the dataset 'x'"),
    "drawn from itself": (changed('of = "corpus"', 'of = "few"'), r"few is drawn from 'few', which must be another"),
    "unset variable": (changed("data/corpus", "${FACVIZ_NOT_SET}"), r"variable FACVIZ_NOT_SET, which is not set"),
    "no TOML": ("task = ", r"is not valid TOML: "),
    "key twice": ('task = "a"\ntask = "b"', r"is not valid TOML: "),
    "empty": ("", r"`task` is missing; add it"),
    "not UTF-8": (b'task = "\xff"', r"cannot be read as UTF-8 text"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", BAD)
def test_every_mistake_is_one_sentence_that_names_it(load, monkeypatch, mistake):
    monkeypatch.delenv("FACVIZ_NOT_SET", raising=False)
    content, message = BAD[mistake]
    with pytest.raises(InputError, match=message) as caught:
        load(content)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith((".", "?"))


def test_a_sample_may_only_be_drawn_from_a_dataset_above_it(load):
    blocks = VALID.split("\n\n")
    with pytest.raises(InputError, match=r"few is drawn from 'corpus', which must .* stands above it"):
        load("\n\n".join([blocks[0], blocks[2], blocks[1], *blocks[3:]]))


def test_a_missing_file_or_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no configuration file .*none\.toml; give the path"):
        load_run_config(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read"):
        load_run_config(tmp_path)


@pytest.mark.parametrize("field", ["path", "source", "text_field"])
def test_environment_variables_are_put_in_anywhere(load, monkeypatch, field):
    monkeypatch.setenv("FACVIZ_TEST_A", "/abs")
    monkeypatch.setenv("FACVIZ_TEST_B", "${FACVIZ_TEST_A}")
    value = f'{field} = "${{FACVIZ_TEST_A}}/x/${{FACVIZ_TEST_B}}"'
    content = VALID.replace('path = "data/corpus.jsonl"', value if field == "path" else f'path = "p"\n{value}')
    assert getattr(load(content).datasets[0], field) == "/abs/x/${FACVIZ_TEST_A}"


def test_a_dollar_sign_without_braces_is_a_dollar_sign(load):
    assert load(changed("data/corpus", "a$HOME${}")).datasets[0].path.endswith("/a$HOME${}.jsonl")


def test_paths_are_relative_to_the_file_not_to_where_the_program_started(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "run.toml").write_text(VALID + '[sae]\npath = "../sae"\n')
    monkeypatch.chdir(tmp_path)
    config = load_run_config(Path("project/run.toml"))
    assert config.datasets[0].path == str(folder / "data" / "corpus.jsonl")
    assert config.sae.path == str(tmp_path / "sae")
    assert config.datasets[1].path == ""


def test_absolute_paths_and_the_home_folder_stay_what_they_are(load, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load(changed("data/corpus", "/abs/corpus")).datasets[0].path == "/abs/corpus.jsonl"
    assert load(changed("data/corpus", "~/corpus")).datasets[0].path == str(tmp_path / "home" / "corpus.jsonl")


def test_the_examples_in_the_documentation_are_valid(monkeypatch):
    monkeypatch.setenv("FACVIZ_DATA", "/data")
    examples = sorted((Path(__file__).parents[1] / "docs" / "examples").glob("*.toml"))
    assert examples
    for path in examples:
        assert isinstance(load_run_config(path), RunConfig)


def test_a_mapping_is_checked_like_a_file():
    assert from_mapping(SampleConfig, {"of": "a", "n": 3, "label": None}, where="x") == SampleConfig("a", 3)
    with pytest.raises(InputError, match=r"^x: unknown key `m`"):
        from_mapping(SampleConfig, {"of": "a", "m": 3}, where="x")
    with pytest.raises(InputError, match=r"^here: `k` is 0; it must be above 0\.$"):
        check_ranges(SaeConfig(k=0), "here")


# Fingerprints

STAGES = [
    BackboneConfig(),
    CaptureConfig("d"),
    CoverageConfig(),
    DatasetConfig("d", sample=SampleConfig("e", 3)),
    EvaluationConfig(),
    ExplainConfig(),
    RelevanceConfig(),
    SaeConfig(),
    SampleConfig("d", 3),
    SpansConfig(),
    SynthesisConfig(),
]
RUN = RunConfig("t", (DatasetConfig("d", path="p"),), CaptureConfig("d"), CoverageConfig("a", "s"))


def other_value(hint, value):
    """A value of the same type that differs."""
    arguments = [a for a in typing.get_args(hint) if a is not type(None)]
    if typing.get_origin(hint) is typing.Literal:
        return next((a for a in arguments if a != value), f"not {value}")
    if typing.get_origin(hint) is tuple:
        return (*value, "more")
    if dataclasses.is_dataclass(hint):
        first = dataclasses.fields(hint)[0]
        return dataclasses.replace(
            value, **{first.name: other_value(typing.get_type_hints(hint)[first.name], getattr(value, first.name))}
        )
    if arguments and dataclasses.is_dataclass(arguments[0]):
        return arguments[0]() if value is None else None
    if arguments:
        return other_value(arguments[0], value) if value is not None else {int: 1, float: 0.5, str: "x"}[arguments[0]]
    return not value if hint is bool else value + (1 if hint in (int, float) else "x")  # fmt: skip


FIELDS = [(config, f) for config in [*STAGES, RUN] for f in dataclasses.fields(config)]


@pytest.mark.parametrize(("config", "f"), FIELDS, ids=[f"{type(c).__name__}.{f.name}" for c, f in FIELDS])
def test_a_fingerprint_changes_with_every_field_that_can_change_a_result(config, f):
    hint = typing.get_type_hints(type(config))[f.name]
    changed = dataclasses.replace(config, **{f.name: other_value(hint, getattr(config, f.name))})
    is_counted = f.metadata.get("fingerprint", True)
    assert (fingerprint(changed) != fingerprint(config)) == is_counted


def test_only_what_bounds_memory_disk_or_money_is_left_out_of_fingerprints():
    left_out = [(type(c).__name__, f.name) for c, f in FIELDS if f.metadata == NOT_IN_FINGERPRINT]
    assert sorted(left_out) == [
        ("BackboneConfig", "batch_tokens"),
        ("BackboneConfig", "device"),
        ("CaptureConfig", "keep"),
        ("ExplainConfig", "batch"),
        ("ExplainConfig", "budget_usd"),
        ("ExplainConfig", "concurrency"),
        ("RelevanceConfig", "batch"),
        ("RelevanceConfig", "budget_usd"),
        ("RelevanceConfig", "concurrency"),
        ("SynthesisConfig", "budget_usd"),
        ("SynthesisConfig", "concurrency"),
    ]


def test_a_field_added_later_renames_no_result_while_it_keeps_its_default():
    config = BackboneConfig(name="m", layer=3)
    before = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    del before["site"], before["batch_tokens"], before["device"]
    assert fingerprint("a", config) == fingerprint("a", before)
    assert fingerprint(dataclasses.replace(config, site="mlp")) == fingerprint(before | {"site": "mlp"})
    assert len({fingerprint(dataclasses.replace(config, site=site)) for site in ("resid", "mlp", "attn")}) == 3


def test_a_fingerprint_is_the_same_in_every_process(run_python):
    program = "from facviz.config import *; print(fingerprint(SaeConfig(), {'b': 1, 'a': (2, None)}, 'é', 0.1))"
    expected = fingerprint(SaeConfig(), {"a": [2, None], "b": 1}, "é", 0.1)
    assert {run_python(program), run_python(program)} == {expected}
    assert len(expected) == 16


def test_a_fingerprint_knows_order_of_parts_but_not_of_keys():
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    assert fingerprint("a", "b") != fingerprint("b", "a")
    assert fingerprint("a", "b") != fingerprint("ab")
    assert fingerprint(("a",), "b") != fingerprint("a", ("b",))
    assert fingerprint("1") != fingerprint(1) != fingerprint(True)
    assert fingerprint(None) != fingerprint("None")


def test_a_fingerprint_of_a_name_that_is_no_valid_text_exists():
    assert fingerprint("data-\udcff") != fingerprint("data-\udcfe")


def test_a_relative_folder_in_a_variable_is_meant_from_where_the_command_runs(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACVIZ_TEST_DATA", "data")
    path = tmp_path / "configs" / "run.toml"
    path.write_text(
        'task = "toxicity"\n'
        '[[datasets]]\nname = "a"\npath = "${FACVIZ_TEST_DATA}/a.jsonl"\n'
        '[[datasets]]\nname = "b"\npath = "b.jsonl"\n'
        '[capture]\ndataset = "a"\n[coverage]\nanchor = "a"\nseed = "b"\n',
        encoding="utf-8",
    )
    config = load_run_config(path)
    assert [d.path for d in config.datasets] == [
        str(tmp_path / "data" / "a.jsonl"),
        str(tmp_path / "configs" / "b.jsonl"),
    ]
