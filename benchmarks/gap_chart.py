"""The known-gaps chart for the docs, as one SVG that follows the reader's light or dark."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_LEFT, _RIGHT, _ROW, _TOP, _WIDTH = 190, 40, 34, 64, 760

_STYLE = """
text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:#1D2329}
.quiet{fill:#5B6470}.grid{stroke:#E4E1DA}.bar{stroke:#1D2329;stroke-dasharray:3 3}
.ours{fill:#D97706}.band{stroke:#D97706;stroke-opacity:.3}.strict{fill:none;stroke:#D97706}
.random{fill:none;stroke:#64748B}
@media (prefers-color-scheme:dark){text{fill:#E8E6E1}.quiet{fill:#A3ABB5}.grid{stroke:#2C333B}.bar{stroke:#E8E6E1}
.ours{fill:#F59E0B}.band{stroke:#F59E0B}.strict{stroke:#F59E0B}.random{stroke:#94A3B8}}
"""


def gap_chart(record: Mapping[str, Any]) -> str:
    """Recall of the missing list for each choice of themes, with its range, beside the last rule and a random list."""
    choices = record["choices"]
    height = _TOP + _ROW * len(choices) + 48
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'aria-label="Recall of known gaps by the missing list">',
        f"<style>{_STYLE}</style>",
        *_key(list(choices[0]["rules"])),
    ]
    bottom = _TOP + _ROW * len(choices)
    for share in (0, 0.2, 0.4, 0.6, 0.8, 1):
        lines.append(f'<line class="grid" x1="{_x(share)}" x2="{_x(share)}" y1="{_TOP - 8}" y2="{bottom}"/>')
        lines.append(f'<text class="quiet" x="{_x(share)}" y="{bottom + 18}" text-anchor="middle">{share:g}</text>')
    bar = record["bar"]["recall"]
    lines.append(f'<line class="bar" x1="{_x(bar)}" x2="{_x(bar)}" y1="{_TOP - 8}" y2="{bottom}"/>')
    lines.append(f'<text class="quiet" x="{_x(0)}" y="{bottom + 38}">recall of the known gap; dashed: the bar</text>')
    for place, choice in enumerate(choices):
        lines += _row(choice, _TOP + _ROW * place + _ROW / 2)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _x(share: float) -> float:
    return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)


def _key(rules: list[str]) -> list[str]:
    entries = (
        (_LEFT, "ours", 5, rules[0]),
        (_LEFT + 130, "strict", 5, rules[-1]),
        (_LEFT + 390, "random", 4, "random list"),
    )
    lines = []
    for x, look, radius, words in entries:
        lines.append(f'<circle class="{look}" stroke-width="2" cx="{x + 6}" cy="24" r="{radius}"/>')
        lines.append(f'<text x="{x + 18}" y="28">{escape(words)}</text>')
    return lines


def _row(choice: Mapping[str, Any], y: float) -> list[str]:
    rules = list(choice["rules"].values())
    ours, last = rules[0], rules[-1]
    low, high = ours["recall_range"]
    return [
        f'<text x="{_LEFT - 14}" y="{y + 4}" text-anchor="end">{escape(choice["name"])}</text>',
        f'<line class="band" stroke-width="8" x1="{_x(low)}" x2="{_x(high)}" y1="{y}" y2="{y}"/>',
        f'<circle class="random" stroke-width="2" cx="{_x(ours["random_recall"])}" cy="{y}" r="4"/>',
        f'<circle class="strict" stroke-width="2" cx="{_x(last["recall"])}" cy="{y}" r="5"/>',
        f'<circle class="ours" cx="{_x(ours["recall"])}" cy="{y}" r="5"/>',
    ]
