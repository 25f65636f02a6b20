"""The review page."""

from facviz.ui.frame import page

with page("review") as here:
    pass
