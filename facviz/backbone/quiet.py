"""Keeps third-party loaders silent: progress bars and library chatter never reach a command's output."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any

_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars, log lines or Python warnings from transformers and huggingface_hub inside; restored afterwards.

    One thread at a time: what is switched here is global, and so is transformers' default dtype while it loads.
    """
    import huggingface_hub.utils
    import transformers

    log: Any = transformers.utils.logging
    hub: Any = huggingface_hub.utils
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verbosity, had_bars = log.get_verbosity(), log.is_progress_bar_enabled()
        had_hub_bars = not hub.are_progress_bars_disabled()
        log.set_verbosity_error()
        log.disable_progress_bar()
        hub.disable_progress_bars()
        try:
            yield
        finally:
            log.set_verbosity(verbosity)
            if had_bars:
                log.enable_progress_bar()
            if had_hub_bars:
                hub.enable_progress_bars()


def one_line(error: BaseException) -> str:
    """First line of a third-party error, short enough to quote in a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:200]
