"""Prompt axes: small turns of phrase that vary what is asked, drawn more often where they led to accepted samples.

Persona, register, length, format and topic each have a handful of values, one of which is to say nothing. Values are
drawn by Thompson sampling from what was accepted of this feature, plus the run so far at the weight of a few of them.
Which axes a request draws, and every draw, follow from its place in the plan and from the ledger, never from a clock.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from facviz.prompts import render
from facviz.records import Candidate, Message

AXES_TEMPLATE = "synthesize_axes.v1"
AXES_OF_FORMS = ("persona", "register", "topic")
"""Axes that leave a sample of several parts its form; length and shape of those are the format's own."""
UNSAID = ""
"""The value that leaves an axis out of the request."""
AXES: Mapping[str, tuple[str, ...]] = {
    "persona": (UNSAID, "as a student", "as a parent", "as somebody at work", "as an older person", "as an expert"),
    "register": (UNSAID, "in a casual tone", "politely", "in a hurry", "with strong feelings", "in plain words"),
    "length": (UNSAID, "in a few words", "in one sentence", "in two sentences", "in three sentences"),
    "format": (UNSAID, "as a question", "as a request", "as a short story", "as a list", "as an opinion"),
    "topic": (UNSAID, "about work", "about family", "about school", "about money", "about last night"),
}
NOT_COUNTED = "not needed"
"""Reason of a candidate that nobody verified because enough were accepted: it says nothing about its axes."""
_PRIOR = (1.0, 3.0)  # of an unknown value: about one in four is accepted, worth four candidates
_RUN_WEIGHT = 8.0  # what all other features together count for, in candidates of this one

Drawn = Mapping[str, str]


@dataclass(slots=True)
class AxisCounts:
    """Accepted and turned down candidates of every value."""

    counts: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Count the candidates whose request drew axes."""
        for candidate in candidates:
            if candidate.reject_reason != NOT_COUNTED:
                for axis, value in candidate.gates.get("axes", {}).items():
                    self.counts[axis, value][not candidate.accepted] += 1

    def of(self, axis: str, value: str) -> tuple[int, int]:
        """Accepted and turned down."""
        accepted, rejected = self.counts.get((axis, value), (0, 0))
        return accepted, rejected


def draw_axes(
    feature: AxisCounts, run: AxisCounts, *, n_axes: int, rng_seed: int, among: Collection[str] = tuple(AXES)
) -> dict[str, str]:
    """`n_axes` axes of those at random, in their order, each with its drawn value, which may be `UNSAID`."""
    rng = np.random.default_rng(rng_seed)
    usable = [name for name in AXES if name in among]
    names = [usable[place] for place in sorted(rng.permutation(len(usable))[:n_axes])]
    drawn = {}
    for axis in names:
        draws = [rng.beta(*_belief(feature, run, axis, value)) for value in AXES[axis]]
        drawn[axis] = AXES[axis][int(np.argmax(draws))]
    return drawn


def _belief(feature: AxisCounts, run: AxisCounts, axis: str, value: str) -> tuple[float, float]:
    """Parameters of the Beta distribution of a value's acceptance for this feature."""
    (accepted, rejected), (run_accepted, run_rejected) = feature.of(axis, value), run.of(axis, value)
    shrink = min(1.0, _RUN_WEIGHT / max(1, run_accepted + run_rejected))
    return _PRIOR[0] + accepted + shrink * run_accepted, _PRIOR[1] + rejected + shrink * run_rejected


def with_axes(messages: tuple[Message, ...], drawn: Drawn) -> tuple[Message, ...]:
    """The conversation with the drawn values as a short clause of its last turn; unchanged when all are unsaid."""
    said = [value for value in drawn.values() if value != UNSAID]
    if not said:
        return messages
    last = messages[-1]
    asked = render(AXES_TEMPLATE, request=last.content, clause=", ".join(said))
    return (*messages[:-1], dataclasses.replace(last, content=asked))
