"""The published span procedure, restated from its description: one text, full forward, a Python loop over features.

It is the reference of the span bench and must stay naive. Two of its faults are left out, because they would only
change what is compared, not the time: it is told which tokens are content instead of dropping a constant prefix, and
its windows hold the peak token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from facviz.records import TokenizedDocument
from facviz.sae.weights import SaeWeights


class LoopSpan(NamedTuple):
    """One place where a feature fires: the text's strongest token for it and the tokens before it."""

    doc_no: int
    act: float
    peak_token: int
    token_ids: list[int]


def collect_spans(
    model: Any,
    layer: int,
    weights: SaeWeights,
    documents: Iterable[TokenizedDocument],
    *,
    act_threshold: float = 0.0,
    window: int = 32,
) -> dict[int, list[LoopSpan]]:
    """Spans per feature id with the SAE's own sparsity off: plain ReLU pre-activations above `act_threshold`."""
    spans: dict[int, list[LoopSpan]] = {}
    for document in documents:
        content_ids, positions = document.token_ids[document.is_content], document.is_content.nonzero()[0]
        acts = feature_acts_of_text(model, layer, weights, document)
        for feature_id in (acts.max(dim=0).values > act_threshold).nonzero().flatten().tolist():
            column = acts[:, feature_id]
            best = int(column.argmax())
            window_ids = content_ids[max(0, best + 1 - window) : best + 1].tolist()
            span = LoopSpan(document.doc_no, float(column[best]), int(positions[best]), window_ids)
            spans.setdefault(feature_id, []).append(span)
    return spans


def feature_acts_of_text(model: Any, layer: int, weights: SaeWeights, document: TokenizedDocument) -> torch.Tensor:
    """Dense [n_content_tokens, d_sae] activations of one text, after a forward pass through the whole model."""
    with torch.no_grad():
        ids = torch.from_numpy(document.token_ids).long().unsqueeze(0)
        hidden = model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0]
        x = hidden[torch.from_numpy(document.is_content)].float()
        return torch.relu((x - weights.b_dec if weights.pre_bias else x) @ weights.W_enc + weights.b_enc)
