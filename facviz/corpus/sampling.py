"""Drawing one dataset out of another, reproducibly and independent of file order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facviz.config import SampleConfig
from facviz.corpus.wording import quote_name
from facviz.errors import InputError
from facviz.records import Document


def draw_sample(documents: Sequence[Document], sample: SampleConfig) -> list[Document]:
    """`sample.n` documents drawn uniformly without replacement, in their original order.

    Which ones depends on the documents' content and `rng_seed` only, never on the order they come in.

    Raises:
        InputError: fewer than `n` documents carry the wanted label.
    """
    candidates = [i for i, d in enumerate(documents) if sample.label is None or d.label == sample.label]
    if len(candidates) < sample.n:
        labelled = "" if sample.label is None else f" with the label {quote_name(sample.label)}"
        raise InputError(
            f"Dataset {sample.of} has {len(candidates):,} documents{labelled}, too few to draw {sample.n:,}; lower `n`."
        )
    by_content = sorted(candidates, key=lambda i: documents[i].doc_id)
    drawn = np.random.default_rng(sample.rng_seed).choice(len(by_content), size=sample.n, replace=False)
    return [documents[i] for i in sorted(by_content[j] for j in drawn)]
