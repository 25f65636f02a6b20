"""What Streamlit's own shortcuts cannot do: `?`, Esc out of a field, the keyboard into one, a name that stays.

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


def listen(
    help_key: str,
    name: str,
    on_name: Callable[[str], None],
    *,
    opens: str = "fv_decide_edit",
    field: str = "fv_explanation_",
) -> None:
    """Listen on this page; `on_name` gets the name that this browser remembers. `name` is the one to remember.

    `opens` is the button that E presses, and `field` begins the key of the text field that it opens.
    """

    def remembered() -> None:
        found = st.session_state[_KEY].get("name")
        if isinstance(found, str) and found.strip():
            on_name(found)

    data = {"help": help_key, "name": name, "open": opens, "field": field}
    _mount(key=_KEY, data=data, on_name_change=remembered)
