"""Widgets that follow the address and write it, so that whoever opens the link sees the same; links between pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import streamlit as st

from facviz.ui import state

_MARKDOWN = frozenset("\\`*_{}[]()#+-.!|<>~$:")
_FEATURE_PAGE = "pages/feature.py"


class Follow(TypedDict):
    """Keyword arguments of a widget that follows the address."""

    key: str
    on_change: Callable[..., None]
    args: tuple[Any, ...]


def follow(key: str, param: str, value: object, *, default: object = "", resets: tuple[str, ...] = ()) -> Follow:
    """Put what the address says into a widget about to be drawn; a change goes back there and forgets `resets`.

    A value equal to `default` leaves the address.
    """
    st.session_state[key] = value
    return Follow(key=key, on_change=_write, args=(key, param, default, resets))


def _write(key: str, param: str, default: object, resets: tuple[str, ...]) -> None:
    value = st.session_state[key]
    is_default = value == default or value in (None, "", [], False)
    text = ",".join(map(str, value)) if isinstance(value, list) else "1" if value is True else value
    state.set_query(**{param: None if is_default else text}, **dict.fromkeys(resets))


def plain_markdown(text: str) -> str:
    """A text for labels and other Markdown places, every special character shown as itself."""
    return "".join(f"\\{c}" if c in _MARKDOWN else c for c in " ".join(text.split()))


def feature_link(feature_id: int, words: str, where: Mapping[str, Any], *, why: str = "") -> None:
    """A link to a feature; `where` is the rest of the address, empty values left out."""
    st.page_link(
        _FEATURE_PAGE,
        label=f":primary[{feature_id}] {plain_markdown(words)}",
        query_params=feature_address(feature_id, where),
        help=plain_markdown(why) or None,
    )


def feature_address(feature_id: int, where: Mapping[str, Any]) -> dict[str, str]:
    """The address of a feature's page."""
    return {"feature": str(feature_id), **{k: str(v) for k, v in where.items() if v}}


def open_feature(feature_id: int, where: Mapping[str, Any]) -> None:
    """Go to a feature's page."""
    st.switch_page(_FEATURE_PAGE, query_params=feature_address(feature_id, where))
