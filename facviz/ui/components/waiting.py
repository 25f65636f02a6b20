"""Results of background work: shown when they are there, never waited for."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import streamlit as st


def ready(words: str, *futures: Future[Any]) -> list[Any] | None:
    """The results once all are there; until then None, and `words` with the page drawn again when they are.

    Raises:
        FacvizError: the work failed.
    """
    if all(future.done() for future in futures):
        return [future.result() for future in futures]
    _watch(words, futures)
    return None


@st.fragment(run_every=0.3)
def _watch(words: str, futures: Sequence[Future[Any]]) -> None:
    if all(future.done() for future in futures):
        st.rerun()
    st.caption(f":material/hourglass_top: {words}")
