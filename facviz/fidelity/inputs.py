"""What both measurements start from: padded batches, reconstructions in float32, and a check that the widths agree."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from facviz.backbone import Backbone
from facviz.errors import InputError
from facviz.records import TokenizedDocument
from facviz.sae.model import SAE


def check_width(backbone: Backbone, sae: SAE) -> None:
    """Refuse an SAE of another width than the backbone's.

    Raises:
        InputError: the SAE reads another number of dimensions.
    """
    if sae.d_in != backbone.d_model:
        raise InputError(
            f"The SAE reads {sae.d_in} dimensions but {backbone.name} has {backbone.d_model}; choose a pair."
        )


def reconstruct(sae: SAE, acts: Tensor) -> Tensor:
    """x̂ [n, d_in] in float32 of activations of any float dtype."""
    return sae.reconstruct(acts.to(torch.float32))


def padded(documents: Sequence[TokenizedDocument], backbone: Backbone) -> tuple[Tensor, Tensor]:
    """Right-padded ids and content mask [batch, length] on the model's device; no attention mask is needed."""
    ids = torch.zeros(len(documents), max(len(d.token_ids) for d in documents), dtype=torch.int64)
    content = torch.zeros(ids.shape, dtype=torch.bool)
    for row, document in enumerate(documents):
        ids[row, : len(document.token_ids)] = torch.from_numpy(document.token_ids)
        content[row, : len(document.token_ids)] = torch.from_numpy(document.is_content)
    device = backbone.model.device
    return ids.to(device), content.to(device)
