"""How much each token of a text surprises the backbone: one pass over the whole model, a few documents at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facviz.backbone.model import Backbone
from facviz.backbone.rendering import Renderer
from facviz.records import Document, Floats, TokenizedDocument

MAX_TOKENS = 160
"""Tokens read of a document, those of the template included: more tell nothing new about how it reads."""
_BATCH_TOKENS = 768
"""Rows of the output matrix at a time, each as wide as the vocabulary."""


class BackboneSurprise:
    """Negative log-likelihood of content tokens under the template that everything else is read in."""

    def __init__(self, backbone: Backbone, *, system_prompt: str | None = None, roles: Sequence[str]) -> None:
        self._backbone = backbone
        self._renderer = Renderer(backbone.tokenizer, max_tokens=MAX_TOKENS, system_prompt=system_prompt, roles=roles)

    def surprises(self, documents: Sequence[Document]) -> list[Floats]:
        """Nats of the content tokens in order, [n] of each document."""
        tokenized = self._renderer.render_many(list(enumerate(documents)))
        found: list[Floats] = [np.empty(0)] * len(documents)
        order = sorted(range(len(tokenized)), key=lambda i: (len(tokenized[i].token_ids), i))
        batch: list[int] = []
        for i in order:
            if batch and (len(batch) + 1) * len(tokenized[i].token_ids) > _BATCH_TOKENS:
                self._read(batch, tokenized, found)
                batch = []
            batch.append(i)
        self._read(batch, tokenized, found)
        return found

    def _read(self, batch: Sequence[int], tokenized: Sequence[TokenizedDocument], found: list[Floats]) -> None:
        import torch

        chosen = [tokenized[i] for i in batch if tokenized[i].is_content[1:].any()]
        if not chosen:
            return
        ids = torch.zeros(len(chosen), max(len(d.token_ids) for d in chosen), dtype=torch.int64)
        content = torch.zeros(ids.shape, dtype=torch.bool)
        for row, document in enumerate(chosen):
            n = len(document.token_ids)
            ids[row, :n] = torch.from_numpy(document.token_ids.astype(np.int64))
            content[row, 1:n] = torch.from_numpy(document.is_content[1:])
        model = self._backbone.model
        with torch.inference_mode():
            # Padding stands behind every token that counts, where a causal model does not look.
            logits = model(input_ids=ids.to(model.device)).logits[:, :-1]
            before, targets = logits[content[:, 1:].to(model.device)].float(), ids[content].to(model.device)
            nats = torch.nn.functional.cross_entropy(before, targets, reduction="none").double().cpu().numpy()
        ends = np.cumsum(content.sum(dim=1).numpy())
        for document, values in zip(chosen, np.split(nats, ends[:-1])):
            found[document.doc_no] = values
