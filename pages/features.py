"""The features page."""

from facviz.ui.frame import page

with page("features") as here:
    pass
