"""The features page in a real browser: a click on a token, a lasso on the map, and links that show the same again."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from hostile import HOSTILE

from facviz.store.events import read_events
from facviz.testing.browser import settle

TEXT = "tiger bread"


def address(page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def test_a_click_on_a_token_leaves_what_fires_there_and_the_link_says_so(serve, browser_page, loop_copy):
    page, server = browser_page, serve(loop_copy / "workspace")
    page.goto(f"{server.url}/features?view=text&text={TEXT}")
    page.get_by_role("option", name="bread").wait_for(timeout=60_000)
    settle(page)
    assert page.get_by_role("option").count() == 2
    page.get_by_role("option", name="bread").click()
    page.get_by_text("on “bread”").first.wait_for()
    settle(page)
    assert address(page)["token"] == "1"
    assert page.get_by_role("option", name="bread").get_attribute("aria-selected") == "true"
    page.reload()
    page.get_by_role("option", name="bread").wait_for(timeout=60_000)
    settle(page)
    assert page.get_by_role("option", name="bread").get_attribute("aria-selected") == "true"
    page.get_by_role("option", name="bread").click()
    page.get_by_text("on 2 tokens").first.wait_for()
    assert "token" not in address(page)


def test_a_hostile_text_is_read_token_by_token_as_text(serve, browser_page, loop_copy):
    page, server = browser_page, serve(loop_copy / "workspace")
    page.goto(f"{server.url}/features?view=text")
    settle(page)
    field = page.locator(".st-key-fv_features_text textarea")
    field.fill(HOSTILE)
    field.press("Control+Enter")
    page.get_by_role("option").first.wait_for(timeout=60_000)
    settle(page)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src='x']").count() == 0
    assert "<script>" in "".join(page.get_by_role("option").all_text_contents())


def test_an_area_drawn_on_the_map_is_what_the_table_shows(serve, browser_page, mapped_root):
    page, server = browser_page, serve(mapped_root)
    page.goto(f"{server.url}/features?view=map")
    settle(page)
    plot = page.locator(".st-key-fv_features_map .nsewdrag").first
    plot.wait_for(timeout=30_000)
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()

    def at(x: float, y: float) -> tuple[float, float]:
        """Pixels of a place on the map, whose sides run from -10.4 to 10.4."""
        across, down = (x + 10.4) / 20.8, (10.4 - y) / 20.8
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    page.mouse.move(*at(-5, -4))
    page.mouse.down()
    for corner in ((0.1, -4), (0.1, 4), (-5, 4), (-5, -3.9)):
        page.mouse.move(*at(*corner), steps=6)
    page.mouse.up()
    page.get_by_text("in the area").first.wait_for(timeout=30_000)
    settle(page)
    expected = [i for i in range(26) if -5 < i / 3 - 4 < 0.1]
    assert f"{len(expected)} features of 26 in the area" in page.locator("body").inner_text()
    drawn = address(page)["area"]
    assert len(drawn.split(";")) >= 4
    page.reload()
    settle(page)
    assert f"{len(expected)} features of 26 in the area" in page.locator("body").inner_text()
    page.locator(".st-key-fv_features_area_clear button").click()
    page.wait_for_function("!location.search.includes('area=')")
    settle(page)
    assert "in the area" not in page.locator("body").inner_text()


def test_all_of_the_table_are_accepted_after_a_preview_and_taken_back_with_one_click(serve, browser_page, loop_copy):
    root = loop_copy / "workspace"
    page, server = browser_page, serve(root)
    page.goto(f"{server.url}/features?coverage=filled,exhausted")
    settle(page)
    page.get_by_role("button", name="Decide on all").first.click()
    page.get_by_text("12 explanations will be accepted").wait_for()
    page.get_by_role("button", name="Accept 12").click()
    page.get_by_text("Accepted 12 explanations").first.wait_for()
    settle(page)
    assert page.get_by_role("dialog").count() == 0
    assert [e["kind"] for e in read_events(root / "events")] == ["accept"] * 12
    page.get_by_role("button", name="Undo").first.click()
    page.get_by_text("Took back 12 decisions").wait_for()
    assert [e["kind"] for e in read_events(root / "events")] == ["accept"] * 12 + ["undo"] * 12
