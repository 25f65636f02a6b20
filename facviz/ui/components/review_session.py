"""What a browser session remembers of a review: when an item came up, what was revealed, what is asked again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import streamlit as st

_TIMES, _SHOWN, _REPEAT = "fv_review_times", "fv_review_shown", "fv_review_repeat"
_REVEALED = "fv_review_revealed"


def times() -> list[float]:
    """When this session decided on something, in seconds."""
    found: list[float] = st.session_state.setdefault(_TIMES, [])
    return found


def came_up(item: str) -> None:
    """Start the clock of an item, unless it is the one already shown."""
    if st.session_state.get(_SHOWN, ("", 0.0))[0] != item:
        st.session_state[_SHOWN] = (item, time.time())


def spent() -> Mapping[str, Any]:
    """Seconds since the item on the page came up, for a decision's payload."""
    shown = st.session_state.get(_SHOWN)
    return {"seconds": round(time.time() - shown[1], 1)} if shown else {}


def restart_clock() -> None:
    """The next item counts from when it is drawn, also where it is the same one again."""
    st.session_state.pop(_SHOWN, None)


def repeat() -> int | None:
    """The feature that is asked again, unmarked; mostly None."""
    found = st.session_state.get(_REPEAT)
    return found if isinstance(found, int) else None


def ask_again(feature_id: int | None) -> None:
    """Show this feature once more before the queue goes on; None goes on."""
    st.session_state[_REPEAT] = feature_id


def is_revealed(item: str) -> bool:
    """Whether this session asked to see the machine's words of an item before deciding."""
    return item in st.session_state.get(_REVEALED, set())


def reveal(item: str) -> None:
    """Show the machine's words of an item from now on."""
    st.session_state.setdefault(_REVEALED, set()).add(item)
