"""What a browser session remembers and what its address says, typed; the only place that knows their keys."""

from __future__ import annotations

import getpass
import hashlib
import os
from pathlib import Path

import streamlit as st

from facviz.files import user_path
from facviz.pipeline.demo import install_demo
from facviz.views.palette import Mode

_WORKSPACE, _REVIEWER, _BLUR = "fv_workspace", "fv_reviewer", "fv_blur"
_NAMED = "fv_reviewer_given"


def workspace_root() -> Path:
    """The session's workspace: chosen in the sidebar, else FACVIZ_WORKSPACE, else the demo."""
    chosen = st.session_state.get(_WORKSPACE)
    return Path(chosen) if chosen else first_workspace()


def first_workspace() -> Path:
    """Where the dashboard was started; the demo is installed when nothing else was named."""
    named = os.environ.get("FACVIZ_WORKSPACE")
    return user_path(named) if named else install_demo()


def choose_workspace(root: Path) -> None:
    """Show another workspace from the next rerun on; what the address says of the old one goes."""
    st.session_state[_WORKSPACE] = str(root)
    st.query_params.clear()


def mode() -> Mode:
    """Whether the browser shows the light or the dark theme."""
    return "dark" if st.context.theme.type == "dark" else "light"


def reviewer() -> str:
    """Whose name decisions carry: as logged in, as typed, as this browser remembers it, else the login name.

    "" where a log-in is configured and nobody logged in: such a decision is refused.
    """
    logged_in = logged_in_name()
    return logged_in if logged_in is not None else given_name() or login_name()


def logged_in_name() -> str | None:
    """Who logged in with `st.login`, "" for nobody yet; None where no log-in is configured."""
    is_logged_in = st.user.get("is_logged_in")
    if is_logged_in is None:
        return None
    if not is_logged_in:
        return ""
    known = (st.user.get(name) for name in ("email", "name", "preferred_username", "sub"))
    return next((str(name)[:60] for name in known if name), "")


def given_name() -> str:
    """The name that this reader gave, or this browser remembers; "" for none."""
    typed = str(st.session_state.get(_REVIEWER) or "").strip()
    return typed if typed != login_name() or st.session_state.get(_NAMED) else ""


def must_ask_name() -> bool:
    """Whether nobody logged in and no name was given yet."""
    return logged_in_name() is None and not given_name()


def set_reviewer(name: str) -> None:
    """Take a given name, from a callback; an empty one keeps the login name."""
    st.session_state[_NAMED] = True
    st.session_state[_REVIEWER] = name.strip()[:60] or login_name()


def key_of(text: str) -> str:
    """A short widget key for any text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def login_name() -> str:
    """The name of whoever started the dashboard."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no entry for this user, as in some containers
        return "reviewer"


def is_blurred() -> bool:
    """Whether this reader asked for texts to be blurred until pointed at."""
    return bool(st.session_state.get(_BLUR, False))


def reviewer_key() -> str:
    """Widget key of the reviewer's name."""
    return _REVIEWER


def blur_key() -> str:
    """Widget key of the blur switch."""
    return _BLUR


def query_int(name: str) -> int | None:
    """A whole number from the address; None when it is absent or no number."""
    raw = st.query_params.get(name, "")
    return int(raw) if raw.isdigit() and len(raw) < 10 else None


def query_text(name: str, n: int = 200) -> str:
    """A text from the address, "" when absent, at most `n` characters."""
    return str(st.query_params.get(name, ""))[:n]


def query_ids(name: str) -> list[int]:
    """Up to 500 feature ids from the address, written `12,40`; what is no id is passed over."""
    parts = str(st.query_params.get(name, ""))[:8000].split(",")
    return [int(part) for part in parts if part.isdigit() and len(part) < 10][:500]


def set_query(**values: object) -> None:
    """Write values into the address; None removes one."""
    for name, value in values.items():
        if value is None:
            st.query_params.pop(name, None)
        elif st.query_params.get(name) != str(value):
            st.query_params[name] = str(value)
