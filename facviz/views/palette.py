"""Every colour by its meaning, in light and dark, and the contrast arithmetic that keeps text on it readable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["light", "dark"]

MIN_CONTRAST = 4.5
"""What WCAG 2 asks of body text (level AA)."""


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of one mode as `#RRGGBB`; a field is a meaning and no two meanings of one picture share a field."""

    paper: str  # background
    surface: str  # cards and tooltips
    ink: str  # text
    muted: str  # secondary text, and the outline of what is shown but not counted (dead, always-on)
    hairline: str  # borders and grid lines
    accent: str  # primary button, links, selection; nothing else
    covered: str
    missing: str
    filled: str
    exhausted: str
    anchor: str
    seed: str
    generated: str
    heat: str


_PALETTES: dict[Mode, Palette] = {
    "light": Palette(
        paper="#FBFAF7",
        surface="#FFFFFF",
        ink="#1D2329",
        muted="#5B6470",
        hairline="#E4E1DA",
        accent="#0F766E",
        covered="#64748B",
        missing="#D97706",
        filled="#0F9D58",
        exhausted="#9CA3AF",
        anchor="#334155",
        seed="#0369A1",
        generated="#0F9D58",
        heat="#D97706",
    ),
    "dark": Palette(
        paper="#14181D",
        surface="#1B2027",
        ink="#E8E6E1",
        muted="#9AA4B0",
        hairline="#2C333B",
        accent="#2DD4BF",
        covered="#94A3B8",
        missing="#F59E0B",
        filled="#34D399",
        exhausted="#6B7280",
        anchor="#CBD5E1",
        seed="#38BDF8",
        generated="#34D399",
        heat="#F59E0B",
    ),
}

_INKS = (_PALETTES["light"].ink, _PALETTES["dark"].ink, "#000000", "#FFFFFF")


def palette(mode: Mode) -> Palette:
    """The colours of a mode."""
    return _PALETTES[mode]


def contrast(first: str, second: str) -> float:
    """WCAG 2 contrast ratio of two `#RRGGBB` colours, 1 to 21, whichever comes first."""
    darker, lighter = sorted((_luminance(first), _luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def ink_on(background: str) -> str:
    """The text colour for a background: the palette's own ink where it reads, else black or white."""
    return next(ink for ink in _INKS if contrast(ink, background) >= MIN_CONTRAST)


def blend(colour: str, opacity: float, ground: str) -> str:
    """The opaque `#RRGGBB` that a colour at this opacity, 0 to 1, shows over a ground."""
    mixed = (round(opacity * c + (1 - opacity) * g) for c, g in zip(_channels(colour), _channels(ground)))
    return "#{:02X}{:02X}{:02X}".format(*mixed)


def _channels(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(channel / 255) for channel in _channels(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
