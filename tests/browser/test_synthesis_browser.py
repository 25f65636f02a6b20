"""Synthesis as a person does it, in a real browser on the demo with the real model: two features, by keys alone."""

from __future__ import annotations

import time

from hostile import MARK

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
