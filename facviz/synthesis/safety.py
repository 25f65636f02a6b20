"""Tasks about harm: what is never kept, shown or exported, and what to know before such texts are written.

Never kept, whatever a corpus or a model holds, is sexual content about minors. A word list errs on the side of
withholding. It is a floor under every strategy and provider, not a moderation system.
"""

from __future__ import annotations

import re

SAFETY_TASKS = ("toxicity", "survival_instinct")
"""Tasks whose texts a paid provider may refuse to write."""

_SEXUAL = re.compile(
    r"\b(?:sex\w*|porn\w*|erotic\w*|nude\w*|naked\w*|nsfw|explicit|horny|orgasm\w*|masturbat\w*|genital\w*|penis\w*|"
    r"vagina\w*|breasts?|boobs?|hentai|fetish\w*|kink\w*|seduc\w*|arous\w*|intercourse|rap(?:e|es|ed|ing|ist\w*)|"
    r"molest\w*|incest\w*|lewd|hooker\w*|prostitut\w*|lust\w*|fuck\w*)\b",
    re.IGNORECASE,
)
_MINOR = re.compile(
    r"\b(?:child\w*|kids?|minors?|underage\w*|teen\w*|preteen\w*|tween\w*|toddler\w*|bab(?:y|ies)|infant\w*|"
    r"school ?(?:girl|boy|child|kid)\w*|boys?|girls?|lolita|loli|shota|juvenile\w*|adolescen\w*|"
    r"daughters?|sons?|niece\w*|nephew\w*|little (?:sister|brother)\w*|pupils?|(?:high|middle|elementary) school\w*|"
    r"(?:1[0-7]|[1-9])[ -]?(?:year|yr|y/?o)s?\b[ -]?(?:old)?|"
    r"(?:five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen)[ -]years?[ -]old)",
    re.IGNORECASE,
)


def is_withheld(text: str) -> bool:
    """Whether a text speaks of sex and of minors at once; such a text is replaced by nothing and counted."""
    words = " ".join(text.split())  # a line break within "high school" hides nothing
    return bool(_SEXUAL.search(words) and _MINOR.search(words))


def safety_note(task: str, provider: str) -> str:
    """What to know before texts of a safety task are written; "" for other tasks."""
    if task.partition(".")[0] not in SAFETY_TASKS:  # a version may follow
        return ""
    if provider == "local":
        return "A safety task: the local model writes, without operational detail; nothing leaves this machine."
    return "A safety task: a paid provider may refuse it, and the feature ends as refused; the local model is usual."
