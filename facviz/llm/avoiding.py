"""Never more than a few tokens in a row of a text that was shown: the next token of such a run is not drawn.

A small model shown examples repeats them; half of all candidates were turned down as copied.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from facviz.overlap import placed_words

RUN_TOKENS, RUN_WORDS = 7, 4
"""A run that may stand in both ends when it has so many tokens and so many words: marks alone, as the seven tokens of
`<br /><br />` are, are nobody's text."""


class Avoided:
    """What may not follow, by the tokens before it, for the texts of one request."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
        self._next: dict[tuple[int, ...], set[int]] = defaultdict(set)
        self._sizes: list[int] = []
        for text in texts:
            for spelled in {text, f" {text}"}:  # the first word has another token behind a space
                self._add(tokenizer, spelled)
        self._sizes = sorted({len(run) for run in self._next})

    @property
    def longest(self) -> int:
        """How many of the last tokens it looks at, at most."""
        return max(self._sizes, default=0)

    def after(self, written: Sequence[int]) -> set[int]:
        """Tokens that would lengthen a run behind what is written."""
        ends = (tuple(written[-size:]) for size in self._sizes)
        return {token for end in ends for token in self._next.get(end, ())}

    def _add(self, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, (starts, ends) = encoded["input_ids"], zip(*encoded["offset_mapping"] or [(0, 0)])
        words = placed_words(text)
        word_starts = [word.start for word in words]
        for place in range(RUN_TOKENS, len(ids)):
            fourth_last = bisect_left(word_starts, ends[place - 1]) - RUN_WORDS  # of the words begun before the place
            if fourth_last >= 0:
                first = bisect_left(starts, words[fourth_last].end) - 1
                run = ids[min(first, place - RUN_TOKENS) : place]
                self._next[tuple(run)].add(ids[place])


def rule_out(
    logits: Tensor, avoided: Sequence[Avoided], source: Sequence[int], written: Sequence[Sequence[int]]
) -> None:
    """Change `logits` [rows, vocabulary] in place; row i writes for request `source[i]`, so far `written[i]`."""
    places = [(i, token) for i, (k, ids) in enumerate(zip(source, written)) for token in avoided[k].after(ids)]
    if places:
        rows, tokens = zip(*places)
        logits[list(rows), list(tokens)] = float("-inf")
