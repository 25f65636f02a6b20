"""The sae page."""

from facviz.ui.frame import page

with page("sae") as here:
    pass
