"""Jobs: what runs, what came of what ran, and what can be done about it."""

from facviz.jobs import list_jobs
from facviz.ui.components.job_list import ended, metrics, running
from facviz.ui.frame import empty, page

with page("jobs") as here:
    jobs = list_jobs(here.root)
    if jobs:
        metrics(jobs)
        running(here.root, jobs)
        ended(here.root, jobs)
    else:
        empty(
            "Nothing has run yet",
            "Stages started in the dashboard appear here with their pace, log and result, and outlive the browser.",
            page="overview",
            button="See what comes next",
        )
