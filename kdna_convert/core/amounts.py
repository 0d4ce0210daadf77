"""How people read numbers: commas for thousands, decimal units for sizes, percent for shares."""

from .measurements import MEASURES
from .specs import Shape


def count(number: int) -> str:
    return f"{number:,}"


def short(number: float) -> str:
    """Three significant digits with a decimal prefix: 427 k, 1.81 G."""
    for unit in ("", "k", "M", "G", "T"):
        if abs(number) < 999.5 or unit == "T":
            break
        number /= 1000
    return f"{number:.3g} {unit}".rstrip() if unit else f"{number:.0f}"


def size(byte_count: int) -> str:
    return f"{short(byte_count)}B" if byte_count >= 1000 else f"{byte_count} B"


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def measured(name: str, value: float) -> str:
    """The value of a measure of that name in MEASURES, in its unit."""
    unit = MEASURES[name].unit
    return percent(value, 2) if unit == "%" else f"{value:.2f} dB" if unit == "dB" else f"{value:.4g}"


def milliseconds(nanoseconds: float) -> str:
    number = nanoseconds / 1e6
    return f"{number:.3g} ms" if number < 1000 else f"{number:,.0f} ms"


def kept(after: int, before: int) -> str:
    return percent(after / before) if before else "-"


def dimensions(shape: Shape) -> str:
    return "×".join(map(str, shape))
