"""The dashboard as a person has it: a server process of its own and a headless Chromium in front of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

REPOSITORY = Path(__file__).resolve().parents[2]
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Flags with which Chromium runs as root in a container and asks nobody outside for anything."""


def find_chromium() -> str | None:
    """Path of an installed Chromium; None when there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Server:
    """One dashboard process on 127.0.0.1; the same port again after a restart."""

    def __init__(self, workspace: Path, *, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._workspace, self._log = workspace, log
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])

    @property
    def url(self) -> str:
        """Address of the overview."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, seconds: float = 60) -> None:
        """Start and wait until it answers."""
        command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(self.port)]
        environment = os.environ | {"FACVIZ_WORKSPACE": str(self._workspace)} | self._environment
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=2).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise RuntimeError(f"The dashboard did not start; see {self._log}.")

    def peak_gigabytes(self) -> float:
        """The most memory that the running server has held so far."""
        if self._process is None:
            raise RuntimeError("The dashboard is not running.")
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024 / 1e9

    def stop(self) -> None:
        """End the process that was started, and only that."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None


@contextmanager
def open_browser(*, mode: Literal["light", "dark"] = "light", width: int = 1280, height: int = 900) -> Iterator[Any]:
    """A Playwright page in headless Chromium, with the theme and size asked for."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(QUIET))
        try:
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=mode, accept_downloads=True
            )
            yield context.new_page()
        finally:
            browser.close()


def settle(page: Any, seconds: float = 30) -> None:
    """Wait until the page's script has ended and its charts are drawn."""
    page.wait_for_selector("h1", timeout=seconds * 1000)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=seconds * 1000)
    page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')", timeout=seconds * 1000)
    page.wait_for_timeout(400)


def whole_page(page: Any, path: Path, *, width: int, most: int = 5000) -> None:
    """A picture of all that a page holds, not only of what fits the window."""
    height = page.evaluate("Math.max(...[...document.querySelectorAll('section,div')].map(e => e.scrollHeight))")
    page.set_viewport_size({"width": width, "height": max(700, min(int(height) + 10, most))})
    page.wait_for_timeout(900)
    page.screenshot(path=str(path))
    page.set_viewport_size({"width": width, "height": 900})
