"""Numbers, times and texts as people read them; what is unknown is shown as unknown, never as 0."""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, datetime
from numbers import Integral
from typing import SupportsFloat

UNKNOWN = "–"

Real = SupportsFloat | None
"""Any number, Python's or NumPy's; None and NaN are unknown."""

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_JOINERS = "\u200c\u200d"  # invisible, but spelling in Persian, Hindi and emoji needs them
_SIGNS = {"\n": "↵", "\u2028": "↵", "\u2029": "↵", "\t": "→", "\x7f": "␡"}
_SIZE_UNITS = ("kB", "MB", "GB", "TB", "PB")
_JUST_NOW_SECONDS = 45
_MONTH_DAYS = 30


def number(x: Real) -> str:
    """Three significant digits with thousands separators; whole numbers below 1,000 as they are."""
    value = _finite(x)
    if value is None:
        return UNKNOWN
    if isinstance(x, Integral) and abs(value) < 1000:
        return _minus(str(int(value)))
    mantissa, exponent = f"{value:.2e}".split("e")
    power = int(exponent)
    if value and not -5 < power < 15:
        return _minus(f"{mantissa} × 10{str(power).translate(_SUPERSCRIPTS)}")
    rounded = float(f"{mantissa}e{exponent}")
    return _minus(f"{rounded:,.{max(0, 2 - power)}f}") if value else "0"


def count(n: Real) -> str:
    """A whole number with thousands separators."""
    value = _finite(n)
    return UNKNOWN if value is None else _minus(f"{round(value):,}")


def count_of(n: int, noun: str) -> str:
    """A number with its noun, regular plural: "1 feature", "2 features"."""
    return f"{count(n)} {noun}{'' if n == 1 else 's'}"


def percent(x: Real) -> str:
    """A fraction as per cent: no decimals from 10 % on, one below; rounding never makes it none or all."""
    value = _finite(x)
    if value is None:
        return UNKNOWN
    if 0 < value < 0.0005:
        return "< 0.1 %"
    if 0.995 <= value < 1:
        return "> 99 %"
    return f"{_digits(100 * value, _decimals(100 * value))} %"


def interval_percent(x: Real, low: Real, high: Real) -> str:
    """`62 % (58–66)`; without the brackets where the interval is unknown."""
    value, start, end = _finite(x), _finite(low), _finite(high)
    if value is None or start is None or end is None:
        return percent(x)
    decimals = _decimals(100 * value)
    return f"{percent(x)} ({_digits(100 * start, decimals)}–{_digits(100 * end, decimals)})"


def signed_points(x: Real) -> str:
    """A difference of two fractions in percentage points: `+12 points`, `−3.4 points`."""
    value = _finite(x)
    if value is None:
        return UNKNOWN
    points = 100 * value
    text = _digits(abs(points), _decimals(points))
    sign = "±" if not float(text) else "+" if points > 0 else "−"
    return f"{sign}{text} points"


def duration(seconds: Real) -> str:
    """`12 s`, `3 min 20 s`, `1 h 05 min` or `2 d 03 h`, rounded to the smaller unit shown."""
    value = _finite(seconds)
    if value is None or value < 0:
        return UNKNOWN
    if 0 < value < 0.5:
        return "< 1 s"
    if (whole := round(value)) < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if (minutes := round(value / 60)) < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(value / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def ago(when: str | datetime | None, now: datetime) -> str:
    """How long ago: `just now`, `5 min ago`, `3 h ago`, `2 d ago`, a date after a month; without a zone it is UTC."""
    moment = _moment(when)
    if moment is None:
        return UNKNOWN
    seconds = (_in_utc(now) - moment).total_seconds()
    if abs(seconds) < _JUST_NOW_SECONDS:
        return "just now"
    days = seconds / 86_400
    if not 0 < days < _MONTH_DAYS:
        return f"{moment:%Y-%m-%d}"
    if (minutes := round(seconds / 60)) < 60:
        return f"{minutes} min ago"
    return f"{round(24 * days)} h ago" if days < 2 else f"{round(days)} d ago"


def size(n_bytes: Real) -> str:
    """Decimal units, three significant digits: `512 B`, `9.44 MB`."""
    value = _finite(n_bytes)
    if value is None:
        return UNKNOWN
    if value < 1000:
        return f"{round(value)} B"
    power = min(len(_SIZE_UNITS), int(math.log10(float(f"{value:.2e}")) // 3))
    return f"{number(value / 1000**power)} {_SIZE_UNITS[power - 1]}"


def short(text: str | None, n: int) -> str:
    """At most `n` characters on one line, cut at a word with `…`; control characters are made visible."""
    if not text:
        return UNKNOWN
    line = visible(text[: n + 1])
    if len(text) <= n and len(line) <= n:
        return line
    cut = line[: n - 1]
    at_word = cut.rstrip() if line[n - 1 : n].isspace() else cut.rpartition(" ")[0].rstrip()
    return (at_word if 2 * len(at_word) >= n else cut) + "…"


def visible(text: str) -> str:
    """Line ends as ↵, tabs as →, other control, direction and stray surrogate characters as signs or escapes."""
    return text if text.isprintable() else "".join(map(_visible_character, text))


def _visible_character(character: str) -> str:
    if character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs":
        return character
    if character in _SIGNS:
        return _SIGNS[character]
    if character < " ":
        return chr(0x2400 + ord(character))
    return character.encode("unicode_escape").decode()


def _finite(x: Real) -> float | None:
    """The number, or None for what is unknown; no page can use infinity either."""
    if x is None:
        return None
    value = float(x)
    return value if math.isfinite(value) else None


def _decimals(percentage: float) -> int:
    return 1 if 0 < round(abs(percentage), 1) < 10 else 0


def _digits(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return _minus(text) if float(text) else text.removeprefix("-")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _moment(when: str | datetime | None) -> datetime | None:
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            return None
    return None if when is None else _in_utc(when)


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
