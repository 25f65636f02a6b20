"""A workspace of any number of features that were never computed: made-up words and documents, written as stages write.

Nothing in it needs a model, so commands that only ask language models can be tested at the size people run them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from facviz.records import Document, split_of
from facviz.store.manifest import Scope
from facviz.store.schema import MODE, rows_to_arrow
from facviz.store.workspace import Workspace

SAE_ID, DATASET, DATASET_ID = "5ae000000000", "words", "da7a00000000"
PER_FEATURE = 10
BACKBONE = {"name": "none", "layer": 1, "site": "resid", "max_tokens": 64}


def make_many_features(root: Path, n_features: int) -> Workspace:
    """Feature f fires on the word `theme<f>` in ten documents of its own, of which some stand in either half."""
    workspace = Workspace.create(root)
    numbers = range(n_features * PER_FEATURE)
    texts = [[" some", f" words{n}", f" theme{n // PER_FEATURE}", " and", " after"] for n in numbers]
    documents = [Document.from_text("".join(tokens)) for tokens in texts]
    keys = {"sae_id": SAE_ID, "dataset_id": DATASET_ID}
    dataset = {"dataset_id": DATASET_ID, "name": DATASET, "role": "anchor", "roles": ["user"], "n_docs": len(texts)}
    described = [
        {"dataset_id": DATASET_ID, "doc_no": n, "doc_id": d.doc_id, "text": d.text, "n_content_tokens": len(texts[n])}
        for n, d in enumerate(documents)
    ]
    _write(workspace, "data", DATASET, {"dataset": [dataset], "document": described})
    provenance = json.dumps({"backbone": BACKBONE})
    sae = {"sae_id": SAE_ID, "backbone": "none", "layer": 1, "architecture": "topk", "d_in": 8, "d_sae": n_features}
    _write(workspace, "sae", SAE_ID, {
        "sae": [sae | {"k": 1, "metrics": "{}", "provenance": provenance}],
        "feature": [
            {"sae_id": SAE_ID, "feature_id": f, "top_tokens": [], "top_logits": [], "logit_mean": 0.0, "logit_std": 1.0,
             "neighbours": [(f + i) % n_features for i in (1, 2, 3)], "neighbour_cosines": [0.3, 0.2, 0.1]}
            for f in range(n_features)
        ],
    })  # fmt: skip
    _write(workspace, "spans", f"{SAE_ID}/{DATASET_ID}/{MODE}", {
        "span": [_span(n, texts[n], documents[n]) | keys for n in range(len(texts))],
        "doc_activation": [
            {"mode": MODE, "feature_id": n // PER_FEATURE, "doc_no": n, "max_act": _act(n), "peak_token": 2} | keys
            for n in range(len(texts))
        ],
        "feature_stats": [
            {"mode": MODE, "feature_id": f, "density": 0.01, "n_docs": PER_FEATURE, "max_act": 1.0, "p95_act": 1.0,
             "is_dead": False, "is_always_on": False} | keys
            for f in range(n_features)
        ],
    })  # fmt: skip
    return workspace


def _act(n: int) -> float:
    return (n % PER_FEATURE + 1) / PER_FEATURE


def _span(n: int, tokens: list[str], document: Document) -> dict[str, Any]:
    acts = [_act(n) if i == 2 else 0.0 for i in range(len(tokens))]
    place = {"doc_no": n, "start_token": 0, "end_token": len(tokens), "start_char": 0, "end_char": len(document.text)}
    named = {"feature_id": n // PER_FEATURE, "rank": n % PER_FEATURE, "split": str(split_of(document.doc_id))}
    return named | place | {"quantile": 1.0, "peak_token": 2, "act": _act(n), "tokens": tokens, "acts": acts}


def _write(workspace: Workspace, stage: str, subject: str, tables: dict[str, list[dict[str, Any]]]) -> None:
    scope = Scope(stage, subject, "0" * 16)
    for table, rows in tables.items():
        workspace.manifest.write_shard(scope, table, "0", rows_to_arrow(table, rows))
    workspace.manifest.mark_done(scope, {})
