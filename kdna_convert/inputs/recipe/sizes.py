"""Sizes and times as people write them: 1.2MB, 1/20, 5%, 10m."""

from __future__ import annotations

import math
import re

from ...core.errors import PlanError, RecipeError

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_SHARE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(?:/\s*(\d+(?:\.\d*)?)|(%))?")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def parse_size(size: int | str) -> int:
    """Bytes of 1200000, '1.2MB', '570 kB' or '4GiB' (kB is 1000, KiB is 1024). Raises PlanError KD506."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmg]i?)?b?", str(size).strip().lower())
    number = round(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if isinstance(size, bool) or number < 1:
        raise PlanError("KD506", f"{size!r} is not a size; write it like 1200000, 570kB, 1.2MB or 4GiB")
    return number


def parse_target(target: float | str, whole: int) -> int:
    """Bytes of a size as above, or of a share of the `whole`: 0.05, '5%' or '1/20'. Raises PlanError KD506."""
    text = _written(target)
    match = _SHARE.fullmatch(text)
    try:
        if match and (match[2] or match[3] or float(match[1]) < 1):
            number, divisor = _fraction(text)
            return int(whole * number / divisor)
        return parse_size(text)
    except PlanError:
        forms = "write it like 570kB or 1.2MB, or as a share of the original's: 0.05, 5% or 1/20"
        raise PlanError("KD506", f"{text!r} is not a size; {forms}") from None


def parse_count(target: float | str, whole: int) -> int:
    """Parameters or MACs of a share of the `whole`; a number above 1 is the count itself. Raises PlanError KD506."""
    if isinstance(target, int | float) and 1 < target < math.inf:
        return int(target)
    number, divisor = _fraction(_written(target))
    return int(number / divisor * whole)


def parse_latency(target: float | str, whole: int) -> int:
    """Nanoseconds of '12ms', '800us' or '1.5s', or of a share of the `whole`. Raises PlanError KD506."""
    text = _written(target).lower()
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(us|ms|s)", text)
    if match and float(match[1]):
        return round(float(match[1]) * {"us": 1e3, "ms": 1e6, "s": 1e9}[match[2]])
    try:
        number, divisor = _fraction(text)
    except PlanError:
        way_out = "write it like 12ms, or as a share of the original's, below 1: 0.7, 70% or 7/10"
        raise PlanError("KD506", f"{text!r} is not a latency; {way_out}") from None
    return int(number / divisor * whole)


def parse_share(share: float | str) -> float:
    """The number of 0.05, '5%' or '1/20', above 0 and at most 1. Raises PlanError KD506."""
    number, divisor = _fraction(_written(share))
    return number / divisor


def _written(value: float | str) -> str:
    """A number without an exponent: 0.00001 for 1e-05."""
    text = str(value).strip()
    return f"{value:.20f}".rstrip("0") if isinstance(value, float) and "e" in text else text


def _fraction(text: str) -> tuple[float, float]:
    match = _SHARE.fullmatch(text)
    number, divisor = (float(match[1]), float(match[2] or 1) * (100 if match[3] else 1)) if match else (0.0, 1.0)
    if not divisor or not 0 < number / divisor <= 1:
        raise PlanError("KD506", f"{text!r} is not a share; write it like 1/20, 5% or 0.05")
    return number, divisor


def parse_time(text: str) -> float:
    """Seconds of '90s', '10m' or '1.5h'. Raises RecipeError KD208."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if match is None or not float(match[1]):
        raise RecipeError("KD208", f"{text!r} is not a time such as 90s, 10m or 1.5h")
    return float(match[1]) * _SECONDS[match[2]]
