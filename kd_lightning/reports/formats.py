"""How differences and their tests are written."""

from kd_lightning.reports.columns import DECIMALS, PERCENT, measure_of


def format_points(difference: float) -> str:
    """A difference of shares, in percentage points."""
    return _with_sign(100 * difference, 2)


def format_difference(metric: str, difference: float) -> str:
    """A difference of two values of a metric, in percentage points if they are shares."""
    if metric in PERCENT:
        return format_points(difference)
    return _with_sign(difference, DECIMALS.get(metric, 3) + 1)


def _with_sign(value: float, decimals: int) -> str:
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def format_interval(metric: str, interval: tuple[float, float] | None) -> str:
    """The 95 % interval of differences of a metric; "" for None."""
    return "" if interval is None else " to ".join(format_difference(metric, x) for x in interval)


def format_margin(margin: float) -> str:
    """The margin of an equivalence test, in percentage points."""
    return f"{margin:g} {'point' if margin == 1 else 'points'}"


def difference_heading(metric: str) -> str:
    """The heading of a column of differences: what is compared, with its unit if that is points.

    Args:
        metric: its name in ``compared``.
    """
    part, name = measure_of(metric)
    return f"{part} {name}, points" if name in PERCENT else f"{part} {name}"


def format_p(p: float | None) -> str:
    """A p-value as the tables show it; "" for None."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
