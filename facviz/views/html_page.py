"""An HTML file that needs nothing else: no script, font, picture or network; light or dark as the reader has it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from facviz.views.format import visible
from facviz.views.heat import heat_style
from facviz.views.palette import Mode, palette

MODES: tuple[Mode, ...] = ("light", "dark")

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_CSS = """
body{margin:0 auto;max-width:60rem;padding:1.5rem;font:16px/1.5 system-ui,sans-serif;background:var(--paper);
color:var(--ink);overflow-wrap:anywhere}
h1,h2,h3{line-height:1.25}h2{margin:0 0 .25rem}h3{font-size:1rem;margin:1rem 0 0}
section{border-top:1px solid var(--hairline);padding:1.5rem 0}
p{margin:.25rem 0}.by,footer{color:var(--muted);font-size:.875rem}a{color:var(--accent)}
table{border-collapse:collapse;margin:.75rem 0;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.2rem .9rem .2rem 0;border-bottom:1px solid var(--hairline);font-weight:400}
th{color:var(--muted);font-size:.875rem}
.dark{display:none}
@media (prefers-color-scheme:dark){.light{display:none}.dark{display:block}}
"""


def html_page(title: str, body: str) -> str:
    """The whole file; `body` is HTML whose texts passed `html_text`."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{html_text(title)}</title>{_styles()}</head><body><h1>{html_text(title)}</h1>{body}</body></html>\n"
    )


def html_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table whose cells are plain values, escaped here."""
    head = "".join(f'<th scope="col">{html_text(name)}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{html_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _styles() -> str:
    """The page's style, then that of heat in light and, for who asks for it, in dark."""
    light, dark = (heat_style(mode) for mode in MODES)
    colours = {mode: ";".join(f"--{n}:{getattr(palette(mode), n)}" for n in _COLOURS) for mode in MODES}
    variables = f":root{{{colours['light']}}}@media (prefers-color-scheme:dark){{:root{{{colours['dark']}}}}}"
    return f"<style>{variables}{_CSS}</style>{light}" + dark.replace(
        "<style>", '<style media="(prefers-color-scheme:dark)">', 1
    )


_COLOURS = ("paper", "ink", "muted", "hairline", "accent")


def html_text(value: object) -> str:
    """A value as text of the page: no tag, no control character."""
    return escape(visible("" if value is None else str(value)))
