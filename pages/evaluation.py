"""The evaluation page: does training on the new texts help, how sure is that, and what does it follow from?"""

from facviz.ui.components import evaluation as parts
from facviz.ui.components.jobs import watch
from facviz.ui.frame import empty, page
from facviz.views.coverage import coverage_runs
from facviz.views.evaluation import evaluation_choices, list_evaluations, read_evaluation

with page("evaluation") as here:
    manifest = here.database.workspace.manifest
    evaluations = list_evaluations(manifest)
    choices = evaluation_choices(here.database, coverage_runs(here.database, list(manifest.latest_done("coverage"))))
    result = read_evaluation(parts.choose(evaluations)) if evaluations else None
    if result is not None:
        parts.show_answer(result, here)
    elif choices.runs and len(choices.datasets) > 1:
        empty(
            "Nothing measured yet",
            "This page shows whether a head on the frozen model gets better with the new texts, or with real ones.",
        )
    elif choices.runs:
        empty(
            "No labels to test on",
            "The comparison needs labelled texts: a seed set and real texts or a test set, each with a label field.",
            page="data",
            button="Add labelled texts",
        )
    else:
        empty(
            "Nothing to evaluate yet",
            "The comparison needs verified samples for the missing features of a coverage measurement.",
            page="synthesis",
            button="Write texts first",
        )
    is_busy = watch(here.root, "evaluation")
    if choices.runs and len(choices.datasets) > 1 and not is_busy:
        parts.start_form(here, choices, is_first=result is None)
    if result is not None:
        parts.show_words(result)
        parts.show_details(result, here)
        parts.show_inputs(result)
