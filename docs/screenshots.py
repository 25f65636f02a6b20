"""Pictures of every page of the demo, light and dark, for the README and `docs/demo.md`.

    .venv/bin/python -m docs.screenshots

The demo is installed into a temporary folder, so that nobody's own decisions show.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Literal

from facviz.pipeline.demo import install_demo
from facviz.store.workspace import open_workspace
from facviz.testing.browser import Server, open_browser, settle, whole_page

IMAGES = Path(__file__).resolve().parent / "images"
PAGES = ("", "data", "sae", "features", "feature", "review", "coverage", "synthesis", "evaluation", "jobs")


def main() -> None:
    """Start the dashboard on a fresh demo and photograph its pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=IMAGES)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--most", type=int, default=1600, help="tallest picture in pixels")
    parser.add_argument("--modes", nargs="+", default=["light", "dark"])
    parser.add_argument("--pages", nargs="+", default=list(PAGES))
    parser.add_argument("--workspace", type=Path, help="another workspace than the demo")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = options.workspace or install_demo(Path(folder) / "demo")
        server = Server(root, log=Path(folder) / "server.log", environment={"HF_HUB_OFFLINE": "1"})
        server.start()
        try:
            for mode in options.modes:
                photograph(server.url, root, mode, options)
        finally:
            server.stop()


def photograph(url: str, root: Path, mode: Literal["light", "dark"], options: argparse.Namespace) -> None:
    """One picture a page in one mode; the overview is at the root."""
    with open_browser(mode=mode, width=options.width) as page:
        for name in options.pages:
            query = f"?feature={telling_feature(root)}" if name == "feature" else ""
            page.goto(f"{url}/{name}{query}")
            settle(page)
            path = options.out / f"{name or 'overview'}-{mode}.png"
            whole_page(page, path, width=options.width, most=options.most)
            print(path)  # noqa: T201


def telling_feature(root: Path) -> int:
    """The missing feature that matters most and was filled: what a presenter would open."""
    with open_workspace(root).reader() as reader:
        runs = reader.rows("coverage")
        missing = reader.rows("missing", coverage_id=runs[-1]["coverage_id"]) if runs else []
        accepted = {row["feature_id"] for row in reader.rows("samples")}
    chosen = [row["feature_id"] for row in missing if row["feature_id"] in accepted] or [0]
    return int(chosen[0])


if __name__ == "__main__":
    main()
