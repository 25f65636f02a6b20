"""What an explainer's reply comes to once it was read: a description, or an honest "cannot tell"."""

from __future__ import annotations

from dataclasses import dataclass

_SENTINELS = frozenset(
    {
        *("cannot tell", "cant tell", "can not tell", "i cannot tell", "i cant tell", "cannot determine", "cannot say"),
        *("unclear", "unknown", "none", "n a", "na", "no pattern", "no clear pattern", "not clear", "nothing"),
    }
)


@dataclass(frozen=True, slots=True)
class Said:
    """A reply that kept to its contract; an empty text means cannot tell."""

    text: str
    confidence: float | None = None
    """What the model said of itself; None where it was not asked."""
    reasoning: str = ""


def is_sentinel(text: str) -> bool:
    """Whether the whole text says that nothing can be said, whatever stands beside it (known defect 24)."""
    words = "".join(c if c.isalnum() else " " for c in text.replace("'", "").replace("’", "").casefold()).split()
    return " ".join(words) in _SENTINELS
