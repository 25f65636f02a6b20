"""What a person may ask a model about features from the dashboard: the command it becomes, its cost, its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facviz.errors import InputError
from facviz.llm.providers import PAID_PROVIDERS
from facviz.store.queries import Queries
from facviz.views.format import UNKNOWN, count, count_of, duration, number
from facviz.views.scope import Looked

Row = Mapping[str, Any]

WHAT = {"explain": "Explain", "score": "Score", "judge": "Judge for a task"}
WHICH = {
    "all": "all that fire",
    "unexplained": "those without an explanation",
    "missing": "those still missing",
    "these": "these",
}
PROVIDERS = {
    "lexical": "by counting words",
    "local": "the local model",
    "anthropic": "Claude",
    "openai": "an OpenAI-compatible server",
}
MAX_IDS = 5000
"""Feature ids that one command names; more are explained as "all that fire"."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A job as asked for; `ids` empty means every feature that the stage can take."""

    what: str
    sae_id: str
    dataset: str
    provider: str
    model: str = ""
    ids: tuple[int, ...] = ()
    max_features: int | None = None
    n_candidates: int = 1
    kinds: tuple[str, ...] = ("embedding",)
    task: str = ""
    budget_usd: float | None = None
    concurrency: int = 4
    is_batch: bool = False

    @property
    def asks_model(self) -> bool:
        """Whether any language model is asked at all."""
        by_similarity = self.what == "score" and set(self.kinds) == {"embedding"}
        return self.provider != "lexical" and not by_similarity

    @property
    def is_paid(self) -> bool:
        """Whether it costs money: then a dry run comes first."""
        return self.asks_model and self.provider in PAID_PROVIDERS

    @property
    def title(self) -> str:
        """What the job is called."""
        which = count_of(len(self.ids), "feature") if self.ids else "the features"
        if self.what == "judge":
            return f"Judge {which} for {self.task}"
        return f"{WHAT[self.what]} {which}" + (f" by {PROVIDERS[self.provider]}" if self.asks_model else "")

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of the stage's config that differ from its defaults."""
        dataset = {"labels": self.dataset} if self.what == "judge" else {"dataset": self.dataset}
        given: dict[str, Any] = dict(dataset)
        if self.what == "judge":
            given |= {"source": "llm"}
        else:
            given |= {"features": self.ids} if self.ids else {}
            given |= {} if self.ids or self.max_features is None else {"max_features": self.max_features}
        if self.what == "score":
            given |= {"kinds": self.kinds}
        if self.asks_model or self.what == "explain":
            given |= {"provider": self.provider}
        if self.is_paid:
            given |= {"model": self.model} if self.model else {}
            given |= {"budget_usd": self.budget_usd} if self.budget_usd is not None else {}
            given |= {"batch": True} if self.is_batch else {"concurrency": self.concurrency}
        if self.what == "explain" and self.asks_model and self.n_candidates > 1:
            given |= {"n_candidates": self.n_candidates}
        return given

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command a person would type."""
        command = {"explain": "explain", "score": "score", "judge": "relevance"}[self.what]
        task = (f"--task={self.task}",) if self.what == "judge" else ()
        flags = (_flag(name, value) for name, value in self.settings.items())
        return (command, f"--sae={self.sae_id}", *task, *flags)


def _flag(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        return flag
    return f"{flag}={','.join(map(str, value)) if isinstance(value, tuple) else value}"


def chosen_ids(queries: Queries, looked: Looked, which: str, typed: str = "") -> tuple[int, ...]:
    """Features by a person's choice, of those with spans to explain from; () for all.

    Raises:
        InputError: none is left, the list is no list, or it names too many.
    """
    if which == "all":
        return ()
    parameters = {"sae_id": looked.sae_id, "dataset_id": looked.dataset.dataset_id}
    rows = queries.rows("explainable_features", **parameters)
    if which == "unexplained":
        ids = [row["feature_id"] for row in rows if not row["is_explained"]]
    elif which == "missing":
        found = queries.rows("missing", coverage_id=looked.run["coverage_id"]) if looked.run else []
        missing = {row["feature_id"] for row in found}
        ids = [row["feature_id"] for row in rows if row["feature_id"] in missing]
    else:
        ids = read_ids(typed)
    if not ids:
        raise InputError(f"There are no features among {WHICH[which]} that fire here; choose others.")
    if len(ids) > MAX_IDS:
        raise InputError(f"These are {count(len(ids))} features; name at most {count(MAX_IDS)}, or take all that fire.")
    return tuple(ids)


def read_ids(text: str) -> list[int]:
    """Feature ids as typed: `12, 40, 100-120`.

    Raises:
        InputError: a part is neither a number nor a range.
    """
    found: set[int] = set()
    for part in text.replace(";", ",").replace("–", "-").split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first and not dash:
            continue
        if not first.isdigit() or (dash and not last.isdigit()) or len(first + last) > 18:
            raise InputError(f"{part.strip()[:40]!r} is no feature; write ids with commas, such as 12, 40, 100-120.")
        end = int(last) if dash else int(first)
        if end - int(first) > MAX_IDS:
            raise InputError(f"{part.strip()[:40]!r} is too wide a range; name at most {count(MAX_IDS)} features.")
        found.update(range(int(first), end + 1))
    return sorted(found)


def cost_cells(estimate: Row) -> list[tuple[str, str, str]]:
    """Label, value and note of what a dry run found."""
    n_cached = estimate.get("n_cached", 0)
    to_send = estimate.get("n_calls", 0) - n_cached
    cells = [("Calls", count(to_send), f"{count(n_cached)} more are recorded and cost nothing." if n_cached else "")]
    if "n_input_tokens" in estimate:
        cells.append(("Tokens in, about", count(estimate["n_input_tokens"]), "Characters divided by 3.5."))
        cells.append(("Tokens out, at most", count(estimate["n_output_tokens"]), "Thinking counts as output."))
    cells.append(("Cost, at most", money(estimate.get("usd")), _money_note(estimate)))
    if "seconds" in estimate:
        cells.append(("Time, about", duration(estimate["seconds"]) if to_send else "none", ""))
    return cells


def money(usd: float | None) -> str:
    """Dollars; unknown is not nothing."""
    if usd is None:
        return UNKNOWN
    return f"${usd:,.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.4f}"


def _money_note(estimate: Row) -> str:
    if estimate.get("usd") is None:
        return "Nobody has priced this model; FACVIZ_PRICES may name a file that does."
    return "If every reply runs to its limit; most are far shorter." if estimate["usd"] else ""


def outcome_words(result: Row) -> str:
    """How a finished job ended, in counts that add up; "" for what has none."""
    parts: list[str] = []
    if "n_explained" in result:
        parts.append(f"{count(result['n_explained'])} explained")
        parts += [f"{count(result.get('n_cannot_tell'))} cannot tell"] * bool(result.get("n_cannot_tell"))
        failed = result.get("failures") or {}
        parts += [f"{count(n)} {name}" for name, n in sorted(failed.items()) if n]
        if result.get("n_better_than_lexical") is not None:
            parts.append(f"{count(result['n_better_than_lexical'])} held better than the words alone")
    elif "n_judged" in result:
        parts.append(f"{count(result['n_judged'])} judged")
        levels = ("yes", "probably", "maybe", "no")
        parts += [f"{count(result[level])} {level}" for level in levels if result.get(level)]
        parts += [f"{count(result.get('n_failed'))} without a usable verdict"] * bool(result.get("n_failed"))
    else:
        for kind in ("embedding", "detection", "fuzzing", "intruder"):
            if kind in result:
                found = result[kind]
                beside = f", other label {number(found['median_shuffled'])}" if found["median_shuffled"] else ""
                parts.append(f"{kind} {number(found['median'])}{beside} (median of {count(found['n_scored'])})")
                parts += [f"{count(found['n_invalid'])} answers unreadable"] * bool(found["n_invalid"])
    if result.get("usd"):
        parts.append(f"{money(result['usd'])} spent on this so far")
    return " · ".join(parts)


def asked_by(arguments: Sequence[str]) -> bool:
    """Whether a job is one of those this module makes."""
    return arguments[:1] in (("explain",), ("score",)) or (
        arguments[:1] == ("relevance",) and "--source=llm" in arguments
    )
