"""What a study can show, from its number of seeds: before it runs, and in its tables."""

from collections.abc import Sequence

from kd_lightning.base.errors import UserError
from kd_lightning.reports.columns import PERCENT
from kd_lightning.reports.differences import Difference
from kd_lightning.reports.formats import format_difference
from kd_lightning.reports.statistics import detectable_mean

LEVEL = 0.05


def check_expected_std(points: float | None) -> None:
    """Raises ``UserError`` unless it is above 0 and at most 100 points."""
    if points is not None and not 0 < points <= 100:
        raise UserError(
            "the expected standard deviation of a paired difference is in points, in (0, 100], got "
            f"{points:g} (sweep.expected_std=…)"
        )


def planned_power(points: float, num_seeds: int, num_contrasts: int) -> str:
    """One sentence on what a study can show.

    Args:
        points: standard deviation of a paired difference that is expected, in points.
        num_contrasts: how many primary contrasts share the level; the first step of Holm's
            correction tests each at ``LEVEL`` over their number.
    """
    if num_seeds < 2:
        return "Power: one seed shows no difference (sweep.expected_std is given; see seed=0,1,2)."
    level = LEVEL / max(1, num_contrasts)
    seen = detectable_mean(num_seeds, points, level=level)
    contrasts = "1 contrast" if num_contrasts <= 1 else f"each of {num_contrasts} contrasts"
    return (
        f"Power: if a paired difference varies by {points:g} points from seed to seed, {num_seeds} "
        f"seeds find a difference of {seen:.1f} points in {contrasts} with a probability of 80 %."
    )


def note_on_power(paired: Sequence[Difference], metric: str) -> list[str]:
    """One note on which differences so many seeds can show; none if no two seeds differ.

    Args:
        metric: without its part.
    """
    found = [(x, d) for d in paired if (x := d.sample.detectable()) is not None]
    if not found:
        return []
    middle, difference = sorted(found, key=lambda pair: pair[0])[len(found) // 2]
    unit = " points" if metric in PERCENT else ""
    return [
        "Power: if a difference varies as the middle one of this table does, a t test with n = "
        f"{difference.sample.n} finds {format_difference(metric, middle).lstrip('+')}{unit} with a "
        "probability of 80 %, and smaller ones less often (level 5 %, without correction)."
    ]
