"""The form for asking about features: nothing paid starts before its cost is shown; what starts is the command."""

from __future__ import annotations

import csv
import io
import json

import pytest
from job_folders import make_job
from page_checks import complaints, shown

from facviz.store.workspace import open_workspace
from facviz.testing.llm_server import StubServer
from facviz.ui.components.exchange_forms import FORMATS, bring_in, export_bytes

GOOD = json.dumps({"reasoning": "r", "outcome": "explained", "text": "words about fruit", "confidence": 0.9})


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY", "OPENAI_BASE_URL", "FACVIZ_PRICES"):
        monkeypatch.delenv(name, raising=False)


def labels(app):
    return [button.label for button in app.button]


def press(app, label):
    next(button for button in app.button if button.label == label).click()
    return app.run()


def form_script(root):
    """The dialog's form on a page of its own: AppTest closes dialogs at every step."""
    from pathlib import Path

    from facviz.ui import resources
    from facviz.ui.components.explain_forms import ask_form
    from facviz.ui.frame import Here
    from facviz.views.scope import look

    database = resources.open_database(Path(root))
    ask_form(Here(database, "light", "ann", False), look(database, database.workspace.manifest), "features")


@pytest.fixture
def form(planted_root, open_app):
    """The form as it opens; `open_app` frees its database afterwards."""
    from streamlit.testing.v1 import AppTest

    return lambda: AppTest.from_function(form_script, default_timeout=60, args=(str(planted_root),)).run()


def test_without_a_key_the_form_offers_what_costs_nothing_and_starts_it(form, monkeypatch):
    started = []
    monkeypatch.setattr("facviz.ui.components.explain_forms.start", lambda root, **asked: started.append(asked))
    app = form()
    assert not complaints(app)
    assert app.selectbox(key="fv_ask_provider_explain").options == ["by counting words", "the local model"]
    press(app, "Start")
    assert started[0]["arguments"][0] == "explain"
    assert "--provider=lexical" in started[0]["arguments"]


def test_nothing_paid_starts_before_its_cost_is_shown(form, monkeypatch):
    started = []
    monkeypatch.setattr("facviz.ui.components.explain_forms.start", lambda root, **asked: started.append(asked))
    with StubServer([GOOD]) as server:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-never-a-real-key")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        app = form()
        assert app.selectbox(key="fv_ask_provider_explain").value == "anthropic"
        assert "Start" not in labels(app)
        app = press(app, "What would it cost?")
        assert not complaints(app)
        assert {"Calls", "Tokens in, about", "Cost, at most"} <= {metric.label for metric in app.metric}
        assert "Start" in labels(app)
        app.number_input(key="fv_ask_candidates").set_value(2).run()
        assert "Start" not in labels(app)  # another question has another price
        app = press(app, "What would it cost?")
        press(app, "Start")
        assert server.requests == []
    assert "--n-candidates=2" in started[0]["arguments"]
    assert "--budget-usd=1.0" in started[0]["arguments"]


def test_the_page_has_one_small_entry_that_opens_the_form(planted_root, open_app):
    app = press(open_app(planted_root, "features"), "Explain…")
    assert not complaints(app)
    assert app.segmented_control(key="fv_ask_what").value == "explain"


def test_how_the_last_job_ended_stands_on_the_page_in_counts(planted_root, open_app):
    result = {"n_explained": 3, "n_cannot_tell": 1, "n_failed": 2, "failures": {"refused": 2}, "usd": 0.5}
    make_job(planted_root, "done", ("explain",), page="features", title="Explain 6 features", result=result)
    app = open_app(planted_root, "features")
    assert not complaints(app)
    assert "3 explained · 1 cannot tell · 2 refused" in shown(app).replace("\\", "")


def test_a_task_written_in_the_browser_can_be_judged_by_at_once(planted_root, form):
    app = form()
    app.segmented_control(key="fv_ask_what").set_value("judge").run()
    app.text_input(key="fv_task_title").set_value("Garden tools")
    app.text_area(key="fv_task_description").set_value("Customers of a garden shop.")
    app.text_area(key="fv_task_points").set_value("Asks for a tool.\nAsks for seeds.")
    app.selectbox(key="fv_task_format").set_value("preference_pair")
    app = press(app, "Save the task")
    assert not complaints(app)
    assert "format: preference_pair\n" in (planted_root / "tasks" / "garden_tools.v1.md").read_text()
    app.run()
    assert "Garden tools" in app.selectbox(key="fv_ask_task").options


def test_the_feature_page_shows_scores_and_scores_again_in_a_click(planted_root, open_app, monkeypatch):
    started = []
    monkeypatch.setattr("facviz.ui.components.scores.start", lambda root, **asked: started.append(asked))
    app = open_app(planted_root, "feature", feature=12)
    assert not complaints(app)
    press(app, next(label for label in labels(app) if label in ("Score it", "Score again")))
    assert started[0]["arguments"][0] == "score"
    assert {"--features=12", "--kinds=embedding"} <= set(started[0]["arguments"])


def test_a_judge_of_one_feature_is_priced_before_it_can_be_asked(planted_root, open_app, monkeypatch):
    started = []
    monkeypatch.setattr("facviz.ui.components.explain_forms.start", lambda root, **asked: started.append(asked))
    with StubServer([GOOD]) as server:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-never-a-real-key")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        app = open_app(planted_root, "feature", feature=12)
        assert not complaints(app)
        assert "Start" not in labels(app)
        app = press(app, "What would it cost?")
        assert not complaints(app)
        press(app, "Start")
        assert server.requests == []
    assert {"--features=12", "--provider=anthropic", "--budget-usd=0.25"} <= set(started[0]["arguments"])


@pytest.mark.parametrize("what", sorted(FORMATS))
def test_every_download_holds_the_features_asked_for(planted_root, what):
    sae_id = open_workspace(planted_root).features().to_pylist()[0]["sae_id"]
    made = export_bytes(planted_root, sae_id, "anchor", "toxicity", what, (12, 13))
    assert made[:2] == b"PK" if what == "jsonl" else b"12" in made
    assert list((planted_root / "exports").glob("tmp*")) == []


def test_a_review_table_comes_back_with_its_conflicts_before_anything_changes(planted_root, tmp_path):
    sae_id = open_workspace(planted_root).features().to_pylist()[0]["sae_id"]
    table = export_bytes(planted_root, sae_id, "anchor", "", "review-csv", (12, 13)).decode("utf-8-sig")
    before = {r["feature_id"]: r["text"] for r in open_workspace(planted_root).explanations().to_pylist()}
    path = tmp_path / "review.csv"
    rows = list(csv.DictReader(io.StringIO(table)))
    rows[0]["explanation"] = "somebody's words"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    asked = (path, "ann", True, False, "")
    seen = bring_in(planted_root, sae_id, *asked, dry_run=True)
    assert (seen["n_would_apply"], seen["n_applied"], seen["n_conflicts"]) == (1, 0, 0)
    assert bring_in(planted_root, sae_id, *asked, dry_run=False)["n_applied"] == 1
    after = {r["feature_id"]: r["text"] for r in open_workspace(planted_root).explanations().to_pylist()}
    assert (after[12], after[13]) == ("somebody's words", before[13])
