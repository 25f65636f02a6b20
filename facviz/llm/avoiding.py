"""Never more than a few tokens in a row of a text that was shown: the next token of such a run is not drawn.

A small model shown examples repeats them; half of all candidates were turned down as copied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedTokenizerBase

RUN_TOKENS = 7
"""Longest run that may stand in both: at most as many words, one fewer than the gate takes for copying."""


class Avoided:
    """What may not follow, by the tokens before it, for the texts of one request."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
        self._next: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for text in texts:
            for spelled in {text, f" {text}"}:  # the first word has another token behind a space
                ids = tokenizer.encode(spelled, add_special_tokens=False)
                for first in range(len(ids) - RUN_TOKENS):
                    self._next[tuple(ids[first : first + RUN_TOKENS])].add(ids[first + RUN_TOKENS])

    def after(self, written: Sequence[int]) -> set[int]:
        """Tokens that would lengthen a run behind what is written."""
        return self._next.get(tuple(written[-RUN_TOKENS:]), set())


def rule_out(
    logits: Tensor, avoided: Sequence[Avoided], source: Sequence[int], written: Sequence[Sequence[int]]
) -> None:
    """Change `logits` [rows, vocabulary] in place; row i writes for request `source[i]`, so far `written[i]`."""
    places = [(i, token) for i, (k, ids) in enumerate(zip(source, written)) for token in avoided[k].after(ids)]
    if places:
        rows, tokens = zip(*places)
        logits[list(rows), list(tokens)] = float("-inf")
