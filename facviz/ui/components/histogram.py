"""The histogram of a feature, on which the token pointed at is marked, and the buttons that try a span.

A Streamlit component of the second kind, without a build step: its script and style lie beside this file. The script
listens to the spans of the page, which are plain escaped HTML; what it shows of them it sets as text.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

_HERE = Path(__file__).parent

_mount = st.components.v2.component(
    "facviz_histogram",
    html='<div class="histogram"></div>',
    css=(_HERE / "histogram.css").read_text(encoding="utf-8"),
    js=(_HERE / "histogram.js").read_text(encoding="utf-8"),
)


def show_picture(data: dict[str, Any], key: str, on_try: Callable[[str], None] | None = None) -> None:
    """Draw what `views.histogram.picture` worked out; `on_try` gets the text of a span whose button was pressed."""

    def tried() -> None:
        text = st.session_state[key].get("tried")
        if on_try is not None and isinstance(text, str):
            on_try(text)

    _mount(key=key, data=data, on_tried_change=tried)
