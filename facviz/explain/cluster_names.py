"""Names of clusters of features, out of the words of their own explanations."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping

N_WORDS = 3
MIN_SHARE, MIN_FEATURES = 0.06, 2
"""A word names a cluster when so many of its explained features, and at least two, have it."""
MIN_LIFT = 2.0
"""And when it is so many times more frequent there than among all explanations."""
_WORD = re.compile(r"[^\W\d_](?:[\w'’-]*[^\W_])?")
_QUOTED = re.compile(r'"([^"]+)"')
_SHORTEST, _LONGEST = 3, 40


def name_clusters(cluster_of: Mapping[int, int], texts: Mapping[int, str]) -> dict[int, str]:
    """For each cluster up to three words that many of its explanations have and few of all others; "" for none.

    `cluster_of` maps feature to cluster, `texts` feature to explanation. A word weighs what it tells of the cluster:
    its share there times the logarithm of how much more frequent it is there than among all. So what every explanation
    says, such as "fires on", names nothing. Where an explanation quotes words, only those count.
    """
    words = {feature: _words(text) for feature, text in texts.items() if feature in cluster_of}
    words = {feature: found for feature, found in words.items() if found}
    overall = Counter(word for found in words.values() for word in found)
    members: defaultdict[int, list[set[str]]] = defaultdict(list)
    for feature, cluster in cluster_of.items():
        if cluster >= 0:
            members[cluster] += [words[feature]] if feature in words else []
    return {cluster: _name(members[cluster], overall, len(words)) for cluster in sorted(members)}


def _words(text: str) -> set[str]:
    quoted = _QUOTED.findall(text)
    found = _WORD.findall(" ".join(quoted) if quoted else text)
    return {word.lower() for word in found if _SHORTEST <= len(word) <= _LONGEST}


def _name(members: list[set[str]], overall: Counter[str], n_explained: int) -> str:
    counts = Counter(word for found in members for word in found)
    least = max(MIN_FEATURES, MIN_SHARE * len(members))
    weights = {}
    for word, n in counts.items():
        lift = n / len(members) / (overall[word] / n_explained)
        if n >= least and lift >= MIN_LIFT:
            weights[word] = n / len(members) * math.log(lift)
    best = sorted(weights, key=lambda word: (-weights[word], word))
    return ", ".join(best[:N_WORDS])
