"""On the feature page a token that is pointed at or focused is marked on the histogram; a span can be tried."""

from __future__ import annotations

import pytest
from hostile import HOSTILE, MARK

from facviz.store.database import Database
from facviz.store.workspace import open_workspace
from facviz.testing.browser import open_browser, settle
from facviz.views.lists import add_to_list

HISTOGRAM = ".st-key-fv_feature_histogram"


def mark(page):
    return page.locator(f"{HISTOGRAM} .mark")


def left_of(locator) -> float:
    return float(locator.evaluate("e => parseFloat(e.style.left)"))


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_a_token_that_is_pointed_at_is_marked_at_its_value(serve, loop_copy, mode):
    server = serve(loop_copy / "workspace")
    with open_browser(mode=mode) as page:
        page.goto(f"{server.url}/feature?feature=3")
        settle(page)
        page.locator(f"{HISTOGRAM} .bar").first.wait_for()
        assert not mark(page).is_visible()
        token = page.locator(".fv-spans .fv-peak").first
        token.hover()
        mark(page).wait_for()
        assert mark(page).inner_text() == "␣drum · 5.00"
        assert left_of(mark(page)) == pytest.approx(100.0)  # its activation is the feature's maximum
        assert page.locator(f"{HISTOGRAM} .said").inner_text() == "␣drum · 5.00"
        colour = mark(page).evaluate("e => getComputedStyle(e.firstChild).color")
        ground = mark(page).evaluate("e => getComputedStyle(e.firstChild).backgroundColor")
        dark_ink = sum(map(int, colour[4:-1].split(", "))) < sum(map(int, ground[4:-1].split(", ")))
        assert dark_ink == (mode == "light")
        page.mouse.move(5, 5)
        page.wait_for_function(f"!document.querySelector('{HISTOGRAM} .mark')?.checkVisibility?.()")
        assert not mark(page).is_visible()


def test_the_keyboard_marks_tokens_and_does_not_turn_the_page(serve, browser_page, loop_copy):
    page, server = browser_page, serve(loop_copy / "workspace")
    page.goto(f"{server.url}/feature?feature=3")
    settle(page)
    page.locator(f"{HISTOGRAM} .bar").first.wait_for()
    page.locator(".fv-spans .fv-peak").first.focus()
    mark(page).wait_for()
    assert mark(page).inner_text() == "␣drum · 5.00"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(500)
    assert "feature=3" in page.url
    page.keyboard.press("Escape")
    page.locator(".fv-explanation").first.click()
    assert not mark(page).is_visible()
    page.keyboard.press("ArrowRight")  # now the arrows are the page's again
    page.wait_for_url("**feature=4*")


def test_a_span_goes_into_the_test_box_and_its_link_opens_the_same_after_a_restart(serve, browser_page, loop_copy):
    page, server = browser_page, serve(loop_copy / "workspace")
    page.goto(f"{server.url}/feature?feature=3&evidence=silent&context=full")
    settle(page)
    page.locator(f"{HISTOGRAM} .bar").first.wait_for()
    button = page.locator(".fv-try").first
    text = button.get_attribute("data-try")
    button.focus()
    page.keyboard.press("Space")
    page.wait_for_url("**text=*")
    settle(page)
    box = page.locator(".st-key-fv_feature_text textarea")
    assert box.input_value() == text
    page.get_by_text("It does not fire on this text").wait_for()
    address = page.url
    server.stop()
    server.start()
    page.goto(address)
    settle(page)
    assert page.locator(".st-key-fv_feature_text textarea").input_value() == text
    page.get_by_text("It does not fire on this text").wait_for()
    assert page.get_by_text("Random other texts").is_visible()


def test_hostile_tokens_names_and_notes_are_marked_and_listed_as_text(serve, browser_page, hostile_root):
    with Database(open_workspace(hostile_root)) as database:
        database.sync()
        sae_id = database.rows("saes")[0]["sae_id"]
        add_to_list(database, HOSTILE[:40], sae_id, 12, HOSTILE[:60], HOSTILE)
    page, server = browser_page, serve(hostile_root)
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.goto(f"{server.url}/feature?feature=12&text={MARK}")
    settle(page)
    page.locator(f"{HISTOGRAM} .bar").first.wait_for()
    page.evaluate(
        """markup => {
            const token = document.querySelector('.fv-spans [data-act]');
            token.setAttribute('title', markup);
            token.dispatchEvent(new PointerEvent('pointerover', {bubbles: true}));
        }""",
        HOSTILE,
    )
    assert MARK in mark(page).inner_text()
    assert mark(page).locator("img, script, a").count() == 0
    page.locator(".st-key-fv_lists button").first.click()
    note = page.locator("[class*=st-key-fv_lists_note_] input")
    note.wait_for()
    assert note.input_value() == HOSTILE
    assert MARK in page.locator("[data-testid=stPopoverBody]").inner_text()
    page.locator(".st-key-fv_lists_manage button").click()
    page.locator("[data-testid=stDialog]").wait_for()
    settle(page)
    assert MARK in page.locator("[data-testid=stDialog]").inner_text()
    assert page.evaluate("window.hacked === undefined")
