"""A text as a strip of tokens that can be chosen: heat under each, a tip on pointing, arrow keys from one to the next.

The script only ever sets `textContent`, `title` and colours that this module computed, so no text can become markup.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from facviz.views.heat import cell_colours
from facviz.views.palette import Mode, palette
from facviz.views.tried import TriedToken

_HTML = '<div class="strip" role="listbox" aria-label="Tokens of the text" lang="" dir="auto"></div>'
_CSS = """
.strip{font:14px/1.9 ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;
white-space:pre-wrap;overflow-wrap:anywhere;max-height:15rem;overflow-y:auto;padding:4px 2px}
.strip.blur:not(:hover):not(:focus-within){filter:blur(7px)}
button{all:unset;cursor:pointer;border-radius:3px;padding:2px 0;white-space:pre-wrap}
button:hover,button:focus-visible{outline:1.5px solid var(--mark)}
button[aria-selected=true]{outline:2px solid var(--mark);font-weight:700}
"""
_JS = """
export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const strip = parentElement.querySelector(".strip");
  const focused = parentElement.activeElement ? parentElement.activeElement.dataset.place : undefined;
  strip.style.setProperty("--mark", data.mark);
  strip.style.color = data.ink;
  strip.classList.toggle("blur", data.blurred);
  strip.replaceChildren();
  const buttons = data.tokens.map((token, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = token.text;
    button.title = token.tip;
    button.dataset.place = String(place);
    button.setAttribute("role", "option");
    button.setAttribute("aria-selected", String(place === data.chosen));
    button.tabIndex = place === (data.chosen ?? 0) ? 0 : -1;
    if (token.ground) {
      button.style.background = token.ground;
      button.style.color = token.ink;
    }
    button.onclick = () => setTriggerValue("chosen", place);
    button.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const next = step && buttons[place + step];
      if (next) {
        event.preventDefault();
        event.stopPropagation();
        button.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      }
    };
    strip.append(button);
    if (token.ends_line) strip.append("\\n");
    return button;
  });
  if (focused !== undefined && buttons[Number(focused)]) buttons[Number(focused)].focus();
}
"""

_strip = st.components.v2.component("facviz_token_strip", html=_HTML, css=_CSS, js=_JS)


def token_strip(
    tokens: Sequence[TriedToken],
    *,
    chosen: int | None,
    mode: Mode,
    blurred: bool,
    key: str,
    on_choose: Callable[[int], None],
) -> None:
    """Draw the tokens; `on_choose` gets the place of one that was clicked, before the page is drawn again."""
    colours = palette(mode)
    data = {
        "tokens": [_cell(token, mode) for token in tokens],
        "chosen": chosen,
        "mark": colours.ink,
        "ink": colours.ink,
        "blurred": blurred,
    }

    def clicked() -> None:
        place = st.session_state[key]["chosen"]
        if isinstance(place, int) and 0 <= place < len(tokens):
            on_choose(place)

    _strip(key=key, data=data, on_chosen_change=clicked)


def _cell(token: TriedToken, mode: Mode) -> dict[str, object]:
    cell: dict[str, object] = {"text": token.text, "tip": token.tip, "ends_line": token.ends_line}
    opacity = 0.85 * token.heat
    if opacity:
        cell["ground"], cell["ink"] = cell_colours(opacity, mode)
    return cell
