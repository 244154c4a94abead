"""What trackers are told when a run is done."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kd_lightning.trackers.guard import Guard


def log_results(
    loggers: Iterable[Guard], metrics: dict[str, Any], directory: Path, step: int
) -> None:
    """Logs ``metrics.json``'s numbers, and keeps the run's table where a tracker can."""
    for logger in loggers:
        logger.log_metrics(results_of(metrics), step)
        logger.save()
        logger.keep(files_of(directory))


def results_of(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers of ``metrics.json`` under the names of the README's table of metrics."""
    numbers = {}
    for net, of_net in metrics["nets"].items():
        name = net.replace(", ", "_").replace(" ", "_")  # "a, labels only"
        for part in ("test", "last", "scaled"):
            for metric, value in of_net.get(part, {}).items():
                numbers[f"{part}/{name}/{metric}"] = value
        if "agreement" in of_net:
            numbers[f"test/{name}/agreement"] = of_net["agreement"]
    if metrics["objective"] is not None:
        numbers["objective"] = metrics["objective"]
    return numbers


def files_of(directory: Path) -> list[Path]:
    """The table of a run, what it was made from, its curves, and its plots."""
    names = ("table.md", "table.csv", "metrics.json", "calibration.json", "config.yaml")
    return [*(directory / name for name in names), *sorted(directory.glob("*.png"))]
