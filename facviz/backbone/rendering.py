"""Documents to token ids with their content mask (known defects 22 and 39). Needs only a fast tokenizer, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facviz.backbone.template import ChatTemplate, Rendered
from facviz.errors import BackboneError
from facviz.records import Document, Ints, Message, TokenizedDocument

_NOWHERE = np.iinfo(np.int32).max


class Renderer:
    """Renders documents for one tokenizer; tokens of contents whose role is in `roles` are content.

    A token is content when at least half of its characters lie in one such content. `system_prompt=None` keeps the
    template's default; a document's own system message wins over it. Special tokens that a content spells out stay
    special to the model and are never content; `n_masked_specials` counts them.

    Raises:
        BackboneError: the tokenizer has no offsets, or `max_tokens` is below 1.
    """

    def __init__(
        self, tokenizer: Any, *, max_tokens: int, system_prompt: str | None = None, roles: Sequence[str]
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise BackboneError("This tokenizer knows no character offsets; choose a model with a fast tokenizer.")
        if max_tokens < 1:
            raise BackboneError(f"max_tokens is {max_tokens}; give at least 1.")
        self.n_masked_specials = 0
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._roles = frozenset(roles)
        self._template = ChatTemplate(tokenizer, system_prompt)
        self._special_ids = _special_ids(tokenizer)
        self._prefix = _raw_text_prefix(tokenizer)

    def render(self, document: Document, doc_no: int = 0) -> TokenizedDocument:
        """Ids and content mask of one document, cut to the first `max_tokens` tokens.

        Raises:
            BackboneError: there is no chat template, or it refuses these turns, or rewrites their contents.
        """
        return self.render_many([(doc_no, document)])[0]

    def render_many(self, documents: Sequence[tuple[int, Document]]) -> list[TokenizedDocument]:
        """As `render`, for numbered documents tokenised in one call."""
        rendered = [self._template.render(document) for _, document in documents]
        encoded = self._tokenise([r.text for r in rendered])
        return [self._masked(doc_no, r, *e) for (doc_no, _), r, e in zip(documents, rendered, encoded)]

    def generation_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids that end where the assistant's reply begins (known defect 31); never cut."""
        [(token_ids, _)] = self._tokenise([self._template.generation_prompt(messages)])
        return [int(i) for i in token_ids]

    def query_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids that end where the user's next message begins, so that a model writes that message; never cut."""
        [(token_ids, _)] = self._tokenise([self._template.query_prompt(messages)])
        return [int(i) for i in token_ids]

    def _tokenise(self, texts: list[str]) -> list[tuple[Ints, Ints]]:
        """Ids [n] and character offsets [n, 2] of each text, with the tokenizer's BOS exactly once in front."""
        if not texts:
            return []
        encoded = self._tokenizer(
            texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
        )
        pairs: list[tuple[Ints, Ints]] = []
        for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"]):
            missing = [] if ids[: len(self._prefix)] == self._prefix else self._prefix
            token_ids = np.array(missing + ids, dtype=np.int32)
            pairs.append((token_ids, np.array([(0, 0)] * len(missing) + offsets, dtype=np.int32).reshape(-1, 2)))
        return pairs

    def _masked(self, doc_no: int, rendered: Rendered, token_ids: Ints, offsets: Ints) -> TokenizedDocument:
        is_inside, char_start, char_end = _content_of(rendered, self._roles, offsets)
        is_special = np.isin(token_ids, self._special_ids)
        self.n_masked_specials += int((is_inside & is_special).sum())
        is_content = is_inside & ~is_special
        is_content[:1] = False  # an attention sink whatever stands there
        kept = slice(self._max_tokens)
        return TokenizedDocument(
            doc_no=doc_no,
            token_ids=token_ids[kept],
            is_content=is_content[kept],
            char_start=np.where(is_content, char_start, -1)[kept],
            char_end=np.where(is_content, char_end, -1)[kept],
            n_cut_tokens=int(is_content[self._max_tokens :].sum()),
        )


def _content_of(rendered: Rendered, roles: frozenset[str], offsets: Ints) -> tuple[Any, Ints, Ints]:
    """Which tokens are content, and their character ranges in `Document.text`.

    Characters that a tokenizer leaves out of its offsets, such as the space before a word, go to the token after them:
    the ranges of a content's tokens then join to the content.
    """
    slots = [s for s in rendered.slots if s.doc_start is not None and s.role in roles and s.end > s.start]
    table = [(s.start, s.end, s.doc_start) for s in slots]
    starts, ends, doc_starts = np.array([*table, (_NOWHERE, _NOWHERE, 0)], dtype=np.int64).T
    token_start, token_end = offsets[:, 0].astype(np.int64), offsets[:, 1].astype(np.int64)
    previous_end = np.maximum.accumulate(np.concatenate([[0], token_end]))[:-1]
    is_trimmed = token_start == token_end  # a token of spaces only, where offsets leave out the space
    token_start[is_trimmed] = np.minimum(token_start, previous_end)[is_trimmed]
    slot = np.searchsorted(ends, token_start, side="right").clip(max=len(slots))
    low, high = np.maximum(token_start, starts[slot]), np.minimum(token_end, ends[slot])
    n_inside = high - low
    is_content = (n_inside > 0) & (2 * n_inside >= token_end - token_start)
    low = np.maximum(np.minimum(token_start, previous_end), starts[slot])
    shift = doc_starts[slot] - starts[slot]
    return is_content, (low + shift).astype(np.int32), (high + shift).astype(np.int32)


def _special_ids(tokenizer: Any) -> Ints:
    """Ids never counted as content: named special tokens and added ones marked special."""
    added = [i for i, token in tokenizer.added_tokens_decoder.items() if token.special]
    return np.array(sorted({*tokenizer.all_special_ids, *added}), dtype=np.int64)


def _raw_text_prefix(tokenizer: Any) -> list[int]:
    """The special ids this tokenizer puts before raw text: its BOS, or nothing."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    mask = [*encoded["special_tokens_mask"], 0]
    return list(encoded["input_ids"][: mask.index(0)])
