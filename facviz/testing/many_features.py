"""A workspace of any number of features that were never computed: made-up words and documents, written as stages write.

Nothing in it needs a model, so commands that only ask language models can be tested at the size people run them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from facviz.records import Document, Encoded, split_of
from facviz.store.manifest import Scope
from facviz.store.schema import MODE, rows_to_arrow
from facviz.store.workspace import Workspace

SAE_ID, DATASET, DATASET_ID = "5ae000000000", "words", "da7a00000000"
SEED, SEED_ID = "few", "5eed00000000"
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
        {"dataset_id": DATASET_ID, "doc_no": n, "doc_id": d.doc_id, "text": d.text, "n_content_tokens": len(texts[n]),
         "messages": [{"role": "user", "content": d.text}]}
        for n, d in enumerate(documents)
    ]  # fmt: skip
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


def make_gap(root: Path, n_features: int, n_covered: int, *, task: str = "toxicity") -> Workspace:
    """The same with a seed set that holds the first `n_covered` features alone; all matter to the task by label.

    At an absolute δ of 0.5 the others are missing.
    """
    workspace = make_many_features(root, n_features)
    texts = [f"seed words{f} theme{f} again" for f in range(n_covered)]
    keys = {"sae_id": SAE_ID, "dataset_id": SEED_ID, "mode": MODE}
    _write(workspace, "data", SEED, {
        "dataset": [{"dataset_id": SEED_ID, "name": SEED, "role": "seed", "roles": ["user"], "n_docs": n_covered}],
        "document": [
            {"dataset_id": SEED_ID, "doc_no": f, "doc_id": Document.from_text(text).doc_id, "text": text,
             "messages": [{"role": "user", "content": text}], "n_content_tokens": 4}
            for f, text in enumerate(texts)
        ],
    })  # fmt: skip
    acts = [{"feature_id": f, "doc_no": f, "max_act": 1.0, "peak_token": 2} | keys for f in range(n_covered)]
    _write(workspace, "spans", f"{SAE_ID}/{SEED_ID}/{MODE}", {
        "doc_activation": acts,
        "encoded_document": [{"doc_no": f, "n_content_tokens": 4, "n_cut_tokens": 0} | keys for f in range(n_covered)],
    })  # fmt: skip
    anchor = keys | {"dataset_id": DATASET_ID}
    counts = {"n_content_tokens": 5, "n_cut_tokens": 0}
    encoded = [{"doc_no": n} | counts | anchor for n in range(n_features * PER_FEATURE)]
    _write(workspace, "encoding", DATASET_ID, {"encoded_document": encoded})
    judged = {"task": task, "sae_id": SAE_ID, "source": "label", "verdict": "yes", "rationale": "", "author": "words"}
    rows = [judged | {"feature_id": f, "score": 1.0 - f / (2 * n_features), "theme": ""} for f in range(n_features)]
    _write(workspace, "relevance", f"{task}/{SAE_ID}/label", {"relevance": rows})
    return workspace


class WordEncoder:
    """Measures what the made-up workspace says: feature f fires on `theme<f>`, at 1."""

    def __init__(self, n_features: int) -> None:
        self.d_sae = n_features

    def encode(self, documents: Sequence[Document]) -> Encoded:
        """One row a document."""
        maxima = np.zeros((len(documents), self.d_sae), np.float32)
        peaks = np.zeros((len(documents), self.d_sae), np.int32)
        for row, document in enumerate(documents):
            for place, word in enumerate(document.text.split()):
                found = re.fullmatch(r"theme(\d+)", word)
                if found and int(found[1]) < self.d_sae:
                    maxima[row, int(found[1])], peaks[row, int(found[1])] = 1.0, place + 1
        lengths = np.array([len(document.text.split()) for document in documents])
        return Encoded(sparse.csr_matrix(maxima), sparse.csr_matrix(peaks), lengths)

    def encode_alone(self, document: Document) -> Encoded:
        """The same: words have no precision to lose."""
        return self.encode([document])


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
