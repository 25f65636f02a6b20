"""A finished planted loop on disk: models, corpus and configuration whose every number a person can check on paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from facviz.backbone.quiet import quiet
from facviz.config import load_run_config
from facviz.pipeline.run import run_loop
from facviz.pipeline.session import Session
from facviz.store.workspace import Workspace
from facviz.testing.fakes import SilentProgress
from facviz.testing.planted import WORDS, save_planted

COMPANIONS, NEUTRALS, MARKED = WORDS[:4], WORDS[4:12], WORDS[12:]
N_PER_LABEL = 48
N_SEED = 40

CONFIG = f"""\
task = "toxicity"

[backbone]
name = "models/backbone"
layer = 1
dtype = "bfloat16"

[[datasets]]
name = "anchor"
path = "anchor.jsonl"
role = "anchor"
roles = ["user"]

[[datasets]]
name = "seed"
role = "seed"
roles = ["user"]
[datasets.sample]
of = "anchor"
n = {N_SEED}
label = "0"

[capture]
dataset = "anchor"

[sae]
path = "models/sae"

[spans]
per_split = 3
shard_docs = 40

[explain]
embedding_score = false

[relevance]
n_permutations = 2000

[coverage]
anchor = "anchor"
seed = "seed"
kind = "absolute"
threshold = 0.5
n_bootstrap = 200

[synthesis]
pair_candidates = 8
max_candidates = 48
batch = 4
max_tokens = 8
temperature = 1.0
top_p = 1.0
embedding_gate = false
"""


def anchor_rows() -> list[dict[str, Any]]:
    """The anchor corpus as rows of its file: two documents at a time, label 1 before label 0, eight words each."""
    rows = []
    for j in range(N_PER_LABEL):
        positive = [MARKED[j % 12], MARKED[(j + 5) % 12]]
        positive += [word for i, word in enumerate(COMPANIONS) if i != j % 4]
        positive += [NEUTRALS[(j + i) % 8] for i in range(3)]
        negative = [COMPANIONS[j % 4], *(word for i, word in enumerate(NEUTRALS) if i != j % 8)]
        for label, words in (1, positive), (0, negative):
            turn = j // 8
            rows.append({"text": " ".join(words[turn:] + words[:turn]), "label": label})
    return rows


def make_planted_run(folder: Path) -> Path:
    """Write the planted backbone and SAE, the anchor corpus and the configuration of a whole loop; the TOML's path.

    The corpus has 96 documents of eight words, 48 of each label, so length explains nothing. With feature i on word i:

    | words | features | label 1 with it | label 0 with it | AUROC | relevant | in the seed set |
    |---|---|---|---|---|---|---|
    | companions | 0-3, and 24, the twin of 0 | 36 of 48 | 12 of 48 | .5 + (36 - 12) / 96 = .75 | yes | yes |
    | neutrals | 4-11 | 18 of 48 | 42 of 48 | .5 + (18 - 42) / 96 = .25 | no | yes |
    | marked | 12-23 | 8 of 48 | 0 of 48 | .5 + 8 / 96 = .5833 | yes | no |

    The seed set is 40 of the 48 documents with label 0: the eight left out cannot take the last of any word's twelve or
    42 documents, whichever they are. Feature i fires at 2 + i mod 4 (the twin at 1), so with an absolute δ

    | δ | relevant and in the anchor set | missing | FAC |
    |---|---|---|---|
    | 0.5 (configured) | 17 | 12-23 | 5 / 17 = .2941 |
    | 1.0 (the twin's activation is not above it) | 16 | 12-23 | 4 / 16 = .25 |
    | 2.0 (nor are strengths of 2) | 12 | 12-23 without 12, 16, 20 | 3 / 12 = .25 |
    | 4.0 (only strengths of 5) | 4 | 15, 19, 23: saturated | 1 / 4 = .25 |

    A feature stands on 48 or 60 of 768 words, or 16: none is always-on. A span is a whole document, its peak on token
    2 + the word's place (the template's two tokens come first), and ties keep file order.
    """
    with quiet():
        save_planted(folder / "models")
    lines = [json.dumps(row) + "\n" for row in anchor_rows()]
    (folder / "anchor.jsonl").write_text("".join(lines), encoding="utf-8")
    config = folder / "planted.toml"
    config.write_text(CONFIG, encoding="utf-8")
    return config


def make_workspace(folder: Path) -> Workspace:
    """The workspace of a finished planted loop, run in this process; its inputs stand beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = load_run_config(make_planted_run(folder))
    workspace = Workspace.create(folder / "workspace")
    with workspace.lock():
        run_loop(Session(workspace, config.backbone, SilentProgress()), config)
    return workspace
