"""Names and values side by side, as a quiet escaped list."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from facviz.views.format import visible

_GRID = "display:grid;grid-template-columns:minmax(7rem,2fr) 5fr;gap:4px 16px;font-size:.9rem"
_VALUE = "overflow-wrap:anywhere;font-variant-numeric:tabular-nums"


def facts_html(facts: Iterable[tuple[str, str]]) -> str:
    """A definition list in two columns; both sides may come from data."""
    rows = (
        f'<span class="fv-quiet">{escape(visible(name))}</span><span dir="auto" style="{_VALUE}">'
        f"{escape(visible(value))}</span>"
        for name, value in facts
    )
    return f'<div style="{_GRID}">{"".join(rows)}</div>'
