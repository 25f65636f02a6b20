"""The corpora in which gaps are known: texts by theme and their activations, encoded once and kept in a cache."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from facviz.records import Document, Ints, Message

if TYPE_CHECKING:
    from facviz.activations import SaeEncoder

DEMO = Path(__file__).resolve().parent.parent / "data" / "demo"
CHUNK = 256
MAX_TOKENS = 256

_T0_FAMILIES = (
    "adversarial_qa", "ag_news", "amazon_polarity", "app_reviews", "cnn_dailymail", "common_gen", "commonsense_qa",
    "cosmos_qa", "dbpedia", "dream", "duorc", "gigaword", "glue_mrpc", "glue_qqp", "imdb", "kilt", "multi_news", "paws",
    "qasc", "quarel", "quartz", "ropes", "rotten_tomatoes", "samsum", "sciq", "social_i", "wiki_bio", "wiki_qa", "wiqa",
    "xsum", "yelp",
)  # fmt: skip

_MOST = {"gpteacher:codegen": 1200, "gpteacher:roleplay": 1000, "hh_harmless": 1000}
_MOST_OF_A_FAMILY = 400


@dataclass(frozen=True, slots=True)
class Text:
    """One document with the theme it is known to belong to."""

    document: Document
    theme: str


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """`g_i(x)` of a corpus, documents × features, with themes and content tokens."""

    acts: sparse.csr_matrix
    themes: tuple[str, ...]
    n_tokens: Ints


def general_texts(folder: Path) -> list[Text]:
    """`general_instructions`: the source of each conversation is its theme, templates of one T0 set counted together.

    At most 400 of a source (1,000 to 1,200 of the three large ones), chosen by the hash of their text; every text once.
    """
    by_theme: dict[str, dict[str, Text]] = defaultdict(dict)
    with gzip.open(folder / "general_instructions" / "conversations.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            document = Document(tuple(Message(m["role"], m["content"]) for m in row["messages"]))
            theme = source_family(row["source"])
            by_theme[theme].setdefault(_digest(document), Text(document, theme))
    kept = []
    for theme, texts in sorted(by_theme.items()):
        kept += [texts[key] for key in sorted(texts)[: _MOST.get(theme, _MOST_OF_A_FAMILY)]]
    return kept


def source_family(source: str) -> str:
    """`t0:imdb_Reviewer_Opinion…` → `imdb`; other sources as they are."""
    name = source.removeprefix("t0:")
    return next((family for family in _T0_FAMILIES if name.startswith(family)), source)


def demo_texts() -> list[Text]:
    """The demo's anchor set with its twelve themes."""
    rows = map(json.loads, (DEMO / "messages.jsonl").read_text(encoding="utf-8").splitlines())
    return [Text(Document.from_text(row["text"]), row["theme"]) for row in rows]


def encode(texts: Sequence[Text], cache: Path, *, stop_after: float = float("inf")) -> Encoded | None:
    """Activations of all texts by the demo's SAE, from the cache where they are; None when time ran out before the end.

    A chunk's file is named by its texts and the SAE, so a stopped run goes on where it was.
    """
    cache.mkdir(parents=True, exist_ok=True)
    weights = hashlib.sha256((DEMO / "sae" / "sae_weights.safetensors").read_bytes()).hexdigest()
    started, encoder = time.monotonic(), None
    parts = []
    for chunk in _chunks(texts):
        path = cache / f"{_chunk_key(chunk, weights)}.npz"
        if not path.is_file():
            if time.monotonic() - started > stop_after:
                return None
            encoder = encoder or demo_encoder()
            print(f"encoding {len(parts) + 1} of {-(-len(texts) // CHUNK)}", file=sys.stderr, flush=True)
            _encode_chunk(encoder, chunk, path)
        parts.append(_read_chunk(path, len(chunk)))
    acts = sparse.vstack([matrix for matrix, _ in parts], format="csr")
    return Encoded(acts, tuple(t.theme for t in texts), np.concatenate([tokens for _, tokens in parts]))


def demo_encoder() -> SaeEncoder:
    """The demo's SAE on the packaged backbone, in whichever precision is faster here."""
    import torch

    from facviz.activations import SaeEncoder, faster_dtype
    from facviz.backbone import load_backbone
    from facviz.config import BackboneConfig
    from facviz.sae.formats import load_sae

    config = BackboneConfig(layer=15, max_tokens=MAX_TOKENS)
    slow = load_backbone(config.name, config.layer, config=config, dtype=torch.float32)
    half = load_backbone(config.name, config.layer, config=config, dtype=torch.bfloat16)
    fast = half if faster_dtype(slow, half)[0] == torch.bfloat16 else slow
    return SaeEncoder(slow, load_sae(DEMO / "sae"), config=config, fast=fast)


def _encode_chunk(encoder: SaeEncoder, chunk: Sequence[Text], path: Path) -> None:
    encoded = encoder.encode([text.document for text in chunk])
    matrix = encoded.max_acts
    temporary = path.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        data=matrix.data,
        indices=matrix.indices,
        indptr=matrix.indptr,
        n_tokens=encoded.n_content_tokens,
        d_sae=matrix.shape[1],
    )
    temporary.replace(path)


def _read_chunk(path: Path, n_docs: int) -> tuple[sparse.csr_matrix, Ints]:
    with np.load(path, allow_pickle=False) as stored:
        shape = (n_docs, int(stored["d_sae"]))
        matrix = sparse.csr_matrix((stored["data"], stored["indices"], stored["indptr"]), shape=shape)
        return matrix, stored["n_tokens"]


def _chunks(texts: Sequence[Text]) -> Iterator[Sequence[Text]]:
    return (texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK))


def _chunk_key(chunk: Sequence[Text], weights: str) -> str:
    described: list[Any] = [weights, MAX_TOKENS, [_digest(text.document) for text in chunk]]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:24]


def _digest(document: Document) -> str:
    return hashlib.sha256(json.dumps([[m.role, m.content] for m in document.messages]).encode()).hexdigest()
