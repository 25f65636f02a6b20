"""What Streamlit's own shortcuts cannot do: `?` for help, Esc out of a field, a name kept in the browser.

A Streamlit component of the second kind without any markup; its script lies beside this file and never acts while a
person types.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

_KEY = "fv_keys"

_mount = st.components.v2.component(
    "facviz_keys", html="<span></span>", js=(Path(__file__).parent / "keys.js").read_text(encoding="utf-8")
)


def listen(help_key: str, name: str, on_name: Callable[[str], None]) -> None:
    """Listen on this page; `on_name` gets the name that this browser remembers. `name` is the one to remember."""

    def remembered() -> None:
        found = st.session_state[_KEY].get("name")
        if isinstance(found, str) and found.strip():
            on_name(found)

    _mount(key=_KEY, data={"help": help_key, "name": name}, on_name_change=remembered)
