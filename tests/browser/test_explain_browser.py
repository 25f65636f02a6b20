"""Explaining from the browser against a stub of Claude: the cost before the start, the job, its outcome in counts."""

from __future__ import annotations

import json

import pytest
from test_walk import body, wait_for

from facviz.jobs import JobState, list_jobs
from facviz.llm.ledger import call_rows
from facviz.testing.browser import settle
from facviz.testing.llm_server import Fault, StubServer

GOOD = json.dumps({"reasoning": "r", "outcome": "explained", "text": "words about fruit", "confidence": 0.9})


@pytest.mark.slow
def test_a_paid_job_is_priced_started_and_ends_in_typed_counts(loop_copy, serve, browser_page, monkeypatch):
    root, page = loop_copy / "workspace", browser_page
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-never-a-real-key")
    script = [GOOD, Fault.REFUSAL, GOOD, Fault.REFUSAL, GOOD]
    with StubServer(lambda number, _: script[number % 5]) as stub:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", stub.url)
        page.goto(f"{serve(root).url}/features")
        settle(page)
        page.get_by_role("button", name="Explain…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("Nothing paid is started before its cost stands here.").wait_for()
        assert dialog.get_by_role("button", name="Start", exact=True).count() == 0
        dialog.get_by_role("button", name="What would it cost?").click()
        dialog.get_by_text("Cost, at most").wait_for()
        assert stub.requests == []
        dialog.get_by_role("button", name="Start", exact=True).click()
        job = wait_for(lambda: next((j for j in list_jobs(root) if not j.is_active), None))
        assert job.state is JobState.DONE, job.error
        page.get_by_text("held better than the words alone").wait_for(timeout=30_000)
    said = body(page)
    assert f"{job.result['n_explained']} explained" in said
    assert "refused" in said
    assert sum(row["usd"] for row in call_rows(root)) == pytest.approx(job.result["usd"], abs=1e-6)


def test_the_forms_open_close_and_change_nothing(loop_copy, serve, browser_page):
    root, page = loop_copy / "workspace", browser_page
    before = sorted(path.name for path in (root / "tables").rglob("*"))
    page.goto(f"{serve(root).url}/features")
    settle(page)
    for name in ("Explain…", "Exchange…"):
        page.get_by_role("button", name=name).click()
        page.get_by_role("dialog").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="detached")
    assert sorted(path.name for path in (root / "tables").rglob("*")) == before
    assert list_jobs(root) == []
