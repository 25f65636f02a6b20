"""The nouns of facviz as frozen dataclasses: what stages receive and return. No behaviour beyond derived values.

Bulk numbers travel as structures of NumPy arrays (`TokenCodes`, `Encoded`); single things as small records.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]

RAW_TEXT_ROLE = "text"
"""Role of the single message of a plain-text document: rendered without a chat template."""

PLAIN_TEXT = "plain_text"
"""Sample format of a task that names none: one message, whatever it says."""

CONTENT_SEPARATOR = "\n\n"
"""Joins the contents of a document's messages into `Document.text`."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: who speaks (`system`, `user`, `assistant`, or `text` for raw text) and the exact content."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a dataset; identity is its content, so equal documents have equal ids in every file order."""

    messages: tuple[Message, ...]
    label: str | None = None

    @property
    def doc_id(self) -> str:
        """16 hex characters of SHA-256 over roles and contents (label excluded)."""
        canonical = json.dumps([[m.role, m.content] for m in self.messages], ensure_ascii=False)
        return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def text(self) -> str:
        """All contents joined by a blank line; span character offsets count in this string."""
        return CONTENT_SEPARATOR.join(m.content for m in self.messages)

    @classmethod
    def from_text(cls, text: str, *, role: str = "user", label: str | None = None) -> Document:
        """A one-message document; `role="text"` means raw text without a template."""
        return cls((Message(role, text),), label)


class Split(StrEnum):
    """Which half of a feature's spans a document serves: writing the explanation, or scoring it."""

    EXPLAIN = "explain"
    SCORE = "score"


def split_of(doc_id: str) -> Split:
    """Half by document hash: a document never serves both sides, whatever dataset it stands in."""
    return Split.EXPLAIN if int(doc_id[:8], 16) % 2 == 0 else Split.SCORE


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row of an input file that became no document, with the reason a person can act on."""

    row: int
    reason: str
    excerpt: str
    file: str = ""
    """Path inside the folder that was read; empty where the input is one file."""


@dataclass(frozen=True, slots=True)
class TokenizedDocument:
    """A rendered document: ids as the model sees them and which of them are content.

    `char_start`/`char_end` index `Document.text`, −1 outside content. `n_cut_tokens` counts content tokens that did
    not fit.
    """

    doc_no: int
    token_ids: Ints  # [n]
    is_content: Bools  # [n]
    char_start: Ints  # [n]
    char_end: Ints  # [n]
    n_cut_tokens: int = 0

    @property
    def n_content_tokens(self) -> int:
        """Content tokens that fit."""
        return int(self.is_content.sum())


@dataclass(frozen=True, slots=True)
class TokenCodes:
    """Feature activations of the content tokens of a batch of documents, token-major (CSR).

    `doc_index[t]` points into `documents`, `position[t]` into that document's `token_ids`; the active features of
    token t are `feature_id[offsets[t]:offsets[t+1]]` (ascending) with activations `act[...]`, all > 0.
    """

    documents: tuple[TokenizedDocument, ...]
    doc_index: Ints  # [n_tokens]
    position: Ints  # [n_tokens]
    offsets: Ints  # [n_tokens + 1]
    feature_id: Ints  # [nnz]
    act: Floats  # [nnz]


@dataclass(frozen=True, slots=True)
class Encoded:
    """`g_i(x)` of a list of documents: documents × features, SciPy CSR.

    `peaks` has the same sparsity pattern as `max_acts` and holds the token position of each maximum, plus one (so that
    position 0 is storable).
    """

    max_acts: Any  # scipy.sparse.csr_matrix [n_docs, d_sae] float32
    peaks: Any  # scipy.sparse.csr_matrix [n_docs, d_sae] int32, position + 1
    n_content_tokens: Ints  # [n_docs]


@dataclass(frozen=True, slots=True)
class Span:
    """A token window `[start_token, end_token)` of a document that contains its peak token.

    `tokens` are slices of the document's text that join to exactly `text[start_char:end_char]`; `acts` are the
    feature's activations on them.
    """

    feature_id: int
    rank: int
    quantile: float
    split: Split
    doc_no: int
    start_token: int
    end_token: int
    start_char: int
    end_char: int
    peak_token: int
    act: float
    tokens: tuple[str, ...]
    acts: tuple[float, ...]

    @property
    def text(self) -> str:
        """The window as it stands in the document."""
        return "".join(self.tokens)

    @property
    def peak(self) -> str:
        """The token on which the activation is highest."""
        return self.tokens[self.peak_token - self.start_token]


class ExplanationOutcome(StrEnum):
    """What came of explaining a feature; `cannot tell` is an answer, never a text to match on (known defect 24)."""

    EXPLAINED = "explained"
    CANNOT_TELL = "cannot_tell"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a feature seems to respond to, who says so, and how well that held on spans it was not written from."""

    feature_id: int
    text: str
    outcome: ExplanationOutcome
    author_kind: str  # "lexical" | "llm" | "human"
    author: str
    prompt: str = ""
    version: int = 1
    scores: Mapping[str, float] = field(default_factory=dict)


class Verdict(StrEnum):
    """The paper's four-level relevance scale, strongest first (paper §5 of the method notes)."""

    YES = "yes"
    PROBABLY = "probably"
    MAYBE = "maybe"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Relevance:
    """One verdict on whether a feature matters to a task, from one source."""

    feature_id: int
    source: str  # "label" | "embedding" | "llm" | "human"
    verdict: Verdict
    score: float
    rationale: str
    theme: str = ""
    """The label it separates best, where every label was tried against all others."""


@dataclass(frozen=True, slots=True)
class TaskGuideline:
    """A downstream task: which roles' content counts, the rubric, and the sign of the wanted behaviour."""

    name: str
    title: str
    roles: tuple[str, ...]
    sign: int  # +1: the rubric describes the wanted pole; −1: the opposite one (survival instinct)
    description: str
    points: tuple[str, ...]
    sample_request: str  # what one synthetic sample of this task is, for the generator
    # How samples are written and measured; what a feature means for the task does not follow from it.
    format: str = field(default=PLAIN_TEXT, metadata={"fingerprint": False})


class PairState(StrEnum):
    """How step 1 of synthesis ended for a feature (paper Algorithm 2; known defects 5 and 29)."""

    PAIRED = "paired"
    NO_CONTRAST = "no_contrast"
    NONE_ACTIVE = "none_active"


@dataclass(frozen=True, slots=True)
class ContrastivePair:
    """The strongest and the weakest step-1 candidate of a feature; the weak one may still fire."""

    feature_id: int
    strong_id: str | None
    weak_id: str | None
    margin: float
    state: PairState


@dataclass(frozen=True, slots=True)
class Candidate:
    """One generated text with everything needed to trace it: where it stands in the plan, its seed and its measure.

    `act` is the target feature's maximum; batched and reduced-precision for a candidate that was only ranked, alone
    and in float32 once `gates["verified"]` is present.
    """

    candidate_id: str
    feature_id: int
    strategy: str
    step: str  # "pairs" | "guided"
    round: int
    slot: int
    text: str
    act: float
    peak_token: int
    gates: Mapping[str, Any]
    accepted: bool
    reject_reason: str | None
    rng_seed: int
    fields: Mapping[str, Any] | None = None
    """What the task's format holds beside the text; None where the text is all there is."""


class Outcome(StrEnum):
    """How a request to a language model ended; only `ok` carries a usable text."""

    OK = "ok"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True, eq=False)
class SteeringVector:
    """A push added to the residual stream while a model writes; only a client that runs the model itself takes one."""

    layer: int  # hidden-state index, as everywhere
    vector: Floats  # [d_model], as added to every written token
    strength: float
    """Length of the push in units of the feature's usual activation, for the record."""
    reads: Floats | None = None  # [d_model] what the feature is read by; None: the push goes on to the end of the reply
    ends_above: float = math.inf
    """The push of a reply ends with the first token whose state times `reads` exceeds this: what it is for has come."""


@dataclass(frozen=True, slots=True)
class LLMRequest:
    """What is asked of a language model: `n` independent replies to one conversation.

    `temperature` and `top_p` apply only where the provider samples; `rng_seed` fixes the replies of local models.
    `schema` is the JSON schema a reply must follow; where a provider cannot promise it, who asked still checks.
    """

    messages: tuple[Message, ...]
    n: int = 1
    max_tokens: int = 128
    temperature: float = 0.8
    top_p: float = 0.9
    rng_seed: int = 0
    schema: Mapping[str, Any] | None = None
    prompt: str = ""
    """Name and version of the template it was made from, for the record."""
    steering: SteeringVector | None = None
    """Pushes the model while it writes; a client that cannot raises `LLMError`."""
    avoid: tuple[str, ...] = ()
    """Texts no long run of which is to be written again; only a client that picks the tokens itself can see to it."""


@dataclass(frozen=True, slots=True)
class LLMReply:
    """One reply and how it ended."""

    text: str
    outcome: Outcome
    n_tokens: int
    detail: str = ""
    """Why there is no usable text, such as the category of a refusal."""
    call_id: str = ""
    """Key of the ledger's row; empty for a model that costs nothing."""
