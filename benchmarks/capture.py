"""Activations of one layer: batched by length and stopped there, against one text at a time through the whole model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.results import Result, alternate
from benchmarks.texts import spread_by_length
from facviz.activations import ALL_ROLES, content_activations
from facviz.backbone import Backbone, Renderer
from facviz.records import Document, TokenizedDocument

BAR_WITH_BF16 = 5.0
BAR_FLOAT32 = 2.5


def bench_capture(
    slow: Backbone,
    fast: Backbone,
    documents: Sequence[Document],
    *,
    n_reference: int = 24,
    n_pairs: int = 3,
    batch_tokens: int = 8192,
) -> Result:
    """`fast` is the measured choice of precision; the reference runs `slow`, float32, on `n_reference` documents."""
    renderer = Renderer(slow.tokenizer, max_tokens=512, roles=ALL_ROLES)
    tokenized = renderer.render_many(list(enumerate(documents)))
    few = renderer.render_many(list(enumerate(spread_by_length(documents, n_reference))))

    def ours() -> int:
        return sum(len(part.acts) for part in content_activations(fast, tokenized, batch_tokens))

    pairs = alternate(ours, lambda: _full_forwards(slow, few), n_pairs)
    dtype = next(fast.model.parameters()).dtype
    return pairs.result(
        "capture",
        "content tokens/s",
        BAR_WITH_BF16 if dtype == torch.bfloat16 else BAR_FLOAT32,
        dtype=str(dtype).removeprefix("torch."),
        layer=fast.layer,
        n_documents=len(documents),
        n_reference_documents=len(few),
        batch_tokens=batch_tokens,
    )


def _full_forwards(backbone: Backbone, documents: Sequence[TokenizedDocument]) -> int:
    """Hidden states of every layer and the logits, text after text; the content tokens seen."""
    n_tokens = 0
    for document in documents:
        with torch.inference_mode():
            ids = torch.from_numpy(document.token_ids).long().unsqueeze(0)
            hidden = backbone.model(input_ids=ids, output_hidden_states=True).hidden_states[backbone.layer][0]
        n_tokens += len(hidden[torch.from_numpy(document.is_content)])
    return n_tokens
