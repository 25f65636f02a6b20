"""What tests ask of a page under AppTest."""

from __future__ import annotations

PAGES = ("overview", "data", "sae", "features", "feature", "review", "coverage", "synthesis", "evaluation", "jobs")


def complaints(app) -> list[str]:
    """What a page shows of exceptions, errors and warnings."""
    return [e.message for e in app.exception] + [e.value for e in app.error] + [e.value for e in app.warning]


def shown(app) -> str:
    """All text of a page that is not in a table or a chart."""
    return "\n".join(str(e.value) for kind in ("html", "markdown", "text", "metric", "caption") for e in app.get(kind))
