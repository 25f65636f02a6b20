"""Where 65,536 features fire: our streaming pass against the published loop."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks import published_loop
from benchmarks.results import Result, alternate
from benchmarks.texts import spread_by_length
from facviz.activations import ALL_ROLES, SaeEncoder, content_activations
from facviz.backbone import Backbone, Renderer
from facviz.config import SpansConfig
from facviz.records import Document, split_of
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, SaeWeights
from facviz.spans import SpanCollector, SpanRows, pool_maxima

BAR = 20.0


def bench_spans(
    slow: Backbone,
    fast: Backbone,
    documents: Sequence[Document],
    *,
    d_sae: int = 65_536,
    l0: float = 32,
    n_reference: int = 8,
    n_pairs: int = 3,
) -> Result:
    """Ours in the SAE's own inference mode, as facviz runs it; the reference with its sparsity off, as published."""
    sae = random_sae(slow, documents[:16], d_sae, l0)
    encoder = SaeEncoder(slow, sae, fast=fast)
    few = encoder.renderer.render_many(list(enumerate(spread_by_length(documents, n_reference))))

    def reference() -> int:
        published_loop.collect_spans(slow.model, slow.layer, sae.weights, few)
        return sum(d.n_content_tokens for d in few)

    pairs = alternate(lambda: collect(encoder, documents)[1], reference, n_pairs)
    return pairs.result(
        "spans",
        "content tokens/s",
        BAR,
        d_sae=d_sae,
        l0=l0,
        layer=slow.layer,
        n_documents=len(documents),
        n_reference_documents=len(few),
    )


def collect(
    encoder: SaeEncoder, documents: Sequence[Document], config: SpansConfig | None = None
) -> tuple[SpanRows, int]:
    """The whole pass over one shard: spans kept, and the content tokens seen."""
    config = config or SpansConfig()
    collector = SpanCollector(
        encoder.d_sae, per_split=config.per_split, before=config.before_tokens, after=config.after_tokens
    )
    for codes in encoder.stream(enumerate(documents)):
        splits = [split_of(documents[d.doc_no].doc_id) for d in codes.documents]
        collector.add(codes, pool_maxima(codes), splits)
    return collector.rows(), collector.n_tokens


def random_sae(backbone: Backbone, documents: Sequence[Document], d_sae: int, l0: float) -> SAE:
    """Random unit directions, centred on the backbone's activations, with the one threshold that gives this L0."""
    probe = _activations(backbone, documents)
    generator = torch.Generator().manual_seed(0)
    W_enc = torch.nn.functional.normalize(torch.randn(backbone.d_model, d_sae, generator=generator), dim=0)
    centre = probe.mean(0)
    sample = probe[:: max(1, len(probe) // 256)]
    pre = ((sample - centre) @ W_enc).flatten()
    threshold = torch.full((d_sae,), float(pre.topk(max(1, round(l0 * len(sample)))).values.min()))
    activation = Activation("jumprelu", threshold=threshold)
    return SAE(SaeWeights(W_enc, torch.zeros(d_sae), None, centre, activation))


def _activations(backbone: Backbone, documents: Sequence[Document]) -> torch.Tensor:
    renderer = Renderer(backbone.tokenizer, max_tokens=512, roles=ALL_ROLES)
    tokenized = renderer.render_many(list(enumerate(documents)))
    return torch.cat([part.acts.float() for part in content_activations(backbone, tokenized, 8192)])
