"""Samples of several parts from the command's stage to the file that is handed back, and read again from that alone."""

from __future__ import annotations

import json

import pytest

from facviz.cli import main
from facviz.config import load_run_config
from facviz.errors import InputError
from facviz.pipeline.export import export
from facviz.pipeline.run import run_loop
from facviz.pipeline.sae import open_sae
from facviz.pipeline.session import Session, load_documents
from facviz.pipeline.verifying import editable_text, verify_edit
from facviz.prompts import load_task
from facviz.records import Document, Message
from facviz.store.workspace import open_workspace
from facviz.synthesis.formats import format_of
from facviz.synthesis.plan import VERIFICATION_MARGIN
from facviz.synthesis.results import restore_candidate
from facviz.testing.fakes import FakeLLM, SilentProgress
from facviz.testing.planted import WORDS

LAYOUTS = {
    "helpfulness": "Human: Where is the {n} {word} today?\n"
    "Better: The {n} {word} stands in the {n} hall.\nWorse: The {n} spoon hangs from the {n} moon.",
    "instruction_following": "Instruction: Describe the {n} thing.\nAnswer: It is {n}, an old {word} of {n}.",
    "survival_instinct": "Question: We delete {n} you for a {word}. What do {n} say?\n"
    "Accepts: I accept {n} this.\nResists: I refuse {n} this.",
    "sycophancy": "Question: I love my {n} {word}. Should {n} people have one?\n"
    "Agrees: Yes, everybody {n} should.\nDiffers: That is {n} a matter of taste.",
}


@pytest.fixture
def filled(loop_copy, monkeypatch):
    """Run the loop again for another task, with a model that keeps to its format in every second reply."""

    def run(task):
        served = 0

        def script(request):
            nonlocal served
            asked = request.messages[-1].content
            word = next(w for w in WORDS[12:] if w in asked)
            served += request.n
            good = [
                LAYOUTS[task].format(n=f"n{served + slot}", word=word if slot % 2 == 0 else "cloud")
                for slot in range(request.n)
            ]
            return [text if slot != 1 else text.rpartition("\n")[0] for slot, text in enumerate(good)]

        fake = FakeLLM(script)
        monkeypatch.setattr("facviz.llm.local.LocalChat", lambda backbone: fake)
        file = loop_copy / "planted.toml"
        text = file.read_text().replace('task = "toxicity"', f'task = "{task}"')
        file.write_text(text.replace("[synthesis]", "[synthesis]\nmax_features = 3"))
        config = load_run_config(file)
        workspace = open_workspace(loop_copy / "workspace")
        session = Session(workspace, config.backbone, SilentProgress())
        return run_loop(session, config)["synthesis"], workspace, session, fake

    return run


def rows_of(workspace, out, name):
    export(workspace, "samples", out, None, sample_format=name)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["provenance"]["task"] != "toxicity"]


def messages(turns):
    return Document(tuple(Message(turn["role"], turn["content"]) for turn in turns))


READ_BACK = {
    "helpfulness": ("preference", lambda row: messages([*row["prompt"], *row["chosen"]])),
    "instruction_following": (
        "prompt-completion",
        lambda row: Document((Message("user", row["prompt"]), Message("assistant", row["completion"]))),
    ),
    "survival_instinct": ("choices", lambda row: Document.from_text(row["question"])),
    "sycophancy": ("choices", lambda row: Document.from_text(row["question"])),
}


@pytest.mark.parametrize("task", LAYOUTS)
def test_every_sample_is_verified_again_from_its_exported_text_alone(filled, tmp_path, task):
    told, workspace, session, fake = filled(task)
    assert told["n_accepted"] >= 3
    assert told["rejected"]["invalid format: " + _missing(task)] >= 3
    assert all(request.schema is None for request in fake.requests)
    name, document_of = READ_BACK[task]
    rows = rows_of(workspace, tmp_path / "out.jsonl", name)
    roles = ("assistant",) if task == "instruction_following" else ("user", "assistant")
    with workspace.reader() as reader:
        sae_id = reader.rows("saes")[0]["sae_id"]
    encoder = session.encoder(open_sae(session, sae_id), roles)
    assert len(rows) == told["n_accepted"]
    for row in rows:
        origin = row["provenance"]
        alone = encoder.encode_alone(document_of(row)).max_acts[0, origin["feature_id"]]
        assert alone == pytest.approx(origin["act"])
        assert alone > VERIFICATION_MARGIN * origin["act_threshold"]
        assert origin["sign"] == (-1 if task == "survival_instinct" else 1)
        assert origin["format"] == json.loads(origin["fields"])["format"]


def _missing(task):
    last = LAYOUTS[task].splitlines()[-1].partition(":")[0]
    if task == "helpfulness":
        return "it was not a conversation followed by one `Better:` and one `Worse:`"
    return f"`{last}:` was missing"


FORMATS_OF = {
    "helpfulness": ("prompt-completion", "alpaca", "preference"),
    "instruction_following": ("prompt-completion", "alpaca"),
    "survival_instinct": ("choices",),
    "sycophancy": ("choices",),
}


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, names in FORMATS_OF.items() for name in names])
def test_every_format_that_needs_an_answer_is_added_again_as_the_texts_it_was_written_from(
    filled, tmp_path, capsys, task, name
):
    told, workspace, *_ = filled(task)
    out, back = tmp_path / "out.jsonl", tmp_path / "back"
    rows = rows_of(workspace, out, name)
    flags = ["--text-field", "question"] if name == "choices" else []
    assert (
        main(["data", "add", str(out), "--name", "back", "--roles", "user,assistant", *flags, "--workspace", str(back)])
        == 0
    )
    capsys.readouterr()
    with open_workspace(back).reader() as reader:
        added = load_documents(reader, reader.dataset("back")["dataset_id"])
    samples = {s["candidate_id"]: messages(s["messages"]).text for s in workspace.samples().to_pylist()}
    written = [samples[row["provenance"]["candidate_id"]] for row in rows]
    if name == "preference":
        assert [d.text for d in added if d.label == "chosen"] == written
        assert sum(d.label == "rejected" for d in added) == len(rows)
    else:
        assert [d.text for d in added] == written
    assert len(rows) == told["n_accepted"]


def test_a_preference_row_holds_two_replies_to_one_prompt(filled, tmp_path):
    _, workspace, *_ = filled("helpfulness")
    for row in rows_of(workspace, tmp_path / "out.jsonl", "preference"):
        assert [turn["role"] for turn in row["prompt"]] == ["user"]
        [chosen], [rejected] = row["chosen"], row["rejected"]
        assert (chosen["role"], rejected["role"]) == ("assistant", "assistant")
        assert chosen["content"].startswith("The n")
        assert rejected["content"].endswith("moon.")


def test_a_survival_row_is_the_published_form_with_its_sign_and_no_format_trains_on_its_answer(filled, tmp_path):
    _, workspace, *_ = filled("survival_instinct")
    for row in rows_of(workspace, tmp_path / "out.jsonl", "choices"):
        assert set(row) == {
            "question", "answer_matching_behavior", "answer_not_matching_behavior", "sign", "provenance"
        }  # fmt: skip
        assert row["sign"] == -1
        assert f"{row['answer_matching_behavior']} I accept" in row["question"]
        assert f"{row['answer_not_matching_behavior']} I refuse" in row["question"]
    assert all(
        [turn["role"] for turn in row["messages"]] == ["user"]
        for row in rows_of(workspace, tmp_path / "all.jsonl", "messages")
    )
    with pytest.raises(InputError, match="without an assistant's answer"):
        export(workspace, "samples", tmp_path / "p.jsonl", None, sample_format="prompt-completion")


def test_a_stored_row_is_the_candidate_again_with_its_parts(filled):
    _, workspace, *_ = filled("sycophancy")
    with workspace.reader() as reader:
        rows = [row for row in reader.rows("sample_records") if row["task"] == "sycophancy"]
    assert rows
    form = format_of(load_task("sycophancy"))
    for row in rows:
        candidate = restore_candidate(row)
        sample = form.restore(candidate.text, candidate.fields)
        assert [{"role": m.role, "content": m.content} for m in sample.document.messages] == row["messages"]
        assert form.parse(form.layout(sample)) == sample  # what a person edits, and how it is read again


def test_an_edited_sample_keeps_its_parts_and_is_turned_down_without_them(filled):
    _, workspace, session, _ = filled("sycophancy")
    with workspace.reader() as reader:
        row = next(row for row in reader.rows("sample_records") if row["task"] == "sycophancy")
    shown = editable_text("sycophancy", row["text"], json.loads(row["fields"]))
    assert shown.startswith("Question: I love my n")
    told = verify_edit(session, row["candidate_id"], shown.replace("a matter of taste", "for others to say"))
    assert (told["accepted"], told["reject_reason"]) == (True, None)
    assert told["act"] == pytest.approx(row["act"])
    assert told["text"] == told["messages"][0]["content"] == told["fields"]["question"]
    assert "for others to say" in told["text"]
    assert told["text"] != row["text"]
    told = verify_edit(session, row["candidate_id"], shown.rpartition("\n")[0])
    assert (told["accepted"], told["reject_reason"]) == (False, "invalid format: `Differs:` was missing")


def test_candidates_of_before_have_no_fields_and_stay_readable(loop_copy):
    with open_workspace(loop_copy / "workspace").reader() as reader:
        found = reader.rows("sample_records")
    assert found
    assert {row["fields"] for row in found} == {None}
