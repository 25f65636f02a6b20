"""Texts, names and explanations that try to break out are read as text, in a real browser."""

from __future__ import annotations

import pytest
from hostile import HOSTILE, MARK

from facviz.testing.browser import settle

READABLE = {
    "overview": "",
    "data": "",
    "features": "",
    "features?view=map": "",
    "features?view=compare": "",
    "feature?feature=12": MARK,
    "review?show=edited": MARK,
    "coverage": MARK,
    "synthesis": MARK,
    "evaluation": "",
    "jobs": "",
}
"""Pages, and what must stand on them as text; tables draw on a canvas and are only checked for staying harmless."""


@pytest.mark.parametrize("address", READABLE)
def test_hostile_texts_are_read_as_text_on_every_page(serve, browser_page, hostile_root, address):
    server = serve(hostile_root)
    dialogs = []
    browser_page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    browser_page.goto(f"{server.url}/{address}")
    settle(browser_page)
    assert browser_page.evaluate("window.hacked") is None
    assert browser_page.locator("img[src='x'], a[href^='javascript']").count() == 0
    assert dialogs == []
    assert READABLE[address] in browser_page.locator("body").inner_text()


def test_a_hostile_address_is_harmless_too(serve, browser_page, hostile_root):
    server = serve(hostile_root)
    for name in ("feature", "dataset", "threshold", "sae", "text", "q"):
        browser_page.goto(f"{server.url}/feature?{name}={HOSTILE}")
        settle(browser_page)
        assert browser_page.evaluate("window.hacked") is None
    for view in ("text&text", "map&area", "map&colour", "compare&first", "table&search"):
        browser_page.goto(f"{server.url}/features?view={view}={HOSTILE}")
        settle(browser_page)
        assert browser_page.evaluate("window.hacked") is None
