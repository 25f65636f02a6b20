"""The loop as a person walks it, in a real browser on the demo: read, correct, reload, undo, measure, write, approve.

The real model writes the text, so this is the slowest test; it needs the packaged backbone.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile

import pytest

from facviz.jobs import JobState, list_jobs
from facviz.store.events import read_events
from facviz.testing.browser import settle

WORDS = "our own words for this feature"


def key(name: str) -> str:
    return f".st-key-{name}"


def body(page) -> str:
    return page.locator("[data-testid=stMain]").inner_text()


def go(page, name: str) -> None:
    page.locator("[data-testid=stSidebarNav]").get_by_role("link", name=name).click()
    page.wait_for_url(f"**/{name.lower()}*")
    settle(page)


def wait_for(is_true, seconds: float = 300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := is_true():
            return found
        time.sleep(0.5)
    raise AssertionError("It did not happen in time.")


def open_first_feature(page) -> str:
    """Click the first row of the table on the features page; the feature's number."""
    table = page.locator("[data-testid=stDataFrame]").first
    table.click(position={"x": 160, "y": 56})
    page.wait_for_url("**/feature?*feature=*")
    settle(page)
    return page.url.split("feature=")[1].split("&")[0]


def edit_explanation(page, text: str) -> None:
    page.locator(key("fv_decide_edit")).get_by_role("button").click()
    field = page.locator("[class*=st-key-fv_explanation_] textarea")
    field.wait_for()
    field.fill(text)
    field.press("Control+Enter")
    page.get_by_text(text).first.wait_for()
    settle(page)


@pytest.mark.slow
def test_a_person_walks_the_loop_and_the_app_restarts_in_the_middle_of_a_job(serve, browser_page, demo_root):
    page, server = browser_page, serve(demo_root)
    page.goto(server.url)
    settle(page)
    assert "FAC" in body(page)

    go(page, "Features")
    feature = open_first_feature(page)
    before = body(page)
    edit_explanation(page, WORDS)
    page.reload()
    settle(page)
    assert WORDS in page.locator(".fv-explanation").first.inner_text()
    page.locator(key("fv_decide_undo")).get_by_role("button").click()
    page.wait_for_function(f"!document.querySelector('.fv-explanation')?.innerText.includes('{WORDS}')")
    assert [e["kind"] for e in read_events(demo_root / "events")] == ["edit", "undo"]
    assert f"/{feature}" in read_events(demo_root / "events")[0]["target"]
    assert WORDS not in before

    go(page, "Coverage")
    shown = page.locator(".fv-big").first.inner_text()
    slider = page.locator(f"{key('threshold')} input[type=range]")
    slider.focus()
    for _ in range(4):
        slider.press("ArrowLeft")
    page.wait_for_function(f"document.querySelector('.fv-big').innerText !== {json.dumps(shown)}")
    settle(page)
    assert "threshold=" in page.url

    for _ in range(4):
        slider.press("ArrowRight")
    page.wait_for_function(f"document.querySelector('.fv-big').innerText === {json.dumps(shown)}")
    settle(page)

    n_jobs = len(list_jobs(demo_root))
    choose_one_feature(page)
    page.locator(key("fv_synthesis_start")).get_by_role("button").click()
    job = wait_for(lambda: len(list_jobs(demo_root)) > n_jobs and list_jobs(demo_root)[0])
    server.stop()
    assert list_jobs(demo_root)[0].is_active
    server.start()
    page.goto(f"{server.url}/synthesis")
    settle(page)
    ended = wait_for(lambda: not list_jobs(demo_root)[0].is_active and list_jobs(demo_root)[0])
    assert (ended.job_id, ended.state) == (job.job_id, JobState.DONE)

    page.goto(f"{server.url}/synthesis?view=read")
    settle(page)
    page.keyboard.press("a")
    page.get_by_text("1 approved").first.wait_for()
    settle(page)
    page.locator(key("fv_synthesis_take")).get_by_role("button").first.click()
    page.locator(f"{key('fv_synthesis_only_approved')} label").first.click()
    settle(page)
    with page.expect_download() as download:
        page.locator(key("fv_synthesis_download")).get_by_role("button").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    [listed] = json.loads(files["manifest.json"])["files"]
    assert hashlib.sha256(files["samples.jsonl"]).hexdigest() == listed["sha256"]
    [sample] = [json.loads(line) for line in files["samples.jsonl"].decode("utf-8").splitlines()]
    assert sample["review"] == "approved"
    assert sample["act"] > 1.05 * sample["act_threshold"]
    page.keyboard.press("Escape")
    go(page, "Evaluation")
    n_jobs = len(list_jobs(demo_root))
    page.locator(key("fv_evaluation_start")).get_by_role("button").click()
    wait_for(lambda: len(list_jobs(demo_root)) > n_jobs and not list_jobs(demo_root)[0].is_active)
    assert list_jobs(demo_root)[0].state is JobState.DONE, list_jobs(demo_root)[0].error
    page.get_by_text("verified samples lifts AUPRC").first.wait_for(timeout=20_000)

    go(page, "Coverage")
    slider.focus()
    slider.press("ArrowLeft")
    n_jobs = len(list_jobs(demo_root))
    page.locator(key("fv_coverage_keep")).get_by_role("button").click()
    wait_for(lambda: len(list_jobs(demo_root)) > n_jobs and not list_jobs(demo_root)[0].is_active)
    assert list_jobs(demo_root)[0].state is JobState.DONE, list_jobs(demo_root)[0].error
    page.get_by_text("Kept as measurement").first.wait_for(timeout=20_000)


def choose_one_feature(page) -> None:
    """On the coverage page, tick a missing feature that no text fills, and go on to synthesis with it."""
    page.locator(f"{key('fv_coverage_still')} label").first.click()
    settle(page)
    page.locator("[class*=st-key-fv_coverage_row_] [data-testid=stCheckbox] label").first.click()
    settle(page)
    page.locator(key("fv_coverage_write")).get_by_role("button").click()
    page.wait_for_url("**/synthesis*features=*")
    settle(page)
