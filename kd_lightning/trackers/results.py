"""The results that trackers get at the end of a run."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kd_lightning.trackers.safe_logger import SafeLogger


def log_results(
    loggers: Iterable[SafeLogger], metrics: dict[str, Any], directory: Path, step: int
) -> None:
    """Logs the numbers of ``metrics.json``, and the run's files if the tracker can store files."""
    for logger in loggers:
        logger.log_metrics(results_of(metrics), step)
        logger.save()
        logger.log_files(files_of(directory))


def results_of(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers of ``metrics.json``, named as in docs/tracking.md."""
    numbers = {}
    for net, net_metrics in metrics["nets"].items():
        name = net.replace(", ", "_").replace(" ", "_")  # "a, labels only"
        for part in ("test", "last", "scaled"):
            for metric, value in net_metrics.get(part, {}).items():
                numbers[f"{part}/{name}/{metric}"] = value
        if "agreement" in net_metrics:
            numbers[f"test/{name}/agreement"] = net_metrics["agreement"]
    if metrics["objective"] is not None:
        numbers["objective"] = metrics["objective"]
    return numbers


def files_of(directory: Path) -> list[Path]:
    """The table of a run, its metrics, calibration curves, configuration and plots."""
    names = ("table.md", "table.csv", "metrics.json", "calibration.json", "config.yaml")
    return [*(directory / name for name in names), *sorted(directory.glob("*.png"))]
