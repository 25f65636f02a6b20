"""The few style rules Streamlit's theme cannot express; colours come from the palette."""

from __future__ import annotations

from facviz.views.palette import Mode, ink_on, palette

_CSS = """
.block-container{{max-width:1240px}}
@media (max-width:1150px){{.block-container{{padding-left:1.6rem;padding-right:1.6rem}}}}
.fv-wide .block-container{{max-width:none}}
[data-testid="stMetric"]{{border-left:2px solid {hairline};padding-left:14px}}
[data-testid="stMetricLabel"] p{{color:{muted};font-size:.85rem}}
[data-testid="stMetricValue"]{{font-variant-numeric:tabular-nums;font-weight:600}}
.st-key-fv_failure{{border-left:3px solid {missing}}}
.fv-big{{font-size:3.4rem;line-height:1.05;font-weight:650;font-variant-numeric:tabular-nums;color:{ink}}}
.fv-big small{{font-size:1.1rem;font-weight:400;color:{muted};margin-left:.5rem;white-space:nowrap}}
.fv-say{{font-size:1.15rem;line-height:1.5;color:{ink};max-width:62ch}}
.fv-explanation{{font-size:1.5rem;line-height:1.35;font-weight:600;color:{ink};overflow-wrap:anywhere}}
.fv-quiet{{color:{muted};font-size:.85rem}}
[data-testid="stBaseButton-primary"],[data-testid="stBaseButton-primaryFormSubmit"],[data-tag]{{color:{on_accent}}}
.fv-facts td{{padding:.15rem 1rem .15rem 0;vertical-align:top;font-size:.9rem;font-variant-numeric:tabular-nums}}
.fv-here td{{font-weight:600}}
.fv-table{{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}}
.fv-table th,.fv-table td{{text-align:left;padding:.35rem .9rem .35rem 0;border-bottom:1px solid {hairline};
vertical-align:top}}
.fv-table th{{color:{muted};font-weight:400}}
.fv-missing{{color:{missing}}} .fv-filled{{color:{filled}}} .fv-covered{{color:{covered}}}
.fv-gates{{display:grid;grid-template-columns:max-content max-content 1fr;gap:4px 10px;font-size:.85rem;
line-height:1.45}}
.fv-gates b{{font-weight:600}} .fv-gates>span,.fv-origin>span{{overflow-wrap:anywhere}}
.fv-origin{{display:grid;grid-template-columns:max-content 1fr;gap:4px 14px;font-size:.85rem;line-height:1.45}}
.fv-bar-row{{display:flex;gap:10px;align-items:center;font-variant-numeric:tabular-nums;white-space:nowrap}}
.fv-track{{position:relative;width:96px;height:8px;border-radius:4px;background:{hairline};flex:none}}
.fv-track>div{{height:8px;border-radius:4px}} .fv-near{{background:{missing}}} .fv-near-over{{background:{filled}}}
.fv-track>i{{position:absolute;left:66.7%;top:-3px;height:14px;border-left:2px solid {ink}}}
.fv-under{{padding-left:24px}} .fv-under>*{{white-space:nowrap}}
.fv-sides{{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:16px}}
.fv-side{{border-left:2px solid {hairline};padding-left:12px}}
"""


def page_style(mode: Mode) -> str:
    """One `<style>` block for the whole app; its classes all begin with `fv-`."""
    colours = palette(mode)
    css = _CSS.format(
        hairline=colours.hairline,
        muted=colours.muted,
        ink=colours.ink,
        on_accent=ink_on(colours.accent),
        missing=colours.missing,
        filled=colours.filled,
        covered=colours.covered,
    )
    return f"<style>{css}</style>"


WIDE = "<style>.block-container{max-width:1480px;padding-left:2.5rem;padding-right:2.5rem}</style>"
"""For pages whose table or evidence needs the room."""
