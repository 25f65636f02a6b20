"""Features grouped by what their explanations say: clusters named by their own words, and a map, alike ones close.

Everything here follows from explanations and their sentence vectors; a feature without an explanation has no place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from facviz.records import Floats, Ints

FEWEST_TO_GROUP = 6
MOST_GROUPS = 12
MOST_FOR_TSNE = 3000
_WORDS_IN_NAME = 3
_COMMON_SHARE = 0.5
"""A word in more of the explanations belongs to how they are put, not to what they say."""
_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Features with an explanation: their cluster's name and their place on the map, [n]."""

    features: tuple[int, ...]
    themes: tuple[str, ...]
    places: Floats  # [n, 2]


def lay_out(ids: Sequence[int], texts: Mapping[int, str], known_ids: Ints, vectors: Floats) -> Layout:
    """Clusters and map of those of `ids` that have a text; `vectors` [m, d] belong to `known_ids`."""
    place = {feature: i for i, feature in enumerate(known_ids.tolist())}
    kept = [f for f in ids if f in place and texts.get(f)]
    chosen = vectors[[place[f] for f in kept]] if kept else np.empty((0, 2))
    themes = cluster_explanations([texts[f] for f in kept], chosen)
    return Layout(tuple(kept), tuple(themes), map_places(chosen))


def cluster_explanations(texts: Sequence[str], vectors: Floats, *, rng_seed: int = 0) -> list[str]:
    """A theme for each explanation: k-means of the vectors, each cluster named by the words that set it apart.

    The words are those with the highest class-based tf-idf: often in this cluster, seldom in the others.
    """
    from sklearn.cluster import KMeans  # slow to import

    if len(texts) < FEWEST_TO_GROUP:
        return [""] * len(texts)
    n_groups = int(np.clip(round(np.sqrt(len(texts) / 2)), 2, MOST_GROUPS))
    n_groups = min(n_groups, len(np.unique(vectors, axis=0)))
    groups = KMeans(n_groups, n_init=4, random_state=rng_seed).fit_predict(np.asarray(vectors, np.float64))
    names = _names(texts, groups, n_groups)
    return [names[group] for group in groups]


def _names(texts: Sequence[str], groups: Ints, n_groups: int) -> list[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    words = [{w for w in map(str.lower, _WORD.findall(text)) if w not in ENGLISH_STOP_WORDS} for text in texts]
    spread = Counter(word for found in words for word in found)
    counts = [Counter[str]() for _ in range(n_groups)]
    for found, group in zip(words, groups):
        counts[group].update(word for word in found if spread[word] <= _COMMON_SHARE * len(texts))
    everywhere = sum(counts, Counter[str]())
    average = sum(everywhere.values()) / n_groups
    names: list[str] = []
    for group, counted in enumerate(counts):
        score = {word: n * np.log1p(average / everywhere[word]) for word, n in counted.items()}
        best = sorted(score, key=lambda word: (-score[word], word))[:_WORDS_IN_NAME]
        name = ", ".join(best) or f"group {group + 1}"
        names.append(name if name not in names else f"{name} ({group + 1})")
    return names


def map_places(vectors: Floats, *, rng_seed: int = 0) -> Floats:
    """[n, 2]: t-SNE of the vectors from their principal components, or those alone for very many or very few."""
    if len(vectors) < 3:
        return np.stack([np.arange(len(vectors)), np.zeros(len(vectors))], axis=1)
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0)
    if len(centred) < 8 or len(centred) > MOST_FOR_TSNE:
        from sklearn.decomposition import PCA

        flat: Floats = PCA(2, random_state=rng_seed).fit_transform(centred)
        return flat
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(centred) - 1) / 3)
    placed: Floats = TSNE(2, perplexity=perplexity, init="pca", random_state=rng_seed).fit_transform(centred)
    return placed
