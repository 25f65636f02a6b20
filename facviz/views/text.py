"""One text as the SAE sees it: its content tokens and what fires on each, for test boxes and candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facviz.errors import InputError
from facviz.protocols import Encoder
from facviz.records import Document

MAX_CHARS = 8000


@dataclass(frozen=True, slots=True, eq=False)
class EncodedText:
    """Content tokens of one text, and feature activations token by token (CSR over `offsets`)."""

    tokens: tuple[str, ...]
    offsets: npt.NDArray[np.int64]
    feature_id: npt.NDArray[np.int64]
    act: npt.NDArray[np.float32]

    def acts_of(self, feature_id: int) -> list[float]:
        """One feature's activation on every token."""
        acts = np.zeros(len(self.tokens), np.float32)
        hits = np.flatnonzero(self.feature_id == feature_id)
        acts[np.searchsorted(self.offsets, hits, side="right") - 1] = self.act[hits]
        return [float(a) for a in acts]

    def strongest(self, n: int) -> list[tuple[int, float, int]]:
        """The features that fire most, each with its maximum and the token it fires on."""
        token = np.repeat(np.arange(len(self.tokens)), np.diff(self.offsets))
        found: dict[int, tuple[int, float, int]] = {}
        for i in np.argsort(-self.act, kind="stable"):
            feature = int(self.feature_id[i])
            found.setdefault(feature, (feature, float(self.act[i]), int(token[i])))
            if len(found) == n:
                break
        return list(found.values())


def encode_text(encoder: Encoder, text: str, role: str = "user") -> EncodedText:
    """Encode one typed text as one message.

    Raises:
        InputError: it is empty or too long for a test box.
    """
    if not text.strip():
        raise InputError("There is no text yet; type a sentence or two.")
    if len(text) > MAX_CHARS:
        raise InputError(f"The text has {len(text):,} characters; test at most {MAX_CHARS:,} at a time.")
    document = Document.from_text(text, role=role)
    [codes] = list(encoder.stream([(0, document)]))
    [tokenized] = codes.documents
    starts = tokenized.char_start[codes.position]
    ends = [*starts[1:].tolist(), int(tokenized.char_end[codes.position[-1]])] if len(starts) else []
    tokens = tuple(document.text[start:end] for start, end in zip(starts.tolist(), ends))
    return EncodedText(tokens, codes.offsets.astype(np.int64), codes.feature_id.astype(np.int64), codes.act)
