"""The words and the arithmetic of the forms that get an SAE: architectures, formats, lists, and what training costs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from facviz.config import CaptureConfig, SaeConfig
from facviz.errors import InputError
from facviz.views.sae import TrainedBefore, estimate_seconds

ARCHITECTURES = {
    "batchtopk": (
        "BatchTopK",
        "k features a token on average, so hard tokens get more and easy ones fewer. The default: it rebuilds best for "
        "its sparsity and has no penalty to tune.",
    ),
    "topk": ("TopK", "Exactly k features on every token: the simplest to reason about, a little less faithful."),
    "matryoshka": (
        "Matryoshka",
        "BatchTopK whose first features must rebuild by themselves: in wide dictionaries general features stay whole, "
        "at some cost in FVU.",
    ),
    "jumprelu": ("JumpReLU", "A learnt threshold per feature: faithful on long runs, slower to settle on short ones."),
    "gated": ("Gated", "One map decides whether a feature fires, another how strongly: no shrinkage; an older recipe."),
    "relu": ("ReLU + L1", "The classic baseline, for comparison with older work; its activations shrink."),
    "matching_pursuit": (
        "Matching pursuit",
        "Features are chosen one after another, each for what the others left over: tells apart features that overlap "
        "too much for one pass, at k times the cost.",
    ),
    "paper": ("Paper preset", "The recipe of arXiv 2602.10388, to reproduce it: tied decoder, k annealed from 10 × k."),
}
"""Title and one sentence for each trainable architecture, the default first."""

FORMAT_TITLES = {
    "auto": "Recognise it",
    "saelens": "SAELens",
    "sparsify": "sparsify",
    "dictionary_learning": "dictionary_learning",
    "batchtopk_repo": "BatchTopK repository",
    "gemma_scope": "Gemma Scope",
    "llamascopium": "Llamascopium and Llama Scope",
    "qwen_scope": "Qwen-Scope",
    "fac": "FAC-Synthesis",
    "fac-dense": "FAC-Synthesis, top-k off",
    "openai": "OpenAI sparse_autoencoder",
}
"""What `facviz.sae.formats` reads, without loading it, as it needs torch."""

SITES = {"resid": "residual stream", "mlp": "what the MLP adds", "attn": "what attention adds"}

MAX_LISTED = 8
MAX_RUNS = 24
BUFFER_BATCHES = 64
_FLOAT, _HALF = 4, 2
_COPIES = 4  # weights, gradients and Adam's two moments


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """One asked-for training: every pair of width and k at every layer is an SAE of its own."""

    tokens: int
    epochs: int
    d_sae: tuple[int, ...]
    k: tuple[int, ...]
    layers: tuple[int, ...]
    """Empty: one, the default."""
    d_in: int | None
    """Width of the model's activations; None while nothing of the model was seen."""
    is_kept: bool = True
    """Whether the activations stay on disk; otherwise the model runs again for every epoch."""

    @property
    def n_layers(self) -> int:
        """Places that are read."""
        return max(1, len(self.layers))

    @property
    def n_saes(self) -> int:
        """SAEs that come out."""
        return len(self.d_sae) * len(self.k) * self.n_layers

    @property
    def n_features(self) -> int:
        """Features of all of them together."""
        return sum(self.d_sae) * len(self.k) * self.n_layers

    def runs(self) -> Iterator[tuple[int, int]]:
        """Width and k of each SAE of one layer."""
        return product(self.d_sae, self.k)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a training takes; None where it is not known."""

    seconds: float | None
    memory_bytes: int | None
    disk_bytes: int | None


def estimate_cost(plan: TrainingPlan, before: TrainedBefore | None) -> Cost:
    """Time from the last training here, memory and disk from the shapes (`COST_HELP` has the formulas)."""
    seconds = estimate_seconds(plan.tokens, plan.epochs, plan.n_features, before)
    if plan.d_in is None:
        return Cost(seconds, None, None)
    matrices = 2 * plan.n_features * plan.d_in * _FLOAT
    buffer = BUFFER_BATCHES * SaeConfig().batch_tokens * plan.d_in * _FLOAT * plan.n_layers
    captured = (plan.tokens + CaptureConfig(dataset="").heldout_tokens) * plan.d_in * _HALF * plan.n_layers
    return Cost(seconds, matrices * _COPIES + buffer, captured * plan.is_kept + matrices)


COST_HELP = {
    "Time": "The time of the last training here × tokens × epochs × features, against that training's.",
    "Memory": "On top of the language model: 4 bytes × features × model width × 2 matrices × 4 (weights, gradients and "
    f"Adam's two moments), and a mixing buffer of {BUFFER_BATCHES} batches × model width × 4 bytes.",
    "Disk": "Captured tokens, held-out ones included, × model width × 2 bytes a layer, where they are kept, and "
    "the weights: 4 bytes × features × model width × 2 matrices.",
}
"""The formula behind each part of a cost."""


def whole_numbers(text: str, name: str, *, lowest: int = 1, highest: int) -> tuple[int, ...]:
    """The numbers of a comma list, in its order.

    Raises:
        InputError: it is empty, has something else in it, a number twice, out of bounds, or too many.
    """
    parts = [part.strip() for part in re.split(r"[,;]", text) if part.strip()]
    if not parts or not all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts):
        raise InputError(
            f"{name} must be a whole number or a list of them such as {max(lowest, 16)},{max(lowest, 32)}."
        )
    found = tuple(int(part) for part in parts)
    if outside := [n for n in found if not lowest <= n <= highest]:
        raise InputError(f"{name} has {outside[0]}, but each must lie between {lowest} and {highest}.")
    if len(set(found)) < len(found):
        raise InputError(f"{name} names {max(found, key=found.count)} twice; name each once.")
    if len(found) > MAX_LISTED:
        raise InputError(f"{name} lists {len(found)} numbers; train at most {MAX_LISTED} at a time.")
    return found


_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)+", re.ASCII)


def is_hub_name(name: str) -> bool:
    """Whether `name` reads as `owner/repo`, perhaps with a path inside it."""
    return _HUB_NAME.fullmatch(name) is not None and ".." not in name
