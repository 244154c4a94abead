"""The table at the end of a run, from its ``metrics.json`` alone."""

import csv
import io
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from kd_lightning.uncertainty.temperature import BOUNDS

# column -> how a value is shown
COLUMNS = {
    "net": str,
    "accuracy": "{:.2%}".format,
    "last": "{:.2%}".format,
    "NLL": "{:.3f}".format,
    "ECE": "{:.3f}".format,
    "T": "{:.2f}".format,
    "ECE scaled": "{:.3f}".format,
    "parameters": "{:,}".format,
    "compression": "{:.1f}x".format,
    "agreement": "{:.2%}".format,
    "throughput": "{:,.0f}".format,
}
SCALED = ("T", "ECE scaled")  # only where temperatures were fitted


def columns_of(metrics: dict[str, Any]) -> dict[str, Callable[[Any], str]]:
    """The columns of this run's table, and how their values are shown."""
    is_scaled = any("scaled" in net for net in metrics["nets"].values())
    return {name: COLUMNS[name] for name in COLUMNS if is_scaled or name not in SCALED}


def rows_of(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per net: teacher, students, what they make together, and what was trained from labels
    alone.

    ``accuracy`` is that of the weights chosen on val, ``last`` that of the last epoch. A vote has
    no probabilities, and so neither NLL nor ECE.
    """
    nets = metrics["nets"]
    teacher = nets.get("teacher")
    return [
        {
            "net": net["title"],
            "accuracy": net["test"]["accuracy"],
            "last": net.get("last", {}).get("accuracy"),
            "NLL": net["test"].get("nll"),
            "ECE": net["test"].get("ece"),
            "T": net.get("scaled", {}).get("temperature"),
            "ECE scaled": net.get("scaled", {}).get("ece"),
            "parameters": net["parameters"],
            "compression": teacher and teacher["parameters"] / net["parameters"],
            "agreement": net.get("agreement"),
            "throughput": net["throughput"],
        }
        for net in nets.values()
    ]


def caption(metrics: dict[str, Any]) -> str:
    """What the columns mean for this run, in words."""
    chosen = (
        "accuracy: of the weights chosen on val; last: of the last epoch"
        if metrics["has_val"]
        else "nothing chosen on val: accuracy is that of the last epoch"
    )
    lines = [f"{metrics['protocol']}.", f"{chosen}; both on test, which chose nothing."]
    if "averaging" in metrics:
        lines.append(f"Weights of the students: {metrics['averaging']}.")
        if any(name.endswith(", labels only") for name in metrics["nets"]):
            lines.append("Those that learnt from labels only are not averaged.")
    if "teacher" in metrics["nets"]:
        origin = metrics["nets"]["teacher"]["origin"]
        lines.append(f"Teacher: {origin}. agreement: same class as the teacher.")
    if "T" in columns_of(metrics):
        lines.append("T: the temperature fitted on val; ECE scaled: with it.")
        lines += [*_at_bounds(metrics), *metrics.get("doubts", [])]
    lines.append(
        f"{metrics['unit']}/s: forward pass, batches of {metrics['batch']}, {metrics['device']}."
    )
    return "\n".join(lines)


def _at_bounds(metrics: dict[str, Any]) -> list[str]:
    """Which temperatures are no optimum, and why."""
    reasons = ("all of val is right", "a uniform prediction would do better on val")
    fitted = {
        k: net["scaled"]["temperature"] for k, net in metrics["nets"].items() if "scaled" in net
    }
    lines = []
    for bound, reason in zip(BOUNDS, reasons, strict=True):
        if names := "; ".join(name for name in fitted if fitted[name] == bound):
            lines.append(f"T = {bound:g} is the limit, and no optimum: {reason} ({names}).")
    return lines


def _heads(metrics: dict[str, Any]) -> list[str]:
    names = columns_of(metrics)
    return [f"{metrics['unit']}/s" if name == "throughput" else name for name in names]


def _cells(row: dict[str, Any], columns: dict[str, Callable[[Any], str]]) -> list[str]:
    return ["" if row[name] is None else show(row[name]) for name, show in columns.items()]


def print_table(metrics: dict[str, Any], console: Console) -> None:
    """Prints the table, as wide as it needs to be: a cut number is worse than a wrapped line."""
    table = Table(title=metrics["title"], box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in _heads(metrics):
        table.add_column(name, justify="left" if name == "net" else "right", no_wrap=True)
    for row in rows_of(metrics):
        table.add_row(*_cells(row, columns_of(metrics)))
    needed = console.measure(table, options=console.options.update(width=300)).maximum
    console.width = max(console.width, needed)
    console.print(table)
    for line in caption(metrics).splitlines():
        console.print(line, soft_wrap=True, highlight=False, style="dim")


def markdown(metrics: dict[str, Any]) -> str:
    columns = columns_of(metrics)
    lines = [f"# {metrics['title']}", ""]
    lines.append("| " + " | ".join(_heads(metrics)) + " |")
    lines.append("|---" + "|---:" * (len(columns) - 1) + "|")
    lines += ["| " + " | ".join(_cells(row, columns)) + " |" for row in rows_of(metrics)]
    return "\n".join([*lines, "", *caption(metrics).splitlines(), ""])


def as_csv(metrics: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns_of(metrics), extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows_of(metrics))
    return text.getvalue()
