"""The feature page."""

from facviz.ui.frame import page

with page("feature") as here:
    pass
