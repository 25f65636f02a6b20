"""The data page: reading what is there, and the whole way from an upload or a path to a started import."""

from __future__ import annotations

import json

import pytest
from job_folders import make_job
from page_checks import complaints

from facviz.cli.parser import build_parser
from facviz.errors import InputError
from facviz.jobs import JobState, list_jobs
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.store.workspace import Workspace, open_workspace
from facviz.ui.components.data_import import import_arguments

XSS = "<img src=x onerror=alert(1)>"
ROWS = [{"text": f"roses and {XSS}", "label": "garden"}, {"text": "apple bread cloud", "label": "travel"}]
CORPUS = "".join(json.dumps(row) + "\n" for row in ROWS).encode() + b"broken\n"


@pytest.fixture
def started(monkeypatch):
    """Jobs that the page asked for instead of starting them."""
    asked = []
    monkeypatch.setattr("facviz.ui.components.jobs.start_job", lambda root, **job: asked.append(job))
    return asked


@pytest.fixture
def uploaded(open_app, planted_root):
    """The page with a corpus just uploaded under a hostile name."""
    app = open_app(planted_root, "data")
    app.file_uploader(key="fv_data_upload_0").upload("../" + XSS + ".jsonl", CORPUS, "application/json")
    return app.run()


def html_of(app) -> str:
    return "\n".join(h.value for h in app.html)


def parse(job):
    return build_parser().parse_args([*job["arguments"], "--workspace", "w", "--json", "--wait"])


def named(app, label):
    """The widget of this label, of whatever kind."""
    [found] = [w for kind in ("text_input", "selectbox", "multiselect") for w in app.get(kind) if w.label == label]
    return found


def test_the_page_counts_and_lists_the_data_sets(open_app, planted_root):
    app = open_app(planted_root, "data")
    assert complaints(app) == []
    assert {m.label: m.value for m in app.metric} == {
        "Data sets": "2",
        "Documents": "136",
        "Content tokens": "1,088",
        "Rows left out": "0",
    }
    table = app.dataframe[0].value
    assert table["Data set"].tolist() == ["anchor", "seed"]
    assert table["Documents"].tolist() == [96, 40]
    assert len(app.get("plotly_chart")) == 2


def test_the_address_opens_a_data_set_with_a_search_and_a_label(open_app, planted_root):
    app = open_app(planted_root, "data")
    app.query_params.update({"dataset": "anchor", "search": "apple", "label": "=1"})
    app.run()
    assert complaints(app) == []
    assert [s.value for s in app.subheader] == ["anchor"]
    assert any(c.value == "36 of 96 documents match" for c in app.caption)


def test_a_search_goes_into_the_address_and_shows_what_matches(open_app, planted_root):
    app = open_app(planted_root, "data")
    app.text_input(key="fv_data_search").set_value("tiger").run()
    assert app.query_params["search"] == "tiger"
    shown = html_of(app)
    assert shown.count("tiger") == 6
    app.text_input(key="fv_data_search").set_value("no such word").run()
    assert any(c.value == "0 of 96 documents match" for c in app.caption)


def test_texts_are_blurred_for_a_reader_who_asked_for_it(open_app, planted_root):
    app = open_app(planted_root, "data")
    assert '"fv-spans fv-warn"' not in html_of(app)
    app.session_state["fv_blur"] = True
    app.run()
    assert '"fv-spans fv-warn"' in html_of(app)


def test_left_out_rows_are_shown_with_their_reasons(open_app, planted_root):
    workspace = open_workspace(planted_root)
    with workspace.reader() as reader:
        [row] = [r for r in reader.rows("datasets") if r["name"] == "seed"]
    scope = Scope("data", "seed", "f" * 16)
    lost = row | {"n_dropped": 2, "n_duplicates": 1}
    workspace.manifest.write_shard(scope, "dataset", "0", rows_to_arrow("dataset", [lost]))
    workspace.manifest.mark_done(scope, {"dropped_by_reason": {"empty": 2}})
    (planted_root / "datasets").mkdir()
    entries = [{"row": i, "reason": "empty", "excerpt": XSS, "file": ""} for i in (3, 9)]
    (planted_root / "datasets" / "seed-dropped.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
    app = open_app(planted_root, "data", dataset="seed")
    assert complaints(app) == []
    assert "1 duplicates · 2 empty" in [t.value for t in app.text]
    assert app.dataframe[1].value["Row"].tolist() == [3, 9]
    assert len(app.get("download_button")) == 1


def test_an_empty_workspace_opens_with_the_import(open_app, tmp_path):
    app = open_app(Workspace.create(tmp_path / "empty").root, "data")
    assert complaints(app) == []
    assert any("No data set yet" in m.value for m in app.subheader)
    assert len(app.file_uploader) == 1


def test_an_upload_is_kept_inside_the_workspace_and_previewed_as_text(uploaded, planted_root):
    assert complaints(uploaded) == []
    [kept] = (planted_root / "uploads").iterdir()
    assert kept.read_bytes() == CORPUS
    assert kept.name.endswith("-img_src_x_onerror_alert_1_.jsonl")
    assert "shape text: text from `text`, label from `label`" in uploaded.text[0].value
    assert "2 documents · left out: invalid JSON (1)" in uploaded.text[0].value
    assert XSS not in html_of(uploaded)
    assert "&lt;img src=x onerror=alert(1)&gt;" in html_of(uploaded)


def test_an_upload_is_written_once_however_often_the_page_is_drawn(uploaded, planted_root):
    [kept] = (planted_root / "uploads").iterdir()
    written = kept.stat().st_mtime_ns
    uploaded.run().run()
    assert [p.stat().st_mtime_ns for p in (planted_root / "uploads").iterdir()] == [written]


def test_adding_starts_the_job_with_what_was_typed(uploaded, planted_root, started):
    named(uploaded, "Name").set_value("roses").run()
    named(uploaded, "Role").set_value("seed").run()
    named(uploaded, "Licence").set_value("-- CC0").run()
    named(uploaded, "Label field").set_value("text").run()
    uploaded.button(key="fv_data_add").click().run()
    [job] = started
    parsed = parse(job)
    assert (parsed.command, parsed.action, parsed.name, parsed.role) == ("data", "add", "roses", "seed")
    assert (parsed.licence, parsed.label_field, parsed.layer) == ("-- CC0", "text", 1)
    assert parsed.path == str(next((planted_root / "uploads").iterdir()))
    assert job["page"] == "data"
    assert not [b for b in uploaded.button if b.label == "Add data set"]  # the form is ready for the next one


@pytest.mark.parametrize(
    ("name", "sentence"), [("anchor", "already; choose another name"), ("a b", "must be 1-64 letters"), ("", "1-64")]
)
def test_a_name_that_is_taken_or_none_is_refused_before_anything_starts(uploaded, started, name, sentence):
    named(uploaded, "Name").set_value(name).run()
    assert any(sentence in e.value for e in uploaded.error)
    assert not [b for b in uploaded.button if b.label == "Add data set"]
    assert started == []


def test_a_wrong_guess_can_be_corrected_and_a_wrong_correction_taken_back(uploaded):
    shape = named(uploaded, "Shape")
    shape.set_value("prompt_completion").run()
    assert any("has no field for" in e.value for e in uploaded.error)
    named(uploaded, "Shape").set_value("auto").run()
    assert complaints(uploaded) == []
    named(uploaded, "Text field").set_value("label").run()
    assert "text from `label`" in uploaded.text[0].value


def test_a_path_is_taken_only_from_allowed_folders(open_app, planted_root, tmp_path, monkeypatch):
    folder = tmp_path / "corpora"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(CORPUS)
    app = open_app(planted_root, "data")
    app.text_input(key="fv_data_path_0").set_value(str(folder / "a.jsonl")).run()
    assert any("lies outside" in e.value and "FACVIZ_IMPORT_ROOTS" in e.value for e in app.error)
    monkeypatch.setenv("FACVIZ_IMPORT_ROOTS", str(tmp_path / "corpora"))
    app.run()
    assert complaints(app) == []
    assert named(app, "Name").value == "a"


def test_a_file_of_unknown_kind_is_one_sentence(open_app, planted_root):
    (planted_root / "notes.pdf").write_bytes(b"%PDF")
    app = open_app(planted_root, "data")
    app.text_input(key="fv_data_path_0").set_value(str(planted_root / "notes.pdf")).run()
    assert any("unknown ending" in e.value for e in app.error)


def test_the_upload_says_its_limit(open_app, planted_root):
    [upload] = open_app(planted_root, "data").file_uploader
    assert upload.label == "Upload a file, at most 100 MB"


def test_nothing_is_added_while_an_import_runs(open_app, planted_root, started):
    make_job(planted_root, "running", ("data", "add", "/x"), page="data", stage="count x", done=5, total=10)
    app = open_app(planted_root, "data")
    app.text_input(key="fv_data_path_0").set_value(str(planted_root.parent / "anchor.jsonl")).run()
    app.file_uploader(key="fv_data_upload_0").upload("a.jsonl", CORPUS, "application/json")
    app.run()
    assert app.button(key="fv_data_add").disabled


def test_a_job_that_cannot_start_is_said_and_the_form_stays(uploaded, monkeypatch):
    def refuse(root, **job):
        raise InputError("The disk is full.")

    monkeypatch.setattr("facviz.ui.components.jobs.start_job", refuse)
    uploaded.button(key="fv_data_add").click().run()
    assert complaints(uploaded) == ["The disk is full."]
    assert named(uploaded, "Name").value.startswith("img_src")


def test_every_setting_of_the_form_reaches_the_command_line(tmp_path):
    settings = {
        "name": "x",
        "role": "anchor",
        "shape": "text",
        "text_field": "-t",
        "label_field": "l",
        "role_field": "r",
        "text_role": "assistant",
        "source": "-s",
        "licence": "CC0",
        "roles": ["user", "text"],
    }
    parsed = parse({"arguments": import_arguments(tmp_path / "a.csv", settings, ("--layer=1",))})
    assert {name: getattr(parsed, name) for name in settings} == settings
    assert parsed.layer == 1


def test_an_imported_file_appears_on_the_page_when_its_job_is_done(uploaded, planted_root, wait_until):
    named(uploaded, "Name").set_value("roses").run()
    uploaded.button(key="fv_data_add").click().run()
    [job] = wait_until(lambda: [j for j in list_jobs(planted_root) if not j.is_active])
    assert (job.state, job.error) == (JobState.DONE, "")
    uploaded.run()
    assert complaints(uploaded) == []
    assert uploaded.dataframe[0].value["Data set"].tolist() == ["anchor", "seed", "roses"]
    assert [m.value for m in uploaded.metric][-1] == "1"
