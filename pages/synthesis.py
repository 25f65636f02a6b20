"""The synthesis page."""

from facviz.ui.frame import page

with page("synthesis") as here:
    pass
