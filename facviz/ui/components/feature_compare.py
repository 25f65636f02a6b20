"""Compare two data sets on the features page: choose them, and the table shows what tells their texts apart."""

from __future__ import annotations

import streamlit as st

from facviz.errors import FacvizError
from facviz.ui import resources
from facviz.ui.components.address import follow, plain_markdown
from facviz.ui.components.feature_search import FIRST_PAGE, Asked
from facviz.ui.components.waiting import ready
from facviz.ui.frame import Here
from facviz.ui.state import query_text
from facviz.views.comparison import Compared, choices_of
from facviz.views.features import Lens
from facviz.views.format import short
from facviz.views.scope import Looked

_HELP = (
    "AUROC among texts of about equal length: the chance that a text of the first set activates it more than one of "
    "the second. 0.5 is no difference, 1 always the first, 0 always the second."
)


def compare_lens(here: Here, looked: Looked, now: Asked) -> Lens | None:
    """Features that separate two data sets; None while they are compared or when they cannot be."""
    del now
    try:
        first, second = choices_of(looked.datasets, query_text("first"), query_text("second"))
    except FacvizError as error:
        st.info(str(error), icon=":material/compare_arrows:")
        return None
    labels = {d.name: d.label for d in looked.datasets}
    left, right = st.columns(2)
    for place, param, label, chosen in ((left, "first", "First", first), (right, "second", "Second", second)):
        taken = second.name if param == "first" and len(labels) > 2 else first.name if param == "second" else ""
        with place:
            st.selectbox(
                label,
                [name for name in labels if name != taken],
                format_func=labels.__getitem__,
                **follow(f"fv_features_{param}", param, chosen.name, resets=FIRST_PAGE),
            )
    waiting = "Comparing the two data sets; the table appears by itself."
    try:
        found = ready(waiting, resources.comparison(here.database, looked.sae_id, first, second))
    except FacvizError as error:
        st.error(str(error))
        return None
    if found is None:
        return None
    compared: Compared = found[0]
    st.markdown(f"{plain_markdown(compared.summary)}.")
    st.caption(plain_markdown(compared.basis))
    headings = {"match": "AUROC", "share_a": f"In {short(first.name, 14)}", "share_b": f"In {short(second.name, 14)}"}
    return Lens(compared.found, compared.words, compared.aside, headings, _HELP, shows_all=True)
