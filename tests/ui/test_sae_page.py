"""The SAE page: the chosen one in numbers, curves while one trains, and the jobs that get, measure and use one."""

from __future__ import annotations

import json
import time

import pytest
from job_folders import make_job
from page_checks import complaints

from facviz.cli.parser import build_parser
from facviz.errors import InputError
from facviz.jobs import list_jobs
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.store.training import SERIES, TrainingCurve
from facviz.store.workspace import Workspace, open_workspace
from facviz.ui.components.sae_forms import train_arguments, trained_before


@pytest.fixture
def started(monkeypatch):
    """Jobs that the page asked for instead of starting them."""
    asked = []
    monkeypatch.setattr("facviz.ui.components.jobs.start_job", lambda root, **job: asked.append(job))
    return asked


@pytest.fixture
def second_root(planted_root):
    """The planted loop with a second, newer SAE that has read nothing yet."""
    workspace = open_workspace(planted_root)
    metrics = {"fvu": 0.25, "l0": 4.0, "dead": 3, "n_always_on": 1}
    provenance = {"backbone": {"name": "default", "layer": 15}, "weights": {"trainer": "facviz"}}
    row = {
        "sae_id": "second",
        "backbone": "default",
        "layer": 15,
        "architecture": "topk",
        "d_in": 8,
        "d_sae": 64,
        "k": 4,
    }
    row |= {"metrics": json.dumps(metrics), "provenance": json.dumps(provenance)}
    workspace.manifest.write_shard(Scope("sae", "second", "f" * 16), "sae", "0", rows_to_arrow("sae", [row]))
    return planted_root


def metrics_of(app) -> dict[str, str]:
    return {m.label: m.value for m in app.metric}


def parse(job):
    return build_parser().parse_args([*job["arguments"], "--workspace", "w", "--json", "--wait"])


def sae_id_of(root) -> str:
    with open_workspace(root).reader() as reader:
        return reader.rows("saes")[0]["sae_id"]


def record_course(root, sae_id, n_steps=40):
    folder = root / "sae" / sae_id
    folder.mkdir(parents=True, exist_ok=True)
    curve = TrainingCurve(folder, n_steps)
    for step in range(1, n_steps + 1):
        curve.add(step, **dict.fromkeys(SERIES, 1 / step))


def test_a_loaded_sae_shows_what_is_known_of_it(open_app, planted_root):
    app = open_app(planted_root, "sae")
    assert complaints(app) == []
    assert metrics_of(app) == {"FVU": "–", "L0": "–", "Dead features": "1 of 26", "Always-on features": "0"}
    assert app.dataframe[0].value["Architecture"].tolist() == ["jumprelu"]
    assert len(app.get("plotly_chart")) == 1
    assert any("not known of a loaded SAE" in h.value for h in app.html)


def test_the_newest_sae_is_shown_unless_the_address_names_another(open_app, second_root):
    newest = open_app(second_root, "sae")
    assert metrics_of(newest)["FVU"] == "0.250"
    assert metrics_of(newest)["Dead features"] == "3 of 64"
    assert newest.dataframe[0].value["SAE"].tolist()[0] == "second"
    assert metrics_of(open_app(second_root, "sae", sae=sae_id_of(second_root)))["Dead features"] == "1 of 26"
    assert metrics_of(open_app(second_root, "sae", sae="unknown"))["FVU"] == "0.250"


def test_a_recorded_course_is_drawn_as_curves(open_app, second_root):
    record_course(second_root, "second")
    app = open_app(second_root, "sae")
    assert complaints(app) == []
    [curves] = app.get("plotly_chart")
    assert curves.proto.alt.startswith("Training curves, step 40 of 40: loss 0.0250")


def test_a_running_training_shows_its_curves_and_its_pace(open_app, planted_root):
    make_job(planted_root, "running", ("sae", "train", "--dataset=anchor"), stage="sae", done=12, total=40)
    app = open_app(planted_root, "sae")
    assert complaints(app) == []
    before = len(app.get("plotly_chart"))
    record_course(planted_root, "fresh", n_steps=12)
    app.run()
    assert len(app.get("plotly_chart")) == before + 1
    assert any("12 of 40" in c.value for c in app.caption)
    assert app.button(key="fv_sae_train_start").disabled


def test_what_was_recorded_before_a_training_began_is_not_its_course(open_app, planted_root):
    import os

    record_course(planted_root, "earlier")
    past = time.time() - 10_000
    os.utime(planted_root / "sae" / "earlier" / "training.jsonl", (past, past))
    make_job(planted_root, "running", ("sae", "train"), stage="capture")
    app = open_app(planted_root, "sae")
    assert len(app.get("plotly_chart")) == 1  # the densities of the planted SAE


def test_an_empty_workspace_asks_for_data_first(open_app, tmp_path):
    app = open_app(Workspace.create(tmp_path / "empty").root, "sae")
    assert complaints(app) == []
    assert any("No SAE yet" in m.value for m in app.subheader)
    assert any("Training needs a data set" in c.value for c in app.caption)


def test_training_starts_with_the_settings_of_the_form(open_app, planted_root, started):
    app = open_app(planted_root, "sae")
    app.number_input(key="fv_sae_tokens").set_value(5000)
    app.number_input(key="fv_sae_d_sae").set_value(64)
    app.number_input(key="fv_sae_k").set_value(4)
    app.number_input(key="fv_sae_layer").set_value(2)
    app.selectbox(key="fv_sae_architecture").set_value("topk")
    app.button(key="fv_sae_train_start").click().run()
    parsed = parse(started[0])
    assert (parsed.command, parsed.action, parsed.dataset, parsed.tokens) == ("sae", "train", "anchor", 5000)
    assert (parsed.d_sae, parsed.k, parsed.epochs, parsed.architecture, parsed.layer) == (64, 4, 3, "topk", 2)


def test_settings_that_contradict_each_other_are_one_sentence(open_app, planted_root, started):
    app = open_app(planted_root, "sae")
    app.number_input(key="fv_sae_d_sae").set_value(16)
    app.number_input(key="fv_sae_k").set_value(16)
    app.button(key="fv_sae_train_start").click().run()
    assert any("k (16) must be smaller than d_sae (16)" in e.value for e in app.error)
    assert started == []
    with pytest.raises(InputError, match="must be above 0"):
        train_arguments("anchor", 0, {}, None, ())


def test_the_estimate_follows_the_last_training_here(open_app, planted_root):
    assert any("not known before" in c.value for c in open_app(planted_root, "sae").caption)
    result = {"n_train_tokens": 300_000, "d_sae": 2048, "n_steps": 3}
    make_job(planted_root, "done", ("sae", "train", "--epochs=6"), result=result)
    [before] = [trained_before(list_jobs(planted_root))]
    assert (before.tokens, before.epochs, before.d_sae, round(before.seconds)) == (300_000, 6, 2048, 60)
    app = open_app(planted_root, "sae")
    assert any(c.value.startswith("About 1 min 00 s, judging") for c in app.caption)


def test_loading_takes_a_folder_only_from_allowed_places(open_app, planted_root, started, tmp_path):
    app = open_app(planted_root, "sae")
    app.text_input(key="fv_sae_path").set_value("/etc").run()
    app.button(key="fv_sae_load_start").click().run()
    assert any("lies outside" in e.value for e in app.error)
    folder = planted_root / "sae" / sae_id_of(planted_root) / "weights"
    app.text_input(key="fv_sae_path").set_value(str(folder)).run()
    app.button(key="fv_sae_load_start").click().run()
    parsed = parse(started[0])
    assert (parsed.action, parsed.path, parsed.layer) == ("load", str(folder), 1)


def test_an_sae_that_read_nothing_offers_to_read_then_to_explain(open_app, second_root, started):
    app = open_app(second_root, "sae")
    assert [b.label for b in app.button if b.proto.type == "primary"] == ["Read features"]
    app.button(key="fv_sae_read").click().run()
    parsed = parse(started[0])
    assert (parsed.command, parsed.sae, parsed.datasets) == ("spans", "second", ["anchor", "seed"])


def test_an_sae_without_explanations_offers_to_write_them(open_app, planted_root, started):
    path = planted_root / "tables" / "manifest.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{x}\n" for x in lines if x and not json.loads(x)["scope"].startswith("explain/")))
    app = open_app(planted_root, "sae")
    assert [b.label for b in app.button if b.proto.type == "primary"] == ["Explain features"]
    app.button(key="fv_sae_explain").click().run()
    assert parse(started[0]).dataset == "anchor"


def test_an_unmeasured_sae_can_be_measured_and_the_result_shows(open_app, planted_root, started):
    app = open_app(planted_root, "sae")
    app.button(key="fv_sae_measure_start").click().run()
    parsed = parse(started[0])
    assert (parsed.action, parsed.sae, parsed.dataset) == ("eval", sae_id_of(planted_root), "anchor")
    result = {"sae_id": parsed.sae, "dataset": "anchor", "fvu": 0.125, "l0": 7.0, "dead": 2, "n_always_on": 0}
    make_job(planted_root, "done", ("sae", "eval", parsed.sae), result=result)
    measured = open_app(planted_root, "sae")
    assert metrics_of(measured)["FVU"] == "0.125"
    assert not [b for b in measured.button if b.label == "Measure"]


def test_names_in_the_provenance_are_text(open_app, planted_root):
    workspace = open_workspace(planted_root)
    xss = "<img src=x onerror=alert(1)>"
    row = {"sae_id": "x", "backbone": xss, "layer": 1, "architecture": xss, "d_in": 8, "d_sae": 8, "k": 1}
    row |= {"metrics": "{}", "provenance": json.dumps({"hook_name": xss, "weights": {"format": xss}})}
    workspace.manifest.write_shard(Scope("sae", "x", "f" * 16), "sae", "0", rows_to_arrow("sae", [row]))
    app = open_app(planted_root, "sae")
    assert complaints(app) == []
    shown = "\n".join(h.value for h in app.html)
    assert "<img" not in shown
    assert shown.count("&lt;img src=x onerror=alert(1)&gt;") == 3
