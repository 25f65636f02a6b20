"""Drawing one dataset out of another, reproducibly and independent of file order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facviz.config import SampleConfig
from facviz.corpus.wording import quote_name, quote_names
from facviz.errors import InputError
from facviz.records import Document


def draw_sample(documents: Sequence[Document], sample: SampleConfig) -> list[Document]:
    """`sample.n` documents drawn uniformly without replacement, in their original order.

    Which ones depends on the documents' content and `rng_seed` only, never on the order they come in.

    Raises:
        InputError: fewer than `n` documents carry the wanted label, or a label to leave out occurs nowhere.
    """
    _refuse_unknown(documents, sample)
    candidates = [i for i, d in enumerate(documents) if _is_wanted(d, sample)]
    if len(candidates) < sample.n:
        labelled = "" if sample.label is None else f" with the label {quote_name(sample.label)}"
        labelled += f" without {quote_names(sample.without)}" if sample.without else ""
        raise InputError(
            f"Dataset {sample.of} has {len(candidates):,} documents{labelled}, too few to draw {sample.n:,}; lower `n`."
        )
    by_content = sorted(candidates, key=lambda i: documents[i].doc_id)
    drawn = np.random.default_rng(sample.rng_seed).choice(len(by_content), size=sample.n, replace=False)
    return [documents[i] for i in sorted(by_content[j] for j in drawn)]


def _is_wanted(document: Document, sample: SampleConfig) -> bool:
    return (sample.label is None or document.label == sample.label) and document.label not in sample.without


def _refuse_unknown(documents: Sequence[Document], sample: SampleConfig) -> None:
    """A misspelt label would leave nothing out, and a gap that was meant to be there would not be."""
    known = {d.label for d in documents if d.label is not None}
    unknown = [label for label in sample.without if label not in known]
    if unknown:
        raise InputError(
            f"No document of {sample.of} has the label {quote_name(unknown[0])} that `without` leaves out; labels "
            f"there: {quote_names(sorted(known)) or 'none'}."
        )
