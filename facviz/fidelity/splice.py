"""What an SAE costs its model: cross-entropy and KL with reconstructions in place of model activations.

They replace content tokens only; template, special and padding positions keep their own activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facviz.activations import RENDER_CHUNK, content_activations, length_batches
from facviz.backbone import Backbone, Renderer
from facviz.errors import InputError
from facviz.fidelity.inputs import check_width, padded, reconstruct
from facviz.protocols import NoProgress, ProgressSink
from facviz.records import Document, TokenizedDocument
from facviz.sae.model import SAE

_LOGIT_TOKENS = 128
"""Tokens whose float32 log-probabilities, one per vocabulary entry, are held at once."""

Replacement = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Means in nats over the `n_tokens` content tokens predicted, with activations of content tokens replaced.

    A score is the share of an ablation's damage that the SAE avoids: 1 as good as the model itself, 0 as bad as the
    ablation, NaN where the ablation does no damage. Zero-ablation inflates scores on the residual stream, because no
    activation is near zero there and it wrecks the model: read them beside `delta_ce` and those of mean-ablation.
    """

    n_tokens: int
    ce_clean: float
    ce_sae: float
    ce_zero: float
    ce_mean: float
    kl_sae: float
    """KL divergence of the spliced model's predictions from the model's own, KL(model ‖ spliced)."""
    kl_zero: float
    kl_mean: float

    @property
    def delta_ce(self) -> float:
        """What the SAE adds to the cross-entropy, in nats a token."""
        return self.ce_sae - self.ce_clean

    @property
    def ce_score_zero(self) -> float:
        """(CE_zero − CE_sae) / (CE_zero − CE_clean)."""
        return _score(self.ce_zero - self.ce_sae, self.ce_zero - self.ce_clean)

    @property
    def ce_score_mean(self) -> float:
        """(CE_mean − CE_sae) / (CE_mean − CE_clean)."""
        return _score(self.ce_mean - self.ce_sae, self.ce_mean - self.ce_clean)

    @property
    def kl_score_zero(self) -> float:
        """1 − KL_sae / KL_zero."""
        return _score(self.kl_zero - self.kl_sae, self.kl_zero)

    @property
    def kl_score_mean(self) -> float:
        """1 − KL_sae / KL_mean."""
        return _score(self.kl_mean - self.kl_sae, self.kl_mean)


def _score(avoided: float, damage: float) -> float:
    return avoided / damage if damage else math.nan


def measure_fidelity(
    backbone: Backbone,
    sae: SAE,
    documents: Sequence[Document],
    renderer: Renderer,
    *,
    batch_tokens: int = 512,
    progress: ProgressSink | None = None,
) -> Fidelity:
    """Run the model four times: as it is, and with the SAE, zeros and the mean in place of its activations.

    The mean is that of the content tokens of `documents`. Two sets of logits, [`batch_tokens` or the longest document,
    vocabulary], are the most memory it takes.

    Raises:
        InputError: the SAE reads another width, or no document has a content token.
    """
    check_width(backbone, sae)
    progress = progress or NoProgress()
    mean = _mean_activation(backbone, documents, renderer, batch_tokens)
    replacements: tuple[Replacement, ...] = (
        lambda acts: reconstruct(sae, acts).to(acts),
        torch.zeros_like,
        lambda acts: mean.to(acts).expand_as(acts),
    )
    totals, n_tokens, n_done = np.zeros(1 + 2 * len(replacements)), 0, 0
    for tokenized in _rendered(documents, renderer):
        for batch in length_batches(tokenized, batch_tokens):
            chosen = [tokenized[i] for i in batch]
            ids, content = padded(chosen, backbone)
            n_done += len(chosen)
            if content.any():
                totals += _damage(backbone, ids, content, replacements)
                n_tokens += int(content.sum())
            progress.update("fidelity", n_done, len(documents), "documents")
    clean, *others = (float(total) / n_tokens for total in totals)
    return Fidelity(n_tokens, clean, *others)


def _damage(
    backbone: Backbone, ids: Tensor, content: Tensor, replacements: Sequence[Replacement]
) -> npt.NDArray[np.float64]:
    """Sums over predicted content tokens: CE of the clean model, CE under each replacement, KL under each."""
    row, after = content[:, 1:].nonzero(as_tuple=True)
    target = ids[row, after + 1]
    with torch.inference_mode():
        clean = _logits(backbone, ids)
        found = [_compare(clean, _logits(backbone, ids, (content, r)), row, after, target) for r in replacements]
    return np.array([found[0][0], *(ce for _, ce, _ in found), *(kl for _, _, kl in found)])


def _logits(backbone: Backbone, ids: Tensor, splice: tuple[Tensor, Replacement] | None = None) -> Tensor:
    with replaced_acts(backbone, *splice) if splice else nullcontext():
        logits: Tensor = backbone.model(input_ids=ids, use_cache=False).logits
    return logits


def _compare(clean: Tensor, other: Tensor, row: Tensor, position: Tensor, target: Tensor) -> tuple[float, float, float]:
    """Summed cross-entropy of both and KL(clean ‖ other), at the positions that predict `target`."""
    ce_clean = ce_other = kl = 0.0
    for r, p, t in zip(*(torch.split(of_all, _LOGIT_TOKENS) for of_all in (row, position, target))):
        log_p, log_q = (logits[r, p].to(torch.float32).log_softmax(1) for logits in (clean, other))
        ce_clean -= float(log_p.gather(1, t[:, None]).double().sum())
        ce_other -= float(log_q.gather(1, t[:, None]).double().sum())
        kl += float((log_p.exp() * (log_p - log_q)).sum(1).double().sum())
    return ce_clean, ce_other, kl


@contextmanager
def replaced_acts(backbone: Backbone, content: Tensor, replacement: Replacement) -> Iterator[None]:
    """Inside, forwards go on from `replacement(acts)` [n, d_in] where `content` [batch, length] holds; undone after."""

    def splice(acts: Tensor) -> Tensor:
        acts = acts.clone()
        acts[content] = replacement(acts[content])
        return acts

    handle = backbone.change_model_acts(splice)
    try:
        yield
    finally:
        handle.remove()


def _rendered(documents: Sequence[Document], renderer: Renderer) -> Iterator[list[TokenizedDocument]]:
    numbered = enumerate(documents)
    while chunk := list(islice(numbered, RENDER_CHUNK)):
        yield renderer.render_many(chunk)


def _mean_activation(
    backbone: Backbone, documents: Sequence[Document], renderer: Renderer, batch_tokens: int
) -> Tensor:
    total, n_tokens = torch.zeros(backbone.d_model, dtype=torch.float64), 0
    for tokenized in _rendered(documents, renderer):
        for batch in content_activations(backbone, tokenized, batch_tokens):
            total += batch.acts.to("cpu", torch.float64).sum(0)
            n_tokens += len(batch.acts)
    if not n_tokens:
        raise InputError("These documents have no content tokens to measure the SAE on; give other documents.")
    return total / n_tokens
