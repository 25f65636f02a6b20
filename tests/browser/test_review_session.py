"""Reviewing as a person does it all day, in a real browser: by keys alone, blind, two at once, after a restart."""

from __future__ import annotations

from collections import Counter

from hostile import HOSTILE, MARK

from facviz.store.database import Database
from facviz.store.events import active_events, explanation_of, queue_of, read_events
from facviz.store.workspace import open_workspace
from facviz.testing.browser import open_browser, settle


def events(root):
    return read_events(root / "events")


def wait_for_events(page, root, n, seconds=20):
    """Until the log holds n events and the page has settled on what came of the last."""
    for _ in range(seconds * 20):
        if len(events(root)) >= n:
            page.wait_for_timeout(150)  # until the browser knows that the page runs
            page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{len(events(root))} events, not {n}")


def press(page, root, key):
    """One key that decides, waited for as a person waits for the next item."""
    n = len(events(root))
    page.keyboard.press(key)
    wait_for_events(page, root, n + 1)


def open_review(page, server, query=""):
    page.goto(f"{server.url}/review{query}")
    settle(page)


def test_thirty_features_by_keys_alone_with_three_undos_and_a_blind_round(serve, browser_page, demo_root):
    page, server = browser_page, serve(demo_root)
    open_review(page, server, "?once=1")
    for i in range(24):
        press(page, demo_root, "atfs"[i % 4])
    for _ in range(3):
        press(page, demo_root, "u")
    press(page, demo_root, "y")
    page.keyboard.press("x")
    page.locator("[class*=st-key-fv_decide_reason_2] button").wait_for()
    press(page, demo_root, "2")
    press(page, demo_root, "3")

    open_review(page, server, "?blind=1&once=1")
    hidden = page.locator(".fv-explanation")
    for word in ("first", "second"):
        assert "Hidden until you decide" in hidden.inner_text()
        page.keyboard.press("e")
        page.keyboard.press("a")  # too early for the field, and swallowed
        page.wait_for_function("document.activeElement.tagName === 'TEXTAREA'")
        page.keyboard.type(f"axtfs 1234? my {word} words")
        n = len(events(demo_root))
        page.keyboard.press("Control+Enter")
        wait_for_events(page, demo_root, n + 1)
        page.get_by_text("The machine wrote:").wait_for()
        if word == "first":
            press(page, demo_root, "m")
        else:
            page.keyboard.press("ArrowRight")
            page.wait_for_function("!document.body.innerText.includes('The machine wrote:')")
        settle(page)
    for key in "tf" * 7:  # first what was skipped, which still waits, then new ones
        press(page, demo_root, key)
    page.keyboard.press("Backspace")
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")

    logged = events(demo_root)
    kinds = Counter(e["kind"] for e in logged)
    assert kinds["undo"] == 4  # three undos, and one of them taken back
    assert (kinds["edit"], kinds["reject"], kinds["verdict"]) == (2, 1, 1)
    decided = [e for e in active_events(logged) if e["kind"] != "verdict" and not e["payload"].get("look")]
    assert len({e["target"] for e in decided}) >= 30
    assert all(e["payload"]["seconds"] >= 0 for e in decided)
    blind = [e["payload"] for e in logged if e["kind"] == "edit"]
    assert [(p["blind"], p["saw"]) for p in blind] == [(True, False)] * 2
    assert blind[0]["text"] == "axtfs 1234? my first words"


def test_two_browsers_review_at_once_and_neither_loses_anything(serve, demo_root):
    server = serve(demo_root)
    with open_browser() as ann:
        bob = ann.context.browser.new_context().new_page()
        for page, name in ((ann, "Ann"), (bob, "Bob")):
            open_review(page, server)
            field = page.locator(".st-key-fv_review_name_text input")
            field.fill(name)
            field.press("Enter")
            page.locator(".st-key-fv_review_name_text").wait_for(state="detached")
            settle(page)
        first = ann.locator(".st-key-fv_review_desk .fv-explanation").inner_text()
        assert bob.locator(".st-key-fv_review_desk .fv-explanation").inner_text() == first
        bob.keyboard.press("e")
        field = bob.locator("[class*=st-key-fv_explanation_] textarea")
        field.fill("what Bob typed")
        press(ann, demo_root, "a")
        field.press("Control+Enter")
        bob.get_by_text("Ann changed this while you looked at it").wait_for()
        assert field.input_value() == "what Bob typed"
        settle(bob)
        n = len(events(demo_root))
        field.press("Control+Enter")
        wait_for_events(bob, demo_root, n + 1)
        settle(bob)
        open_review(bob, server, "?order=density&once=1")
        bob.locator(".st-key-fv_review_name_text").wait_for(state="detached")
        settle(bob)
        for key in "tft":
            press(ann, demo_root, key)
            press(bob, demo_root, "f" if key == "t" else "t")
        who = Counter(e["actor"] for e in events(demo_root))
        assert who == {"Ann": 4, "Bob": 4}
        texts = {e["payload"].get("text") for e in active_events(events(demo_root))}
        assert "what Bob typed" in texts


def test_hostile_words_names_notes_and_queues_are_read_as_text(serve, browser_page, hostile_root):
    workspace = open_workspace(hostile_root)
    with Database(workspace) as database:
        database.sync()
        sae_id = database.rows("saes")[0]["sae_id"]
        database.record(HOSTILE, queue_of(HOSTILE[:60]), "save", {"asked": {"show": "mixed"}})
        note = {"note": HOSTILE, "reason": HOSTILE, "look": "second"}
        for feature in range(3):
            database.record(f"{HOSTILE} 2", explanation_of(sae_id, feature), "reject", note)
        database.record("eve", explanation_of(sae_id, 4), "flag", {"note": HOSTILE})
    server = serve(hostile_root)
    for query in ("?show=mixed", "?show=flagged", f"?words={HOSTILE}&show={HOSTILE}&blind={HOSTILE}&order={HOSTILE}"):
        open_review(browser_page, server, query)
        browser_page.locator(".st-key-fv_review_queues button").first.click()
        browser_page.locator(".st-key-fv_review_agreement summary").click()
        settle(browser_page)
        assert browser_page.evaluate("window.hacked") is None
        assert browser_page.locator("img[src='x'], a[href^='javascript']").count() == 0
        assert MARK in browser_page.locator("body").inner_text()


def test_a_link_opens_the_same_view_after_a_restart(serve, browser_page, demo_root):
    page, server = browser_page, serve(demo_root)
    open_review(page, server)
    press(page, demo_root, "a")
    press(page, demo_root, "a")
    open_review(page, server, "?show=accepted&order=density&weak=&context=near&blind=")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.body.innerText.includes('2 of 2')")
    settle(page)
    address, seen = page.url, page.locator(".st-key-fv_review_desk .fv-explanation").inner_text()
    server.stop()
    server.start()
    page.goto(address)
    settle(page)
    assert page.locator(".st-key-fv_review_desk .fv-explanation").inner_text() == seen
    assert "2 of 2" in page.locator("body").inner_text()
    assert "show=accepted" in address
    assert "order=density" in address
