"""What a person waits for on a wide workspace, page by page, and what the dashboard takes of memory: absolute bars.

Script times are those of `AppTest` reruns through `app.py`, after one of the same page that is not counted. In Chromium
an action counts from the key or click until the script has ended and nothing on the page has changed for a while; the
server is a process of its own, and the first walk through all pages, in which it reads what it keeps afterwards, is
shown but not counted. Both work on a copy of the cached workspace, so that decisions made here stay out of it.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import Bound
from benchmarks.wide_workspace import SEED, wide_workspace
from facviz.backbone import Backbone
from facviz.store.database import Database
from facviz.store.workspace import open_workspace
from facviz.testing.browser import REPOSITORY, Server, find_chromium, open_browser, settle

SCRIPT_BAR, CLICK_BAR = 300.0, 1000.0  # milliseconds, 95th percentile
COLD_BAR, NEXT_BAR = 8.0, 2.0  # seconds
MEMORY_BAR = 3.0  # GB
PAGES = ("overview", "data", "sae", "features", "feature", "review", "coverage", "synthesis", "evaluation", "jobs")
Times = dict[str, list[float]]

SCRIPTS: dict[str, Sequence[tuple[str, Mapping[str, object]]]] = {
    "overview": [("open", {})],
    "data": [
        ("open", {}),
        ("search", {"search": "garden"}),
        ("another data set", {"dataset": SEED}),
        ("next page", {"page": 2}),
    ],
    "sae": [("open", {})],
    "features": [
        ("open", {}),
        ("sort", {"sort": "-score"}),
        ("sort", {"sort": "explanation"}),
        ("sort", {"sort": "-relevance"}),
        ("filter", {"coverage": "missing"}),
        ("filter", {"relevance": "yes,probably", "status": "unreviewed"}),
        ("filter", {"density": "0.001,0.01"}),
        ("search texts", {"search": "because"}),
        ("search texts", {"search": "people"}),
        ("search a word", {"search": "because", "by": "word"}),
        ("search a word", {"search": "people", "by": "word"}),
        ("search a word", {"search": "the", "by": "word"}),
        ("next page", {"page": 2}),
        ("far page", {"page": 900}),
        ("another data set", {"dataset": SEED}),
    ],
    "feature": [
        ("open", {"feature": 17}),
        ("next", {"feature": 18}),
        ("jump", {"feature": 40_000}),
        ("widen spans", {"feature": 40_000, "context": "full"}),
        ("jump", {"feature": 65_535}),
        ("another data set", {"feature": 17, "dataset": SEED}),
    ],
    "review": [
        ("open", {}),
        ("order", {"order": "score"}),
        ("order", {"order": "density"}),
        ("jump", {"feature": 40_000}),
    ],
    "coverage": [("open", {})],
    "synthesis": [("open", {})],
    "evaluation": [("open", {})],
    "jobs": [("open", {})],
}
"""Page → what is done there, as values in its address: what a click would write there, whatever the widget."""
PRESSED: dict[str, Sequence[tuple[str, Callable[[Any], Any]]]] = {
    "review": [
        ("accept", lambda app: app.button(key="fv_decide_accept").click()),
        ("accept", lambda app: app.button(key="fv_decide_accept").click()),
        ("skip", lambda app: app.button(key="fv_decide_skip").click()),
        ("undo", lambda app: app.button(key="fv_review_undo").click()),
        ("undo", lambda app: app.button(key="fv_review_undo").click()),
    ],
    "coverage": [
        ("move the threshold", lambda app: app.slider(key="threshold").set_value(0.8)),
        ("move the threshold", lambda app: app.slider(key="threshold").set_value(1.2)),
        ("move the threshold", lambda app: app.slider(key="threshold").set_value(0.9)),
    ],
}
"""Page → what only a widget does."""
ROUNDS = 2


def bench_pages(backbone: Callable[[], Backbone]) -> list[Bound]:
    """All measures of the pages; those that need Chromium are missed where there is none."""
    root = wide_workspace(backbone)
    taken_in = take_in(root)
    with copy_of(root) as copy:
        scripts = script_times(copy)
    bounds = [_p95(f"page-{page}", times, SCRIPT_BAR) for page, times in scripts.items()]
    with copy_of(root) as copy:
        return bounds + browser_bounds(copy, take_in_seconds=taken_in)


def take_in(root: Path) -> float:
    """Seconds in which a fresh dashboard took all shards in, once; its file is kept beside them."""
    workspace = open_workspace(root)
    started = time.perf_counter()
    with Database(workspace) as database:  # one of another version is made anew here, not in what is measured
        changed = database.sync()
    if changed:
        workspace.remember(take_in_seconds=round(time.perf_counter() - started, 1))
    return float(workspace.meta.get("take_in_seconds", float("nan")))


@contextmanager
def copy_of(root: Path) -> Iterator[Path]:
    """A workspace like this one to write in: shards and weights are linked, all that changes is copied."""
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=root.parent))

    def link_or_copy(source: str, target: str) -> None:
        is_fixed = source.endswith((".parquet", ".safetensors"))
        (os.link if is_fixed else shutil.copyfile)(source, target)

    try:
        yield Path(shutil.copytree(root, folder / "wide", copy_function=link_or_copy))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def script_times(root: Path, rounds: int = ROUNDS) -> dict[str, Times]:
    """Milliseconds of each rerun, by page and action; the first run of a page is not counted."""
    import streamlit as st
    from streamlit.testing.v1 import AppTest

    before = Path.cwd(), os.environ.get("FACVIZ_WORKSPACE")
    os.chdir(REPOSITORY)
    os.environ["FACVIZ_WORKSPACE"] = str(root)
    logging.disable(logging.WARNING)  # Streamlit wonders at every run that no server asked for it
    found: dict[str, Times] = {}
    try:
        for page in PAGES:
            app = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=120).run()
            if page != "overview":
                app = app.switch_page(f"pages/{page}.py").run()
            times = found.setdefault(page, {})
            for _ in range(rounds):
                for name, address in SCRIPTS[page]:
                    _write_address(app, address)
                    _timed(app, times, name)
                _write_address(app, {})
                app.run()
                for name, press in PRESSED.get(page, ()):
                    press(app)
                    _timed(app, times, name)
    finally:
        logging.disable(logging.NOTSET)
        st.cache_resource.clear()  # closes the database
        os.chdir(before[0])
        os.environ.pop("FACVIZ_WORKSPACE")
        os.environ |= {"FACVIZ_WORKSPACE": before[1]} if before[1] is not None else {}
    return found


def _write_address(app: Any, address: Mapping[str, object]) -> None:
    app.query_params.clear()
    for name, value in address.items():
        app.query_params[name] = str(value)


def _timed(app: Any, times: Times, name: str) -> None:
    started = time.perf_counter()
    app.run()
    times.setdefault(name, []).append(1000 * (time.perf_counter() - started))
    if app.exception:
        raise RuntimeError(f"The page failed at {name!r}: {app.exception[0].value}")


def _p95(bench: str, times: Times, bar: float) -> Bound:
    every = [ms for found in times.values() for ms in found]
    slowest = {name: round(max(found)) for name, found in times.items()}
    p95 = float(np.percentile(every, 95)) if every else float("nan")
    return Bound(
        bench, "ms", p95, bar, {"runs": len(every), "median": round(float(np.median(every))), "slowest": slowest}
    )


_WATCH = """
window.fvBench = {start: 0, last: 0, armed: false};
new MutationObserver(() => { fvBench.last = performance.now(); })
  .observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
for (const kind of ['pointerdown', 'keydown'])
  addEventListener(kind, () => {
    if (fvBench.armed) { fvBench.start = fvBench.last = performance.now(); fvBench.armed = false; }
  }, true);
"""
_IS_IDLE = """() => fvBench.start > 0 && performance.now() - fvBench.last > 500
  && document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'
  && !document.querySelector('[data-testid=stSkeleton]')"""


def clicked(page: Any, act: Callable[[Any], object]) -> float:
    """Milliseconds from the first key or pointer of an action until the page was idle again."""
    page.evaluate("() => { fvBench.start = 0; fvBench.armed = true; }")
    act(page)
    page.wait_for_function(_IS_IDLE, timeout=60_000)
    return float(page.evaluate("() => fvBench.last - fvBench.start"))


def _menu(name: str) -> Callable[[Any], object]:
    return lambda page: page.get_by_test_id("stSidebarNav").get_by_role("link", name=name, exact=True).click()


def _key(key: str) -> Callable[[Any], object]:
    return lambda page: page.keyboard.press(key)


def _typed(words: str) -> Callable[[Any], object]:
    """Into the page's search box; what is timed is the Enter that sends it."""

    def act(page: Any) -> None:
        box = page.locator(".st-key-fv_features_search input")
        page.evaluate("() => { fvBench.armed = false; }")
        box.fill(words)
        page.wait_for_timeout(200)
        page.evaluate("() => { fvBench.armed = true; }")
        box.press("Enter")

    return act


def _slide(page: Any) -> None:
    thumb = page.get_by_test_id("stSlider").locator("[role=slider], input").first
    page.evaluate("() => { fvBench.armed = false; }")
    thumb.focus()
    page.evaluate("() => { fvBench.armed = true; }")
    page.keyboard.press("ArrowLeft")


WALK: Sequence[tuple[str, Callable[[Any], object]]] = [
    ("features: open", _menu("Features")),
    ("features: order", lambda page: page.locator(".st-key-fv_features_turn button").first.click()),
    ("features: search texts", _typed("because")),
    ("features: search another text", _typed("people")),
    ("features: search a word", lambda page: page.locator(".st-key-fv_features_by button").nth(1).click()),
    ("features: search another word", _typed("because")),
    ("features: clear the search", _typed("")),
    (
        "features: next page",
        lambda page: page.locator("[class*=st-key-fv_features_page] button", has_text="2").first.click(),
    ),
    ("review: open", _menu("Review")),
    ("review: accept", _key("a")),
    ("review: accept", _key("a")),
    ("review: skip", _key("s")),
    ("review: undo", _key("u")),
    ("review: undo", _key("u")),
    ("coverage: open", _menu("Coverage")),
    ("coverage: move the threshold", _slide),
    ("coverage: move the threshold", _slide),
    ("synthesis: open", _menu("Synthesis")),
    ("evaluation: open", _menu("Evaluation")),
    ("jobs: open", _menu("Jobs")),
    ("data: open", _menu("Data")),
    ("sae: open", _menu("SAE")),
    ("overview: open", _menu("Overview")),
]
FEATURE_WALK: Sequence[tuple[str, Callable[[Any], object]]] = [
    ("feature: next", lambda page: page.locator(".st-key-fv_feature_next button").first.click()),
    ("feature: next", lambda page: page.locator(".st-key-fv_feature_next button").first.click()),
    ("feature: widen spans", lambda page: page.locator(".st-key-fv_feature_context button").last.click()),
    ("feature: random", lambda page: page.locator(".st-key-fv_feature_random button").first.click()),
]


def browser_bounds(root: Path, *, rounds: int = ROUNDS, **settings: object) -> list[Bound]:
    """Cold start, the next browser, clicks and the server's peak of memory."""
    if find_chromium() is None:
        return [Bound("page-clicks", "ms", float("nan"), CLICK_BAR, {"why": "no Chromium on this machine"})]
    server = Server(root, log=root.parent / "server.log", environment={"HF_HUB_OFFLINE": "1"})
    try:
        with open_browser() as page:
            started = time.perf_counter()
            server.start()
            page.goto(server.url)
            _painted(page)
            cold = time.perf_counter() - started
        times: Times = {}
        first: Times = {}
        with open_browser() as page:
            page.add_init_script(_WATCH)
            started = time.perf_counter()
            page.goto(server.url)
            _painted(page)
            following = time.perf_counter() - started
            for found in (first, *[times] * rounds):
                settle(page)
                _walk(page, WALK, found)
                page.goto(f"{server.url}/feature?feature=17")
                settle(page)
                _walk(page, FEATURE_WALK, found)
                page.goto(server.url)
        peak = server.peak_gigabytes()
    finally:
        server.stop()
    slowest_first = {name: round(max(found)) for name, found in first.items()}
    clicks = _p95("page-clicks", times, CLICK_BAR)
    return [
        replace(clicks, settings={**clicks.settings, "first_walk": slowest_first}),
        Bound("first-page", "s", cold, COLD_BAR, dict(settings)),
        Bound("next-browser", "s", following, NEXT_BAR, {}),
        Bound("app-memory", "GB", peak, MEMORY_BAR, {}),
    ]


def _painted(page: Any) -> None:
    """Wait until the first page's script has ended and what it wrote stands there."""
    page.wait_for_selector("h1", timeout=60_000)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=60_000)


def _walk(page: Any, actions: Sequence[tuple[str, Callable[[Any], object]]], times: Times) -> None:
    for name, act in actions:
        times.setdefault(name, []).append(clicked(page, act))
