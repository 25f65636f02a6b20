"""One SAE in the layout of Neuronpedia's bulk export: gzipped JSON lines in batches of 1,024 features.

`features/`, `activations/` and `explanations/` hold `batch-0.jsonl.gz` and so on; `model.jsonl` and `source.jsonl` name
what they belong to. Fields that nobody measured are left out, and so are dates and creators: the same workspace gives
the same bytes, and an importer sets its own.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

BATCH_FEATURES = 1024

Row = Mapping[str, Any]
Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Which SAE of which model the features are of, by Neuronpedia's names; `layer` is facviz's hidden-state index."""

    model_id: str
    sae_id: str
    layer: int
    dataset: str
    d_in: int

    @property
    def source_id(self) -> str:
        """Neuronpedia counts blocks from 0, so hidden state L is block L − 1."""
        return f"{max(self.layer - 1, 0)}-facviz-{self.sae_id}"

    @property
    def place(self) -> Line:
        """The fields that stand on every line."""
        return {"modelId": self.model_id, "layer": self.source_id}


def source_files(source: Source) -> dict[str, bytes]:
    """The two small files beside the batches, by name."""
    set_name = source.source_id.split("-", 1)[1]
    model = {"id": source.model_id, "displayName": source.model_id, "dimension": source.d_in}
    described = {"id": source.source_id, "modelId": source.model_id, "setName": set_name, "dataset": source.dataset}
    return {"model.jsonl": _lines([model]), "source.jsonl": _lines([described])}


def feature_line(source: Source, stats: Row, direction: Row | None) -> Line:
    """Statistics on the exported dataset, promoted output tokens and nearest features by decoder cosine."""
    line = source.place | {
        "index": str(stats["feature_id"]),
        "maxActApprox": _finite(stats["max_act"]),
        "frac_nonzero": _finite(stats["density"]),
        "hookName": source.source_id,
    }
    if direction is None:
        return line
    return line | {
        "pos_str": list(direction["top_tokens"] or ()),
        "pos_values": list(direction["top_logits"] or ()),
        "neg_str": list(direction.get("low_tokens") or ()),
        "neg_values": list(direction.get("low_logits") or ()),
        "topkCosSimIndices": list(direction["neighbours"] or ()),
        "topkCosSimValues": list(direction["neighbour_cosines"] or ()),
    }


def activation_line(source: Source, span: Row) -> Line:
    """One span: its tokens, the activation on each, and where the highest is, counted from the span's start."""
    index = str(span["feature_id"])
    acts = list(span["acts"])
    return source.place | {
        "id": _id(source, "activation", index, span["split"], span["rank"]),
        "index": index,
        "tokens": list(span["tokens"]),
        "values": acts,
        "maxValue": span["act"],
        "maxValueTokenIndex": span["peak_token"] - span["start_token"],
        "minValue": min(acts, default=0.0),
        "dataSource": source.dataset,
        "dataIndex": str(span["doc_no"]),
    }


def explanation_line(source: Source, explanation: Row) -> Line:
    """The explanation that holds; who wrote it stands where Neuronpedia names a model."""
    index = str(explanation["feature_id"])
    return source.place | {
        "id": _id(source, "explanation", index, explanation["text"]),
        "index": index,
        "description": explanation["text"],
        "typeName": f"facviz-{explanation['author_kind']}",
        "explanationModelName": explanation["author"] or None,
    }


def packed(lines: Iterable[Line]) -> bytes:
    """Gzipped JSON lines without a time stamp, so that equal lines are equal bytes."""
    return gzip.compress(_lines(lines), compresslevel=6, mtime=0)


def _lines(lines: Iterable[Line]) -> bytes:
    texts = (json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")) for line in lines)
    return "".join(text + "\n" for text in texts).encode("utf-8", "replace")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _id(source: Source, *parts: object) -> str:
    named = json.dumps([source.model_id, source.sae_id, *parts], ensure_ascii=False)
    return "c" + hashlib.sha256(named.encode("utf-8", "replace")).hexdigest()[:24]
