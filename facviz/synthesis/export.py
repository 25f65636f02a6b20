"""The data set handed back, in the formats that training libraries read; every row says where it comes from.

Only the exact text that was verified is written. A format that needs what a sample lacks, such as an answer, leaves
that sample out with a reason; nothing is invented to fill a field.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from facviz.synthesis.formats.choices import PUBLISHED

Row = Mapping[str, Any]
Messages = Sequence[Mapping[str, str]]

EXPORTED = (
    "text", "messages", "feature_id", "act", "act_threshold", "candidate_id", "synth_id", "strategy", "generator",
    "rng_seed", "review",
)  # fmt: skip
PROVENANCE: Mapping[str, type] = {
    "candidate_id": str, "feature_id": int, "explanation": str, "explanation_version": int, "explanation_author": str,
    "theme": str, "task": str, "sae_id": str, "backbone": str, "layer": int, "coverage_id": str, "anchor": str,
    "seed": str, "synth_id": str, "strategy": str, "step": str, "round": int, "slot": int, "rng_seed": int,
    "generator": str, "prompt": str, "prompt_sha256": str, "act": float, "act_threshold": float, "gates": str,
    "pair_state": str, "strong_id": str, "weak_id": str, "pair_margin": float, "review": str, "reviewer": str,
    "reviewed_at": str, "review_reason": str, "format": str, "sign": int, "fields": str,
}  # fmt: skip
"""What every exported row says of its origin, with the type of each value; any may be null."""
POSITIVE = "1"
"""Label of a sample whose feature has no theme: as published, a text for a relevant feature is a positive."""
TSV_COLUMNS = ("text", "label", *PROVENANCE)

APPROVED = ("approved", "edited")
"""Reviews by which a person stands behind a sample, as written or as that person put it and it verified again."""

NO_ANSWER = "without an assistant's answer"
SEVERAL_TURNS = "with more than one question and answer"
NO_PAIR = "without a worse reply to their prompt"
NO_OPTIONS = "without two options"


def kept_samples(samples: Iterable[Row], *, only_approved: bool = False) -> list[Row]:
    """Accepted samples nobody rejected, or only those a person approved."""
    kept = []
    for sample in samples:
        if not sample["accepted"]:
            raise ValueError(f"candidate {sample['candidate_id']} was not accepted")
        if sample["review"] != "rejected" and (sample["review"] in APPROVED or not only_approved):
            kept.append(sample)
    return kept


def provenance_of(sample: Row) -> dict[str, Any]:
    """Feature, explanation, SAE, pair, prompt, generator, measures, reviewer and format of a sample."""
    fields = fields_of(sample)
    named = {"format": fields.get("format"), "sign": fields.get("sign")}
    return {name: sample.get(name) for name in PROVENANCE} | named


def fields_of(sample: Row) -> Row:
    """What the sample's format holds beside its text; empty where the text is all there is."""
    found: Row = json.loads(sample.get("fields") or "{}")
    return found


def label_of(sample: Row) -> str:
    """The theme of the sample's feature, else the positive class."""
    return str(sample.get("theme") or POSITIVE)


def format_rows(name: str, samples: Sequence[Row]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Samples as rows of a format of `BUILDERS`, and how many were left out for which reason."""
    build, rows, left_out = BUILDERS[name], [], Counter[str]()
    for sample in samples:
        made = build(sample)
        if isinstance(made, str):
            left_out[made] += 1
        else:
            rows.append(made | {"provenance": provenance_of(sample)})
    return rows, dict(left_out)


def tsv_text(samples: Sequence[Row]) -> str:
    """A header and a line a sample; a text with tabs, quotes or line ends is quoted as CSV does."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(TSV_COLUMNS)
    writer.writerows([row[name] for name in TSV_COLUMNS] for row in flat_rows(samples))
    return out.getvalue()


def flat_rows(samples: Sequence[Row]) -> list[dict[str, Any]]:
    """Text, messages and label, with the provenance as columns beside them: what a Parquet file holds."""
    return [{"text": s["text"], "messages": _messages(s), "label": label_of(s), **provenance_of(s)} for s in samples]


def _messages(sample: Row) -> list[dict[str, str]]:
    return [{"role": m["role"], "content": m["content"]} for m in sample["messages"]]


def _as_messages(sample: Row) -> dict[str, Any]:
    return {name: sample[name] for name in EXPORTED} | {"label": label_of(sample)}


def _as_text(sample: Row) -> dict[str, Any]:
    return {"text": sample["text"]}


def _as_sharegpt(sample: Row) -> dict[str, Any]:
    speakers = {"user": "human", "assistant": "gpt"}
    turns = [{"from": speakers.get(m["role"], m["role"]), "value": m["content"]} for m in sample["messages"]]
    return {"conversations": turns}


def _as_prompt(sample: Row) -> dict[str, Any] | str:
    found = _question_and_answer(sample["messages"])
    if isinstance(found, str):
        return found
    system, question, answer = found
    return {**({"system": system} if system else {}), "prompt": question, "completion": answer}


def _as_alpaca(sample: Row) -> dict[str, Any] | str:
    found = _question_and_answer(sample["messages"])
    if isinstance(found, str):
        return found
    system, question, answer = found
    return {"instruction": question, "input": "", "output": answer, "system": system}


def _as_preference(sample: Row) -> dict[str, Any] | str:
    """Chosen is the sample; rejected the worse reply written with it, else the weak text of its feature's pair.

    Only where both answer one prompt.
    """
    written = fields_of(sample)
    if "rejected" in written:
        *turns, better = _messages(sample)
        return {"prompt": turns, "chosen": [better], "rejected": [better | {"content": written["rejected"]}]}
    chosen, rejected = (sample["messages"] or []), (sample.get("weak_messages") or [])
    shares = len(chosen) > 1 and chosen[:-1] == rejected[:-1]
    both_answer = shares and chosen[-1]["role"] == rejected[-1]["role"] == "assistant"
    if not both_answer or chosen[-1]["content"] == rejected[-1]["content"]:
        return NO_PAIR
    prompt = [{"role": m["role"], "content": m["content"]} for m in chosen[:-1]]
    last = [[{"role": m[-1]["role"], "content": m[-1]["content"]}] for m in (chosen, rejected)]
    return {"prompt": prompt, "chosen": last[0], "rejected": last[1]}


def _as_choices(sample: Row) -> dict[str, Any] | str:
    """A question with two options in the published form, and what its matching answer stands for.

    The sign is that of the task: −1 where the matching answer is the pole opposite to the task's rubric.
    """
    fields = fields_of(sample)
    if any(name not in fields for name in PUBLISHED):
        return NO_OPTIONS
    return {name: fields[name] for name in (*PUBLISHED, "sign")}


def _question_and_answer(messages: Messages) -> tuple[str, str, str] | str:
    """System text, question and answer of a single exchange, or why there is none."""
    roles = [m["role"] for m in messages]
    if "assistant" not in roles:
        return NO_ANSWER
    if roles[-2:] != ["user", "assistant"] or any(role != "system" for role in roles[:-2]) or len(roles) > 3:
        return SEVERAL_TURNS
    system = messages[0]["content"] if len(roles) == 3 else ""
    return system, messages[-2]["content"], messages[-1]["content"]


BUILDERS: Mapping[str, Callable[[Row], dict[str, Any] | str]] = {
    "messages": _as_messages,
    "sft": _as_text,
    "prompt-completion": _as_prompt,
    "preference": _as_preference,
    "alpaca": _as_alpaca,
    "sharegpt": _as_sharegpt,
    "choices": _as_choices,
}
"""Formats of JSON lines: a sample's row, or the reason why it has none."""
