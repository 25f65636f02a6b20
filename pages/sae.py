"""SAE: how well the autoencoder reads the model, how its training goes, and getting another."""

from facviz.jobs import list_jobs
from facviz.ui.components.jobs import watch
from facviz.ui.components.sae import (
    chosen_sae,
    detail,
    live_curves,
    measure,
    measured_by_jobs,
    metrics,
    next_step,
    table,
    training_job,
)
from facviz.ui.components.sae_forms import forms
from facviz.ui.frame import empty, page
from facviz.views.sae import list_encodings, list_saes

with page("sae") as here:
    jobs = list_jobs(here.root)
    saes = list_saes(here.database, measured_by_jobs(jobs))
    datasets = [row["name"] for row in here.database.rows("datasets")]
    chosen = chosen_sae(saes) if saes else None
    encodings = list_encodings(here.database, chosen.sae_id) if chosen else []
    if chosen:
        metrics(chosen, encodings)
    else:
        empty(
            "No SAE yet",
            "This page shows how well a sparse autoencoder explains the model's activations; train or load one below.",
        )
    is_busy = watch(here.root, "sae")
    if training := training_job(jobs):
        live_curves(here.root, training.created_at)
    if chosen:
        table(saes, chosen)
        next_step(here, chosen, encodings, datasets, is_busy)
        measure(here, chosen, datasets, is_busy)
        detail(here, chosen, encodings)
    forms(here, datasets, jobs, is_busy=is_busy, is_first=not saes)
