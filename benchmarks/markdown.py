"""Cells, rows and figures of the tables in docs, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def row(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def rule(n: int) -> str:
    """What stands under the heads of n columns."""
    return "|" + "---|" * n


def percent(value: float) -> str:
    """A share in whole per cent."""
    return f"{100 * value:.0f} %"


def share(estimate: Mapping[str, float]) -> str:
    """A share with its interval, in per cent."""
    return f"{100 * estimate['value']:.0f} % ({100 * estimate['low']:.0f}–{100 * estimate['high']:.0f})"


def points(estimate: Mapping[str, float]) -> str:
    """A difference of shares with its interval, in points."""
    return f"{100 * estimate['value']:+.0f} ({100 * estimate['low']:+.0f} to {100 * estimate['high']:+.0f})"


def auprc(found: Mapping[str, float]) -> str:
    """AUPRC with its interval."""
    return f"{found['auprc']:.3f} ({found['low']:.3f}–{found['high']:.3f})"


def listed(deltas: Sequence[float]) -> str:
    """Thresholds in a sentence."""
    return ", ".join(f"{d:g}" for d in deltas)
