"""Rows of `feature`: what decoder directions say without any data, for all features of an SAE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facviz.pipeline.sae_measures import is_affordable
from facviz.store.schema import to_arrow

if TYPE_CHECKING:
    import pyarrow as pa

    from facviz.backbone import Backbone
    from facviz.sae.model import SAE

N_OUTPUT_TOKENS = 10
N_NEIGHBOURS = 10


def feature_rows(backbone: Backbone, sae: SAE, sae_id: str) -> pa.Table:
    """One row a feature; of a very large SAE, lists that would take minutes to compute for all are empty."""
    columns = {"sae_id": sae_id, "feature_id": range(sae.d_sae)} | _output_tokens(backbone, sae) | _neighbours(sae)
    return to_arrow("feature", columns, sae.d_sae)


def _output_tokens(backbone: Backbone, sae: SAE) -> dict[str, Any]:
    from facviz.sae.directions import logit_spread, output_tokens

    unembedding, gain = backbone.unembedding.float(), backbone.final_norm_weight
    n_vocabulary, d_in = unembedding.shape
    if not is_affordable(sae.d_sae, 2 * sae.d_sae * d_in * (n_vocabulary + min(n_vocabulary, d_in))):
        none: list[list[Any]] = [[]] * sae.d_sae
        lists = dict.fromkeys(("top_tokens", "top_logits", "low_tokens", "low_logits"), none)
        return lists | {"logit_mean": None, "logit_std": None}
    decoder = sae.weights.decoder_view.to(unembedding.device)
    found = output_tokens(decoder, unembedding, min(N_OUTPUT_TOKENS, n_vocabulary), final_norm_weight=gain)
    mean, std = logit_spread(decoder, unembedding, final_norm_weight=gain)
    used = {*found.top_ids.flatten().tolist(), *found.low_ids.flatten().tolist()}
    texts = {token: backbone.tokenizer.decode([token]) for token in used}
    return {
        "top_tokens": [[texts[token] for token in row] for row in found.top_ids.tolist()],
        "top_logits": found.top_logits.tolist(),
        "low_tokens": [[texts[token] for token in row] for row in found.low_ids.tolist()],
        "low_logits": found.low_logits.tolist(),
        "logit_mean": mean.tolist(),
        "logit_std": std.tolist(),
    }


def _neighbours(sae: SAE) -> dict[str, Any]:
    from facviz.sae.directions import nearest_features

    if sae.d_sae == 1 or not is_affordable(sae.d_sae, 2 * sae.d_sae**2 * sae.d_in):
        none: list[list[Any]] = [[]] * sae.d_sae
        return {"neighbours": none, "neighbour_cosines": none}
    ids, cosines = nearest_features(sae.weights.decoder_view, min(N_NEIGHBOURS, sae.d_sae - 1))
    return {"neighbours": ids.tolist(), "neighbour_cosines": cosines.tolist()}
