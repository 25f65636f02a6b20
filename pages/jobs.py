"""The jobs page."""

from facviz.ui.frame import page

with page("jobs") as here:
    pass
