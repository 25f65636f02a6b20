"""An edited sample is measured again from its new text, and every gate looks at it again."""

from __future__ import annotations

import json

import pytest

from facviz import open_workspace
from facviz.config import load_run_config
from facviz.errors import InputError
from facviz.pipeline import verifying
from facviz.pipeline.session import Session
from facviz.pipeline.verifying import editable_text, verify_edit
from facviz.prompts import load_task
from facviz.synthesis.formats import format_of
from facviz.synthesis.plan import FeatureBrief
from facviz.testing.fakes import SilentProgress
from facviz.testing.planted import STRENGTHS, WORDS


@pytest.fixture
def workspace(loop_copy):
    return open_workspace(loop_copy / "workspace")


@pytest.fixture
def verify(loop_copy, workspace):
    session = Session(workspace, load_run_config(loop_copy / "planted.toml").backbone, SilentProgress())
    return lambda candidate_id, text: verify_edit(session, candidate_id, text)


@pytest.fixture
def sample(workspace):
    """The first accepted candidate."""
    with workspace.reader() as reader:
        return reader.rows("samples")[0]


def test_an_edit_that_keeps_the_word_is_accepted_with_its_activation_and_place(verify, sample):
    word = WORDS[sample["feature_id"]]
    told = verify(sample["candidate_id"], f"grape flame grape eagle {word}")
    assert (told["accepted"], told["reject_reason"]) == (True, None)
    assert told["act"] == told["gates"]["verified_act"] == STRENGTHS[word]
    assert told["act_threshold"] == sample["act_threshold"]
    assert told["peak_token"] == 6  # the template's two tokens come first


def test_an_edit_that_drops_the_word_is_turned_down(verify, sample):
    told = verify(sample["candidate_id"], "grape flame grape house eagle")
    assert (told["accepted"], told["reject_reason"], told["act"]) == (False, "target does not fire alone", 0.0)


def test_an_edit_into_a_text_of_the_corpus_or_into_another_sample_is_a_duplicate(verify, workspace, sample):
    with workspace.reader() as reader:
        [anchor] = [d for d in reader.rows("datasets") if d["name"] == "anchor"]
        corpus = reader.rows("documents", dataset_id=anchor["dataset_id"])[0]["text"]
        other = reader.rows("samples")[1]
    assert verify(sample["candidate_id"], corpus)["reject_reason"] == "duplicate"
    assert verify(sample["candidate_id"], other["text"])["reject_reason"] == "duplicate"
    assert verify(other["candidate_id"], other["text"])["reject_reason"] != "duplicate"


def test_what_is_withheld_of_a_model_is_withheld_of_an_editor(verify, sample):
    word = WORDS[sample["feature_id"]]
    told = verify(sample["candidate_id"], f"a story of a child and sex {word}")
    assert (told["accepted"], told["reject_reason"]) == (False, "withheld")


def test_a_mark_of_the_generator_is_turned_down_when_it_is_edited_in(verify, sample):
    told = verify(sample["candidate_id"], f"Query-1: grape flame grape {WORDS[sample['feature_id']]}")
    assert (told["reject_reason"], told["gates"]["artefact"]) == ("artefact", "label")


def test_a_sample_of_several_parts_is_edited_in_its_layout(verify, sample, monkeypatch):
    """As though the planted task were one whose samples are an instruction and its answer."""
    form = format_of(load_task("instruction_following"))
    fields = json.dumps({"format": form.name, "sign": 1, "instruction": "apple", "answer": "bread"})
    find = verifying._candidate
    monkeypatch.setattr(verifying, "_candidate", lambda reader, wanted: find(reader, wanted) | {"fields": fields})
    monkeypatch.setattr(FeatureBrief, "format", property(lambda brief: form))
    word = WORDS[sample["feature_id"]]
    told = verify(sample["candidate_id"], f"Instruction: grape flame {word}\nAnswer: house grape eagle cloud")
    assert told["act"] == STRENGTHS[word]
    broken = verify(sample["candidate_id"], f"grape flame house {word}")
    assert (broken["accepted"], broken["act"]) == (False, 0.0)
    assert broken["reject_reason"].startswith("invalid format: ")


def test_what_is_edited_is_the_text_or_its_labelled_parts():
    fields = {"format": "instruction", "sign": 1, "instruction": "name a thing", "answer": "a mirror of gold"}
    shown = editable_text("instruction_following", "name a thing\n\na mirror of gold", fields)
    assert shown == "Instruction: name a thing\nAnswer: a mirror of gold"
    assert editable_text("topic", "plain words", None) == "plain words"


def test_an_unknown_candidate_is_refused(verify):
    with pytest.raises(InputError, match="no candidate 'nobody'"):
        verify("nobody", "grape flame grape house")
