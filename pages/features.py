"""The features page: all features of an SAE in one table, chosen by a search, a text, the map or two data sets."""

from facviz.ui import state
from facviz.ui.components.explain_forms import explain_entry
from facviz.ui.components.feature_bulk import show_done
from facviz.ui.components.feature_lenses import choose_lens, show_lens
from facviz.ui.components.feature_search import asked
from facviz.ui.components.features import choose_table, show_table, show_totals
from facviz.ui.frame import empty, page
from facviz.views.feature_map import cluster_names
from facviz.views.features import read_totals
from facviz.views.scope import look

with page("features") as here:
    looked = look(
        here.database,
        here.database.workspace.manifest,
        sae=state.query_text("sae"),
        dataset=state.query_text("dataset"),
        task=state.query_text("task"),
    )
    if looked is None:
        why = "No SAE has read a data set yet; the SAE page trains or loads one and lets it read."
        empty("Every feature, with what it responds to", why, page="sae", button="Get an SAE")
    else:
        now = asked(looked.tasks)
        show_totals(read_totals(here.database, looked), looked)
        explain_entry(here, looked, "features")
        choose_table(looked)
        choose_lens(here, now)
        lens = show_lens(here, looked, now)
        if lens is not None:
            show_done(here)
            show_table(here, looked, now, lens, cluster_names(here.database, looked.sae_id))
