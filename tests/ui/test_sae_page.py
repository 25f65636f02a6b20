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
from facviz.views.format import size
from facviz.views.sae_training import TrainingPlan


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
        "d_in": list_saes_of(planted_root)[0]["d_in"],
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
    return list_saes_of(root)[0]["sae_id"]


def list_saes_of(root):
    with open_workspace(root).reader() as reader:
        return reader.rows("saes")


def add_evaluation(root, sae_id, kind, measures, dataset="anchor", at="2026-11-22T12:00:00Z"):
    """An evaluation as `facviz sae eval` leaves it."""
    row = {"sae_id": sae_id, "dataset": dataset, "kind": kind, "measures": json.dumps(measures), "at": at}
    scope = Scope("sae_evaluation", f"{sae_id}/{kind}/{dataset}", "e" * 16)
    manifest = open_workspace(root).manifest
    manifest.write_shard(scope, "sae_evaluation", "0", rows_to_arrow("sae_evaluation", [row]))


def charts(app) -> list[str]:
    """The words that stand for each chart."""
    return [chart.proto.alt for chart in app.get("plotly_chart")]


HEALTH = {
    "verdict": "does not fit",
    "sentence": "The SAE does not fit layer 1: <b>it fits better</b> at layer 2 (FVU 0.250).",
    "given": {"layer": 1, "template": True, "fvu": 0.5},
    "best": {"layer": 2, "template": True, "fvu": 0.25},
    "table": [
        {"layer": 2, "template": True, "fvu": 0.25, "low": 0.2, "high": 0.3},
        {"layer": 1, "template": True, "fvu": 0.5, "low": 0.4, "high": 0.6},
    ],
    "recorded_fvu": None,
    "n_tokens": 768,
}
MEASURED = {
    "fvu": 0.125, "normalised_mse": 0.1, "explained_variance": 0.875, "l0": 7.0, "dead": 2, "dead_share": 0.1,
    "n_always_on": 0, "n_eval_tokens": 768, "l2_ratio": 0.97, "reconstruction_bias": 1.0, "duplicates": 1,
    "density_counts": {"edges": [-2.0, -1.0, 0.0], "counts": [20, 4], "n_dead": 2},
}  # fmt: skip


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
    assert [alt[:50] for alt in charts(app)].count("Training curves, step 40 of 40: loss 0.0250, FVU 0.0250"[:50]) == 1


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


def fill(app, **values):
    """Type into the training form, whichever kind of field it is."""
    for name, value in values.items():
        for kind in ("text_input", "number_input", "selectbox", "checkbox"):
            for field in app.get(kind):
                if field.key == f"fv_sae_{name}":
                    field.set_value(value)
    return app


def test_training_starts_with_the_settings_of_the_form(open_app, planted_root, started):
    app = open_app(planted_root, "sae")
    fill(app, tokens=5000, d_sae="64", k="4", layer="2", architecture="topk")
    app.button(key="fv_sae_train_start").click().run()
    parsed = parse(started[0])
    assert (parsed.command, parsed.action, parsed.dataset, parsed.tokens) == ("sae", "train", "anchor", 5000)
    assert (parsed.d_sae, parsed.k, parsed.epochs, parsed.architecture, parsed.layer) == ([64], [4], 3, "topk", [2])
    assert started[0]["title"] == "Train an SAE of 64 features on anchor"


def test_lists_train_every_combination_on_one_pass(open_app, planted_root, started):
    app = fill(open_app(planted_root, "sae"), d_sae="64, 128", k="4;8", layer="1,2", keep=False).run()
    assert any("Makes 8 SAEs on one pass" in c.value for c in app.caption)
    app.button(key="fv_sae_train_start").click().run()
    parsed = parse(started[0])
    assert (parsed.d_sae, parsed.k, parsed.layer, parsed.no_keep) == ([64, 128], [4, 8], [1, 2], True)
    assert started[0]["title"] == "Train 8 SAEs on anchor"


def test_the_empty_layer_says_which_one_it_takes(open_app, planted_root):
    app = open_app(planted_root, "sae")
    assert app.text_input(key="fv_sae_layer").placeholder == "1, as before"
    fill(app, backbone="owner/model").run()
    assert app.text_input(key="fv_sae_layer").placeholder == "half depth"


def test_another_model_takes_nothing_of_the_old_ones_place(open_app, planted_root, started):
    app = fill(open_app(planted_root, "sae"), backbone="owner/model", site="mlp", rate=0.001).run()
    app.button(key="fv_sae_train_start").click().run()
    parsed = parse(started[0])
    assert (parsed.backbone, parsed.site, parsed.layer, parsed.learning_rate) == ("owner/model", "mlp", None, 0.001)
    assert any("not known before an SAE of this model" in c.value for c in app.caption)


def test_the_architecture_is_explained_in_one_sentence(open_app, planted_root):
    app = open_app(planted_root, "sae")
    assert any("The default: it rebuilds best" in c.value for c in app.caption)
    fill(app, architecture="paper").run()
    assert any("arXiv 2602.10388" in c.value for c in app.caption)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"d_sae": "16", "k": "16"}, "k (16) must be smaller than d_sae (16)"),
        ({"d_sae": "64, many"}, "Features must be a whole number or a list"),
        ({"k": "4,4"}, "k names 4 twice"),
        ({"layer": "900"}, "Layer has 900"),
        ({"d_sae": "64,65,66,67", "k": "1,2,3,4,5,6,7"}, "These lists make 28 SAEs"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence_and_no_button(open_app, planted_root, values, sentence):
    app = fill(open_app(planted_root, "sae"), **values).run()
    assert [sentence in e.value for e in app.error] == [True]
    assert "\n" not in app.error[0].value
    assert not [b for b in app.button if b.key == "fv_sae_train_start"]


def test_a_plan_without_tokens_is_refused():
    plan = TrainingPlan(tokens=0, epochs=1, d_sae=(64,), k=(4,), layers=(), d_in=None)
    with pytest.raises(InputError, match="must be above 0"):
        train_arguments("anchor", plan, {}, {}, ())


def test_training_further_starts_from_the_chosen_sae(open_app, second_root, started):
    app = open_app(second_root, "sae")
    assert not app.session_state["fv_sae_train"]
    app.button(key="fv_sae_further").click().run()
    assert complaints(app) == []
    assert app.session_state["fv_sae_train"]
    assert app.text_input(key="fv_sae_second_d_sae").value == "64"
    assert app.text_input(key="fv_sae_second_d_sae").disabled
    assert any("new SAE out of second, which stays as it is" in c.value for c in app.caption)
    app.button(key="fv_sae_train_start").click().run()
    parsed = parse(started[0])
    assert (parsed.continue_from, parsed.d_sae, parsed.k, parsed.layer) == ("second", [64], [4], [15])
    assert (parsed.architecture, parsed.backbone) == ("topk", "default")


def test_the_offset_of_the_activations_says_what_it_predicts(open_app, second_root):
    workspace = open_workspace(second_root)
    weights = {"trainer": "facviz", "offset_ratio": 3.2}
    row = {
        "sae_id": "third",
        "backbone": "default",
        "layer": 15,
        "architecture": "topk",
        "d_in": 8,
        "d_sae": 64,
        "k": 4,
    }
    row |= {"metrics": "{}", "provenance": json.dumps({"weights": weights})}
    workspace.manifest.write_shard(Scope("sae", "third", "f" * 16), "sae", "0", rows_to_arrow("sae", [row]))
    app = open_app(second_root, "sae")
    assert any("γ = 3.20** at layer 15: from about 1 on, features die unless" in c.value for c in app.caption)
    fill(app, layer="3").run()
    assert not any("γ =" in c.value for c in app.caption)


def test_the_estimate_follows_the_last_training_here(open_app, planted_root):
    assert any("not known before" in c.value for c in open_app(planted_root, "sae").caption)
    result = {"n_train_tokens": 300_000, "d_sae": 2048, "n_steps": 3}
    make_job(planted_root, "done", ("sae", "train", "--epochs=6"), result=result)
    [before] = [trained_before(list_jobs(planted_root))]
    assert (before.tokens, before.epochs, before.d_sae, round(before.seconds)) == (300_000, 6, 2048, 60)
    app = open_app(planted_root, "sae")
    assert any(
        c.value.startswith("**Time** about 1 min 00 s, judging") for c in app.caption
    )  # half the epochs, twice wide
    d_in = list_saes_of(planted_root)[0]["d_in"]
    memory = size(4 * 2 * 4096 * d_in * 4 + 64 * 2048 * d_in * 4)
    assert any(c.value == f"**Memory** about {memory}" for c in app.caption)
    several = {"saes": [result, result | {"d_sae": 1024}]}
    make_job(planted_root, "done", ("sae", "train", "--epochs=6"), result=several)
    assert trained_before(list_jobs(planted_root)).d_sae == 3072


def test_loading_takes_a_folder_only_from_allowed_places(open_app, planted_root, started):
    app = open_app(planted_root, "sae")
    app.text_input(key="fv_sae_path").set_value("/etc").run()
    app.button(key="fv_sae_load_start").click().run()
    assert any("lies outside" in e.value for e in app.error)
    folder = planted_root / "sae" / sae_id_of(planted_root) / "weights"
    app.text_input(key="fv_sae_path").set_value(str(folder)).run()
    app.selectbox(key="fv_sae_format").set_value("fac-dense")
    app.button(key="fv_sae_load_start").click().run()
    arguments = started[0]["arguments"]
    assert arguments[:5] == ("sae", "load", str(folder), "--format=fac-dense", "--check=anchor")
    parsed = parse(started[0])
    assert (parsed.path, parsed.format, parsed.check, parsed.no_check) == (str(folder), "fac-dense", "anchor", False)


def test_an_uploaded_checkpoint_is_kept_under_a_safe_form_of_its_name(open_app, planted_root, started):
    app = open_app(planted_root, "sae")
    app.segmented_control(key="fv_sae_load_from").set_value("upload").run()
    app.file_uploader(key="fv_sae_upload").upload("../../<b>topk_l16_x.pth", b"weights", "").run()
    app.selectbox(key="fv_sae_check").set_value("")
    app.button(key="fv_sae_load_start").click().run()
    [kept] = (planted_root / "uploads").rglob("*.pth")
    assert kept.read_bytes() == b"weights"
    assert kept.name == "b_topk_l16_x.pth"
    assert started[0]["arguments"][2:5] == (str(kept), "--format=auto", "--no-check")


def test_a_hub_name_is_checked_before_anything_is_asked_of_the_network(open_app, planted_root, started):
    app = open_app(planted_root, "sae")
    app.segmented_control(key="fv_sae_load_from").set_value("hub").run()
    app.text_input(key="fv_sae_hub").set_value("../../etc").run()
    app.button(key="fv_sae_load_start").click().run()
    assert any("no name on the hub" in e.value for e in app.error)
    app.text_input(key="fv_sae_hub").set_value("owner/repo/layer_3").run()
    app.button(key="fv_sae_load_start").click().run()
    assert started[0]["arguments"][2] == "owner/repo/layer_3"


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
    sae_id = sae_id_of(planted_root)
    app.checkbox(key=f"fv_sae_measure_{sae_id}_fidelity").set_value(True)
    app.button(key="fv_sae_measure_start").click().run()
    expected = ("sae", "eval", sae_id, "--dataset=anchor", "--fidelity", "--health")
    assert started[0]["arguments"] == expected
    parsed = parse(started[0])
    assert (parsed.fidelity, parsed.health, parsed.probe) == (True, True, False)
    add_evaluation(planted_root, sae_id, "eval", MEASURED)
    shown = open_app(planted_root, "sae")
    assert complaints(shown) == []
    assert metrics_of(shown)["FVU"] == "0.125"
    assert not any("brings no measurement" in h.value for h in shown.html)


def test_the_health_verdict_is_on_screen_with_its_sentence_and_its_evidence(open_app, planted_root):
    sae_id = sae_id_of(planted_root)
    add_evaluation(planted_root, sae_id, "health", HEALTH)
    app = open_app(planted_root, "sae")
    assert complaints(app) == []
    assert any(m.value == ":material/cancel: **Does not fit the model**" for m in app.markdown)
    assert any("&lt;b&gt;it fits better&lt;/b&gt; at layer 2" in h.value for h in app.html)
    assert "FVU by layer and template: lowest 0.250 at layer 2, template" in charts(app)
    assert app.dataframe[0].value["Fit"].tolist() == ["✗ does not fit"]


def test_an_sae_that_could_not_be_checked_says_why(open_app, planted_root):
    result = {
        "sae_id": sae_id_of(planted_root),
        "health": None,
        "health_note": "there is no <data> set to check it on.",
    }
    make_job(planted_root, "done", ("sae", "load", "p"), result=result)
    app = open_app(planted_root, "sae")
    assert any("Not checked whether it fits the model: there is no \\<data\\> set" in c.value for c in app.caption)
    add_evaluation(planted_root, sae_id_of(planted_root), "health", HEALTH)
    assert not any("Not checked" in c.value for c in open_app(planted_root, "sae").caption)


def test_what_the_model_loses_and_what_probes_read_stand_beside_the_provenance(open_app, planted_root):
    sae_id = sae_id_of(planted_root)
    fidelity = {"delta_ce": 0.25, "ce_score_zero": 0.97, "ce_score_mean": 0.9, "n_tokens": 768}
    probing = {
        "1": {"k": {"1": {"accuracy": 0.8}, "5": {"accuracy": 0.9}}, "majority": 0.5, "length": {"accuracy": 0.6}}
    }
    add_evaluation(planted_root, sae_id, "fidelity", fidelity)
    add_evaluation(planted_root, sae_id, "probing", {"labels": probing})
    app = open_app(planted_root, "sae")
    assert complaints(app) == []
    assert metrics_of(app)["ΔCE, nats"] == "0.250"
    assert app.dataframe[0].value[["ΔCE", "CE score"]].values.tolist() == [["0.250", "90 %"]]
    [row] = app.dataframe[1].value.to_dict("records")
    assert row == {"Label": "1", "1 feature": "80 %", "5 features": "90 %", "Larger class": "50 %", "Length": "60 %"}


def test_two_saes_stand_side_by_side_and_their_features_can_be_matched(open_app, second_root, started):
    sae_id = sae_id_of(second_root)
    add_evaluation(second_root, sae_id, "eval", MEASURED)
    app = open_app(second_root, "sae")
    assert complaints(app) == []
    table = app.dataframe[-1].value.set_index("Measure")
    assert table.loc["FVU"].tolist() == ["0.250", "0.125"]
    assert table.loc["L0"].tolist() == ["4.00", "7.00"]
    assert any(alt.startswith("FVU against L0: ") and "0.250 at 4.00" in alt for alt in charts(app))
    assert any("1 of those chosen have not read this data set" in c.value for c in app.caption)
    app.button(key="fv_sae_match_start").click().run()
    parsed = parse(started[0])
    assert (parsed.action, parsed.a, parsed.b) == ("match", "second", sae_id)
    result = {"method": "optimal assignment", "mean_max_cosine": 0.81, "share_matched": 0.64, "n": 64, "pairs": []}
    make_job(second_root, "done", ("sae", "match", "second", sae_id), result=result)
    matched = open_app(second_root, "sae")
    assert metrics_of(matched)["Mean of the highest cosines"] == "0.810"
    assert metrics_of(matched)["Features with a partner above 0.7"] == "64 %"
    assert any("64 features of second against" in c.value for c in matched.caption)


def test_saes_of_models_of_different_widths_are_not_matched(open_app, second_root):
    workspace = open_workspace(second_root)
    row = {"sae_id": "wide", "backbone": "other", "layer": 1, "architecture": "topk", "d_in": 999, "d_sae": 64, "k": 4}
    row |= {"metrics": "{}", "provenance": "{}"}
    workspace.manifest.write_shard(Scope("sae", "wide", "f" * 16), "sae", "0", rows_to_arrow("sae", [row]))
    app = open_app(second_root, "sae")
    assert app.button(key="fv_sae_match_start").disabled
    assert any("different widths (999 and" in c.value for c in app.caption)


def test_one_sae_alone_is_compared_with_nothing(open_app, planted_root):
    assert all(m.key != "fv_sae_compare" for m in open_app(planted_root, "sae").multiselect)


def test_several_saes_in_training_are_watched_one_at_a_time(open_app, planted_root):
    make_job(planted_root, "running", ("sae", "train", "--k=4,8"), stage="sae", done=12, total=40)
    for name in ("first-of-two", "second-of-two"):
        record_course(planted_root, name, n_steps=12)
    app = open_app(planted_root, "sae")
    assert complaints(app) == []
    assert app.selectbox(key="fv_sae_live").options == ["first- · FVU 0.0833", "second · FVU 0.0833"]


def test_a_training_can_be_stopped_and_resumed_on_this_page(open_app, planted_root):
    make_job(planted_root, "running", ("sae", "train"), stage="sae", done=12, total=40)
    assert any(b.label == "Stop" for b in open_app(planted_root, "sae").button)
    make_job(planted_root, "stopped", ("sae", "train"), stage="sae", done=12, total=40)
    assert any(b.label == "Resume" for b in open_app(planted_root, "sae").button)


def test_the_weights_can_be_downloaded_as_the_saelens_folder_they_are(open_app, planted_root):
    app = open_app(planted_root, "sae")
    sae_id = sae_id_of(planted_root)
    [button] = app.get("download_button")
    assert button.proto.label.startswith("Download, ")
    assert any(f"facviz export sae --sae {sae_id} --out FOLDER" in c.value for c in app.code)
    parsed = build_parser().parse_args(["export", "sae", "--sae", sae_id, "--out", "FOLDER"])
    assert parsed.what == "sae"


def test_names_in_the_provenance_are_text(open_app, planted_root):
    workspace = open_workspace(planted_root)
    xss = "<img src=x onerror=alert(1)>"
    row = {"sae_id": "x", "backbone": xss, "layer": 1, "architecture": xss, "d_in": 8, "d_sae": 8, "k": 1}
    row |= {"metrics": "{}", "provenance": json.dumps({"hook_name": xss, "weights": {"format": xss, "notes": [xss]}})}
    workspace.manifest.write_shard(Scope("sae", "x", "f" * 16), "sae", "0", rows_to_arrow("sae", [row]))
    app = open_app(planted_root, "sae")
    assert complaints(app) == []
    shown = "\n".join(h.value for h in app.html)
    assert "<img" not in shown
    assert shown.count("&lt;img src=x onerror=alert(1)&gt;") == 4
