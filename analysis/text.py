"""Numbers and names as text, the same way in every sentence, table and picture of a report."""

from __future__ import annotations

import math
from typing import Any

MISSING = "–"


def finite(value: Any) -> float | None:
    """`value` as a float, None where it is absent, not a number or not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits without needless exponents; a dash where there is no number."""
    if value is None or not math.isfinite(value):
        return MISSING
    if abs(value) < 1e-12:
        return "0"  # what is left of a sum that cancels
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}"


def interval(low: float | None, high: float | None) -> str:
    """`[low, high]`, empty where a bound is missing."""
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def share(part: float | None, whole: float | None) -> str:
    """part/whole as a whole per cent."""
    return MISSING if part is None or not whole else f"{100 * part / whole:.0f} %"


def value_text(value: Any) -> str:
    """A knob's value as text."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: MISSING}[value]
    if isinstance(value, (int, float)):
        return number(float(value)) if isinstance(value, float) else str(value)
    return printable(str(value))


def count(amount: int, noun: str) -> str:
    """`1 trial`, `3 trials`."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"


def ended(sentence: str) -> str:
    """The sentence with a full stop, unless it ends with one or another mark."""
    return sentence if sentence.endswith((".", "!", "?", ":")) else f"{sentence}."


def printable(text: str) -> str:
    """`text` with every character that could steer a terminal or break a line made visible."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
