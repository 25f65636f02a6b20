"""The features page: every feature of an SAE in one table, searched, filtered and sorted where it lies."""

from dataclasses import replace

from facviz.ui import state
from facviz.ui.components.explain_forms import explain_entry
from facviz.ui.components.features import asked, by_meaning, choose_table, search_bar, show_table, show_totals
from facviz.ui.frame import empty, page
from facviz.views.features import read_features, read_totals
from facviz.views.lists import read_lists
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
        now = asked()
        show_totals(read_totals(here.database, looked), looked)
        explain_entry(here, looked, "features")
        choose_table(looked)
        search_bar(now, read_lists(here.database, looked.sae_id))
        is_by_meaning = now.kind == "meaning" and bool(now.words)
        near = by_meaning(here, looked, now.words) if is_by_meaning else None
        if near is not None or not is_by_meaning:
            chosen = replace(now.chosen, closeness=near)
            view = read_features(here.database, looked, chosen, sort=now.sort, descending=now.descending, page=now.page)
            show_table(view, now, looked, here)
