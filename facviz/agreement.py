"""How far people agree beyond chance: Cohen's kappa for two, Krippendorff's alpha for any number of them.

A share of equal answers alone flatters: who accepts nine items of ten agrees with anybody like them by chance. Both
measures are 1 for full agreement, 0 for what chance gives, below 0 for less than that, and unknown where everybody
always said the same one thing, since then chance and agreement cannot be told apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

FEW = 20
"""Below this many items, an agreement is only a hint."""

_KAPPA_WORDS = ((0.0, "no better than chance"), (0.2, "slight"), (0.4, "fair"), (0.6, "moderate"), (0.8, "substantial"))
"""Landis and Koch (1977): at most this value → its word; above the last one, almost perfect."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A coefficient with what it rests on; `value` is None where it cannot be told from chance."""

    value: float | None
    n_items: int  # that two or more people judged
    n_ratings: int  # of these items
    observed: float | None  # share of equal answers, over pairs of people


def cohen_kappa(pairs: Iterable[tuple[Hashable, Hashable]]) -> Agreement:
    """Agreement of two people on items that both judged; one pair of answers an item.

    >>> round(cohen_kappa([("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15).value, 3)
    0.4
    """
    answers = list(pairs)
    n = len(answers)
    if not n:
        return Agreement(None, 0, 0, None)
    observed = sum(a == b for a, b in answers) / n
    first, second = Counter(a for a, _ in answers), Counter(b for _, b in answers)
    by_chance = sum(first[kind] * second[kind] for kind in first) / n**2
    value = None if by_chance == 1 else (observed - by_chance) / (1 - by_chance)
    return Agreement(value, n, 2 * n, observed)


def krippendorff_alpha(items: Iterable[Sequence[Hashable]]) -> Agreement:
    """Agreement of any number of people, of whom each may have judged any items; the answers that each item got.

    Items with fewer than two answers say nothing about agreement and are left out.

    >>> round(krippendorff_alpha([("a", "a"), ("a", "b"), ("b", "b"), ("b",)]).value, 3)
    0.444
    """
    judged = [list(item) for item in items if len(item) > 1]
    n = sum(map(len, judged))
    if not judged:
        return Agreement(None, 0, 0, None)
    counts = [Counter(item) for item in judged]
    # Ordered pairs of unequal answers within an item, each item weighing as much as it has answers.
    unequal = sum(
        (len(item) ** 2 - sum(c * c for c in count.values())) / (len(item) - 1) for item, count in zip(judged, counts)
    )
    kinds = sum(counts, Counter[Hashable]())
    unequal_by_chance = (n * n - sum(c * c for c in kinds.values())) / (n - 1)
    value = None if unequal_by_chance == 0 else 1 - unequal / unequal_by_chance
    return Agreement(value, len(judged), n, 1 - unequal / n)


def in_words(agreement: Agreement) -> str:
    """What a coefficient means, after Landis and Koch, and whether there is enough of it to say."""
    if agreement.value is None:
        return "nothing judged by two yet" if not agreement.n_items else "everybody always said the same"
    words = next((name for most, name in _KAPPA_WORDS if agreement.value <= most), "almost perfect")
    return f"{words}, on few items" if agreement.n_items < FEW else words
