"""What every desk has above its work: previous and next, undo and redo of any depth, and the help, each by a key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st


@dataclass(frozen=True, slots=True)
class Strip:
    """The buttons of one desk; their widget keys begin with `prefix`."""

    prefix: str
    undo: Callable[[], None]
    redo: Callable[[], None]
    show_help: Callable[[], None]
    help_key: str
    help_words: str

    def show_moves(self, before: Callable[[], None] | None, after: Callable[[], None] | None) -> None:
        """Previous and next; None where there is nothing that way."""
        self._icon(":material/chevron_left:", "left", "Left", "Previous", before)
        self._icon(":material/chevron_right:", "right", "Right", "Next", after)

    def show_taking_back(self) -> None:
        """Undo, redo and help: also where nothing is left to decide on."""
        self._icon(":material/undo:", "undo", "U", "Take back your last decision, to any depth.", self.undo)
        self._icon(":material/redo:", "redo", "Y", "Bring back what your last undo took back.", self.redo)
        if st.button("", icon=":material/keyboard:", key=self.help_key, shortcut="H", help=self.help_words):
            self.show_help()

    def _icon(self, icon: str, name: str, shortcut: str, words: str, action: Callable[[], None] | None) -> None:
        st.button(
            "",
            icon=icon,
            key=f"{self.prefix}_{name}",
            shortcut=shortcut,
            help=words,
            disabled=action is None,
            on_click=action,
        )
