"""The dashboard: the one place that lists its pages. Start it with `make run` or `facviz app`."""

import streamlit as st

from facviz.ui.frame import PageInfo, run

PAGES = {
    "Start": [
        PageInfo(
            "overview", "Overview", "What does this data set miss, and what was done about it?", ":material/home:"
        ),
        PageInfo("data", "Data", "Which texts are compared?", ":material/description:"),
    ],
    "Understand": [
        PageInfo("sae", "SAE", "How well does the sparse autoencoder read the model?", ":material/hub:"),
        PageInfo("features", "Features", "What does the model notice in these texts?", ":material/table_rows:"),
        PageInfo("feature", "Feature", "What does this feature respond to?", ":material/search:", hidden=True),
        PageInfo("review", "Review", "Do the explanations say what the features do?", ":material/rate_review:"),
    ],
    "Close the gap": [
        PageInfo("coverage", "Coverage", "Which features does the seed set miss?", ":material/join_inner:"),
        PageInfo("synthesis", "Synthesis", "Which new texts close the gap?", ":material/edit_note:"),
        PageInfo("evaluation", "Evaluation", "Do the new texts help a model?", ":material/model_training:"),
    ],
    "Operate": [
        PageInfo("jobs", "Jobs", "What is running, and what came of it?", ":material/play_circle:"),
    ],
}

st.set_page_config(page_title="facviz", page_icon=":material/hub:", layout="wide")
run(PAGES)
