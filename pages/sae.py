"""SAE: how well the autoencoder reads the model, how its training goes, and getting another."""

from facviz.jobs import list_jobs
from facviz.ui.components.jobs import watch
from facviz.ui.components.sae import (
    chosen_sae,
    detail,
    live_curves,
    metrics,
    next_step,
    table,
    training_job,
)
from facviz.ui.components.sae_actions import actions
from facviz.ui.components.sae_compare import comparison
from facviz.ui.components.sae_forms import forms
from facviz.ui.components.sae_health import health
from facviz.ui.frame import empty, page
from facviz.views.sae import list_encodings, list_saes
from facviz.views.sae_quality import list_evaluations, measured

with page("sae") as here:
    jobs = list_jobs(here.root)
    evaluations = list_evaluations(here.database)
    saes = list_saes(here.database, measured(evaluations))
    datasets = [row["name"] for row in here.database.rows("datasets")]
    chosen = chosen_sae(saes) if saes else None
    encodings = list_encodings(here.database, chosen.sae_id) if chosen else []
    if chosen:
        metrics(chosen, encodings)
        health(here, chosen, evaluations.get(chosen.sae_id, ()), jobs)
    else:
        empty(
            "No SAE yet",
            "This page shows how well a sparse autoencoder explains the model's activations; train or load one below.",
        )
    is_busy = watch(here.root, "sae")
    if training := training_job(jobs):
        live_curves(here.root, training.created_at)
    if chosen:
        table(saes, chosen, evaluations)
        next_step(here, chosen, encodings, datasets, is_busy)
        actions(here, chosen, datasets, is_busy=is_busy)
        detail(here, chosen, encodings, evaluations.get(chosen.sae_id, ()))
        comparison(here, saes, chosen, evaluations, jobs, is_busy=is_busy)
    forms(here, datasets, jobs, saes, is_busy=is_busy)
