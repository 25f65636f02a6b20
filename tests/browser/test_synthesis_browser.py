"""Synthesis as a person does it, in a real browser on the demo with the real model: two features, by keys alone."""

from __future__ import annotations

import time

import pytest
from hostile import MARK

from facviz.jobs import JobState, list_jobs
from facviz.store.events import read_events
from facviz.store.workspace import open_workspace
from facviz.testing.browser import settle


def events(root):
    return read_events(root / "events")


def samples(root):
    return {s["candidate_id"]: s for s in open_workspace(root).samples().to_pylist()}


def shown(page) -> str:
    return page.locator("[data-testid=stMain]").inner_text()


def wait_for(is_true, seconds: float = 30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := is_true():
            return found
        time.sleep(0.2)
    raise AssertionError("It did not happen in time.")


def press(page, root, name, n=1):
    """One key that decides, waited for until the log and the page have it."""
    before = len(events(root))
    page.keyboard.press(name)
    wait_for(lambda: len(events(root)) >= before + n)
    page.wait_for_timeout(200)
    settle(page)


def open_candidate(page, server, candidate_id, query=""):
    page.goto(f"{server.url}/synthesis?view=read&show=verified&candidate={candidate_id}{query}")
    settle(page)


def test_texts_are_read_and_decided_on_by_keys_and_nothing_acts_while_a_person_types(serve, browser_page, demo_root):
    page, server = browser_page, serve(demo_root)
    page.goto(f"{server.url}/synthesis?view=read")
    settle(page)
    n = len(samples(demo_root))
    press(page, demo_root, "a")
    press(page, demo_root, "a")
    page.keyboard.press("x")
    page.locator(".st-key-fv_sample_reason_2 button").wait_for()
    press(page, demo_root, "2")
    assert [e["kind"] for e in events(demo_root)] == ["approve", "approve", "reject"]
    assert len(samples(demo_root)) == n - 1
    assert f"of {n}, 2 approved" in shown(page)
    press(page, demo_root, "u")
    press(page, demo_root, "u")
    press(page, demo_root, "y")
    assert len(samples(demo_root)) == n
    assert sum(s["review"] == "approved" for s in samples(demo_root).values()) == 2

    page.keyboard.press("e")
    page.wait_for_function("document.activeElement.tagName === 'TEXTAREA'")
    before = len(events(demo_root))
    page.keyboard.type(" axub hey ")
    page.locator("[class*=st-key-fv_sample_text_] textarea").press("Escape")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(800)
    assert len(events(demo_root)) == before
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")

    page.goto(f"{server.url}/synthesis?view=read")
    settle(page)
    page.keyboard.press("b")
    page.locator(".st-key-fv_synthesis_approve_all button").click()
    wait_for(lambda: all(s["review"] == "approved" for s in samples(demo_root).values()))
    settle(page)
    press(page, demo_root, "u")
    assert sum(s["review"] == "approved" for s in samples(demo_root).values()) == 2


@pytest.mark.slow
def test_two_features_are_written_for_watched_edited_and_verified_again(serve, browser_page, demo_root):
    page, server = browser_page, serve(demo_root)
    with open_workspace(demo_root).reader() as reader:
        run = reader.rows("coverage")[-1]
        missing = [r["feature_id"] for r in reader.rows("missing", coverage_id=run["coverage_id"])]
    known = set(samples(demo_root))
    page.goto(f"{server.url}/synthesis?view=write&state=all&features={missing[0]},{missing[1]}")
    settle(page)
    for name, value in (("per_feature", "1"), ("max_candidates", "24")):
        field = page.locator(f".st-key-fv_synthesis_{name} input")
        field.fill(value)
        field.press("Enter")
        settle(page)
    page.locator(".st-key-fv_synthesis_start button").click()
    page.locator(".st-key-fv_synthesis_live table").wait_for(timeout=60_000)
    job = wait_for(lambda: list_jobs(demo_root)[0])
    wait_for(lambda: not list_jobs(demo_root)[0].is_active, 480)
    assert (list_jobs(demo_root)[0].job_id, list_jobs(demo_root)[0].state) == (job.job_id, JobState.DONE)
    page.locator(".st-key-fv_synthesis_live").wait_for(state="detached", timeout=30_000)
    written = {k: s for k, s in samples(demo_root).items() if k not in known}
    assert {s["feature_id"] for s in written.values()} <= set(missing[:2])
    assert written

    candidate_id, sample = next(iter(written.items()))
    open_candidate(page, server, candidate_id)
    page.locator(".st-key-fv_synthesis_heat label").first.click()
    page.locator(".st-key-fv_sample_desk .fv-peak").first.wait_for(timeout=120_000)
    page.keyboard.press("e")
    page.wait_for_function("document.activeElement.tagName === 'TEXTAREA'")
    text = f"{sample['text']} Thanks a lot."
    area = page.locator("[class*=st-key-fv_sample_text_] textarea")
    area.fill(text)
    area.press("Control+Enter")
    event = wait_for(lambda: next((e for e in events(demo_root) if e["kind"] == "edit"), None), 480)
    page.wait_for_function("!document.body.innerText.includes('reads your text')")
    settle(page)
    measured = event["payload"]["measured"]
    after = samples(demo_root)[candidate_id]
    if measured["accepted"]:
        assert measured["act"] > 1.05 * measured["act_threshold"]
        assert (after["text"], after["review"]) == (text, "edited")
        assert "What was changed" in shown(page)
    else:
        assert (after["text"], after["review"]) == (sample["text"], "unreviewed")
        assert "did not verify" in shown(page)
        page.keyboard.press("Escape")
        settle(page)
    press(page, demo_root, "u")
    assert samples(demo_root)[candidate_id]["text"] == sample["text"]
    press(page, demo_root, "a")
    assert samples(demo_root)[candidate_id]["review"] == "approved"


def test_hostile_texts_are_read_as_text_at_the_desk_in_the_list_and_among_what_remains(
    serve, browser_page, hostile_root
):
    server = serve(hostile_root)
    for query in ("view=read&candidate=hostile0&show=verified", "view=read&show=verified", "view=write&state=all"):
        browser_page.goto(f"{server.url}/synthesis?{query}")
        settle(browser_page)
        if "read" in query:
            browser_page.locator(".st-key-fv_synthesis_list summary").click()
            browser_page.wait_for_timeout(500)
            settle(browser_page)
        assert browser_page.evaluate("window.hacked") is None
        assert browser_page.locator("img[src='x'], a[href^='javascript']").count() == 0
        assert MARK in browser_page.locator("body").inner_text()
