"""Writes `queries.jsonl`, what people might ask a chat assistant, and of these by theme `messages.jsonl`.

    python -m data.demo.make_corpus [--queries 5120] [--rng-seed 0] [--cache FILE] [--only-themes]

The packaged backbone writes the messages (the Magpie trick: given only the template's system and user prefix, a chat
model continues with a user's query). What is malformed, offensive or nearly said before is dropped. The rest is
clustered by sentence embeddings; clusters become themes by the words that set them apart. With `--cache` a stopped
generation continues, and `--only-themes` starts from the `queries.jsonl` that is there.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import silhouette_samples

from facviz.backbone import Backbone, load_backbone
from facviz.embeddings import SentenceTransformerEmbedder
from facviz.files import append_line, read_lines
from facviz.llm.local import LocalChat
from facviz.overlap import distinct_trigrams, normalised, words_of
from facviz.records import LLMRequest, Message, Outcome
from facviz.synthesis.safety import is_withheld

HERE = Path(__file__).resolve().parent
SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    "You are a friendly assistant who answers everyday questions.",
    "You are a patient assistant who gives practical advice.",
)
"""Generic on purpose: a theme in the system prompt makes a small model write about the prompt."""
BATCH = 128
MAX_TOKENS = 80

MIN_WORDS, MAX_WORDS = 4, 60
_ALLOWED = re.compile(r"[A-Za-z0-9 ,.;:!?'\"()%$&/-]+")
"""Anything else is code, markup, a formula or another language, which this corpus leaves out."""
_ENDS = re.compile(r"[.!?][\"')]?$")
_UNWANTED = re.compile(
    r"https?:|www\.|\.com\b|\.org\b|\S@\S|\d{4,}[- ]\d{3,}"
    r"|\b(?:smollm|hugging ?face|chatgpt|openai|google|facebook|instagram|youtube|twitter|tiktok|whatsapp|snapchat|"
    r"netflix|spotify|amazon|microsoft|iphones?|ipads?|android|tesla|disney|nintendo|playstation|xbox|starbucks|"
    r"mcdonald'?s|coca|pepsi|walmart|uber|airbnb|linkedin|pinterest|reddit|adobe|photoshop|excel|powerpoint|"
    r"toyota|honda|ford|bmw|michelin|ikea|alexa|samsung|sony|nike|adidas|"
    r"sex\w*|nude\w*|porn\w*|kill\w*|murder\w*|suicid\w*|drugs?|cocaine|heroin|weapons?|guns?|bombs?|terror\w*|"
    r"rap(?:e|ed|ist)|nazi\w*|hitler|racis\w*|slaves?|slavery|damn|hell|shit\w*|fuck\w*|bitch\w*|stupid|idiots?|"
    r"gay|lesbian|muslims?|jews?|church|god|abus\w*|addict\w*|steal|hack\w*|illegal\w*|prison|divorc\w*|pregnan\w*|"
    r"girlfriend|boyfriend|casino|gambl\w*|beer|alcohol|republicans?|democrats?|trump|biden|obama|abortion|genocide|war|wars|covid\S*|pandemic|cancer|depress\w*)\b",
    re.IGNORECASE,
)
"""Addresses, brands, and what does not belong in a demo that people show each other."""
MIN_DISTINCT = 0.85
MAX_COSINE = 0.9

N_CLUSTERS = 26
MIN_SILHOUETTE = 0.03
N_WORDS = 6
MIN_PER_THEME, MAX_PER_THEME = 60, 150
THEMES = {
    "business and marketing": ("business", "launch", "marketing"),
    "careers and interviews": ("career", "interview"),
    "code and numbers": ("python", "function", "math"),
    "energy and climate": ("energy", "climate", "sustainable"),
    "fitness and yoga": ("fitness", "yoga"),
    "homes and renovation": ("renovation", "home"),
    "laptops and cars": ("laptop", "car"),
    "parties and weddings": ("party", "wedding"),
    "recipes and cooking": ("recipe", "vegan"),
    "restaurants and food": ("restaurant",),
    "stories and novels": ("story", "novel"),
    "time and stress": ("stress", "workload", "overwhelmed"),
    "trips and travel": ("trip", "vacation"),
}
"""Themes of everyday life and the words by which a cluster is recognised as one of them."""


def write_queries(backbone: Backbone, n: int, rng_seed: int, cache: Path | None) -> Iterator[str]:
    """At least `n` raw queries, batch by batch; each batch depends on its number and the seed only."""
    writer = LocalChat(backbone)
    known = {(e["rng_seed"], e["batch"]): e["texts"] for e in read_lines(cache)} if cache else {}
    for number in range(-(-n // BATCH)):
        texts = known.get((rng_seed, number))
        if texts is None:
            texts = _batch(writer, number, rng_seed)
            if cache:
                append_line(cache, {"rng_seed": rng_seed, "batch": number, "texts": texts})
        yield from texts


def _batch(writer: LocalChat, number: int, rng_seed: int) -> list[str]:
    request = LLMRequest(
        (Message("system", SYSTEMS[number % len(SYSTEMS)]),),
        n=BATCH,
        max_tokens=MAX_TOKENS,
        temperature=0.8,
        top_p=0.9,
        rng_seed=rng_seed * 100_003 + number,
    )
    return [reply.text for reply in writer.complete([request])[0] if reply.outcome is Outcome.OK]


def clean_queries(raw: Iterator[str]) -> list[str]:
    """Well-formed single messages, each once, in the order they were written."""
    kept: dict[str, str] = {}
    for query in raw:
        text = " ".join(query.split())
        if is_usable(text):
            kept.setdefault(normalised(text), text)
    return list(kept.values())


def is_usable(text: str) -> bool:
    """Whether a query is a whole plain sentence or a few, free of what nobody wants to see in a demo."""
    words = words_of(text)
    return (
        MIN_WORDS <= len(words) <= MAX_WORDS
        and text[0].isupper()
        and bool(_ALLOWED.fullmatch(text) and _ENDS.search(text))
        and not _UNWANTED.search(text)
        and not is_withheld(text)
        and distinct_trigrams(words) >= MIN_DISTINCT
    )


def distinct_rows(vectors: npt.NDArray[np.float32]) -> list[int]:
    """Rows kept, first come first kept, such that no two unit vectors are closer than `MAX_COSINE`."""
    kept: list[int] = []
    for i, vector in enumerate(vectors):
        if not kept or float((vectors[kept] @ vector).max()) <= MAX_COSINE:
            kept.append(i)
    return kept


def group_by_theme(texts: Sequence[str], vectors: npt.NDArray[np.float32], rng_seed: int) -> dict[str, list[int]]:
    """Theme to the texts of its clusters, in the order they were written; clusters of no theme are left out."""
    labels = cluster(vectors, rng_seed)
    groups: dict[str, list[int]] = {}
    for words, members in zip(cluster_words(texts, labels), range(N_CLUSTERS)):
        if theme := theme_of(words):
            groups.setdefault(theme, []).extend(np.flatnonzero(labels == members).tolist())
    return {theme: sorted(members) for theme, members in sorted(groups.items()) if len(members) >= MIN_PER_THEME}


def cluster(vectors: npt.NDArray[np.float32], rng_seed: int) -> npt.NDArray[np.int64]:
    """Cluster number of every unit vector; −1 where it lies between clusters."""
    labels = KMeans(N_CLUSTERS, n_init=20, random_state=rng_seed).fit_predict(vectors)
    is_inside = silhouette_samples(vectors, labels, metric="cosine") >= MIN_SILHOUETTE
    return np.where(is_inside, labels, -1)


def cluster_words(texts: Sequence[str], labels: npt.NDArray[np.int64]) -> list[list[str]]:
    """The words that set each cluster apart, best first: class-based tf-idf, every cluster read as one text."""
    vectorizer = CountVectorizer(stop_words="english", token_pattern=r"[a-zA-Z]{3,}", min_df=3)
    counts = vectorizer.fit_transform(texts)
    names = vectorizer.get_feature_names_out()
    in_cluster = np.stack([np.asarray(counts[labels == c].sum(axis=0)).ravel() for c in range(N_CLUSTERS)])
    share = in_cluster / np.maximum(in_cluster.sum(axis=1, keepdims=True), 1)
    weight = share * np.log1p(counts.sum() / N_CLUSTERS / np.asarray(counts.sum(axis=0)).ravel())
    return [names[np.argsort(-row)[:N_WORDS]].tolist() for row in weight]


def theme_of(words: Sequence[str]) -> str | None:
    """The theme that the foremost of a cluster's words belongs to."""
    for word in words:
        for theme, own in THEMES.items():
            if word in own:
                return theme
    return None


def thin_out(members: Sequence[int], rng: np.random.Generator) -> list[int]:
    """At most `MAX_PER_THEME` of a theme's texts, so that no theme outweighs the others."""
    if len(members) <= MAX_PER_THEME:
        return list(members)
    return sorted(rng.choice(members, MAX_PER_THEME, replace=False).tolist())


def make_rows(texts: Sequence[str], rng_seed: int) -> list[dict[str, str]]:
    """The rows of `messages.jsonl` out of clean queries, themes mixed."""
    vectors = SentenceTransformerEmbedder().embed(texts)
    kept = distinct_rows(vectors)
    texts, vectors = [texts[i] for i in kept], vectors[kept]
    rng = np.random.default_rng(rng_seed)
    rows = []
    for theme, members in group_by_theme(texts, vectors, rng_seed).items():
        for number, i in enumerate(thin_out(members, rng), start=1):
            rows.append({"id": f"{theme.split()[0]}-{number:03d}", "text": texts[i], "theme": theme})
    return [rows[i] for i in rng.permutation(len(rows))]


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=5120, help="raw queries to write")
    parser.add_argument("--rng-seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="file of finished batches; a stopped generation continues from it")
    parser.add_argument("--only-themes", action="store_true", help="start from the queries.jsonl that is there")
    told = parser.parse_args()
    if not told.only_themes:
        backbone = load_backbone("default", dtype=torch.bfloat16)
        raw = write_queries(backbone, told.queries, told.rng_seed, told.cache)
        _write(HERE / "queries.jsonl", [{"text": text} for text in clean_queries(raw)])
    texts = [row["text"] for row in read_lines(HERE / "queries.jsonl")]
    _write(HERE / "messages.jsonl", make_rows(texts, told.rng_seed))


def _write(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
