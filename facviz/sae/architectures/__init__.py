"""Trainable architectures by name; a new one is one file with a class like `base.Architecture` and one line here."""

from __future__ import annotations

from facviz.errors import SaeError
from facviz.sae.architectures.base import Architecture
from facviz.sae.architectures.batchtopk import BatchTopK
from facviz.sae.architectures.gated import Gated
from facviz.sae.architectures.jumprelu import JumpReLU
from facviz.sae.architectures.matching_pursuit import MatchingPursuit
from facviz.sae.architectures.matryoshka import MatryoshkaBatchTopK
from facviz.sae.architectures.paper import Paper
from facviz.sae.architectures.relu import ReLU
from facviz.sae.architectures.topk import TopK

ARCHITECTURES: dict[str, type[Architecture]] = {
    "batchtopk": BatchTopK,
    "topk": TopK,
    "matryoshka": MatryoshkaBatchTopK,
    "jumprelu": JumpReLU,
    "gated": Gated,
    "relu": ReLU,
    "matching_pursuit": MatchingPursuit,
    "paper": Paper,
}


def get_architecture(name: str) -> type[Architecture]:
    """The class of a trainable architecture.

    Raises:
        SaeError: there is none of that name.
    """
    if name not in ARCHITECTURES:
        raise SaeError(
            f"The architecture {name!r} cannot be trained; choose one of {', '.join(sorted(ARCHITECTURES))}."
        )
    return ARCHITECTURES[name]
