"""Data: which texts are compared, one of the sets in detail, and adding another."""

from facviz.ui.components.data import detail, metrics, table
from facviz.ui.components.data_import import import_form
from facviz.ui.components.jobs import watch
from facviz.ui.frame import empty, page
from facviz.views.data import list_datasets

with page("data") as here:
    datasets = list_datasets(here.database)
    chosen = None
    if datasets.rows:
        metrics(datasets)
        chosen = table(datasets)
    else:
        empty(
            "No data set yet",
            "Add two below: an anchor set that stands for the whole task, and the seed set whose gaps you want to see.",
        )
    is_busy = watch(here.root, "data")
    import_form(here, [row.name for row in datasets.rows], is_busy=is_busy)
    if chosen is not None:
        detail(here, chosen)
