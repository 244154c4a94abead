"""The table at the end of a run, from its ``metrics.json`` alone."""

import csv
import io
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

# column -> how a value is shown
COLUMNS = {
    "net": str,
    "accuracy": "{:.2%}".format,
    "last": "{:.2%}".format,
    "NLL": "{:.3f}".format,
    "ECE": "{:.3f}".format,
    "parameters": "{:,}".format,
    "compression": "{:.1f}x".format,
    "agreement": "{:.2%}".format,
    "throughput": "{:,.0f}".format,
}


def rows_of(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per net: teacher, students, their ensemble, and what was trained from labels alone.

    ``accuracy`` is that of the weights chosen on val, ``last`` that of the last epoch.
    """
    nets = metrics["nets"]
    teacher = nets.get("teacher")
    return [
        {
            "net": net["title"],
            "accuracy": net["test"]["accuracy"],
            "last": net.get("last", {}).get("accuracy"),
            "NLL": net["test"]["nll"],
            "ECE": net["test"]["ece"],
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
    if "teacher" in metrics["nets"]:
        origin = metrics["nets"]["teacher"]["origin"]
        lines.append(f"Teacher: {origin}. agreement: same class as the teacher.")
    lines.append(
        f"{metrics['unit']}/s: forward pass, batches of {metrics['batch']}, {metrics['device']}."
    )
    return "\n".join(lines)


def _heads(metrics: dict[str, Any]) -> list[str]:
    return [f"{metrics['unit']}/s" if name == "throughput" else name for name in COLUMNS]


def _cells(row: dict[str, Any]) -> list[str]:
    return ["" if row[name] is None else show(row[name]) for name, show in COLUMNS.items()]


def print_table(metrics: dict[str, Any], console: Console) -> None:
    """Prints the table, as wide as it needs to be: a cut number is worse than a wrapped line."""
    table = Table(title=metrics["title"], box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in _heads(metrics):
        table.add_column(name, justify="left" if name == "net" else "right", no_wrap=True)
    for row in rows_of(metrics):
        table.add_row(*_cells(row))
    needed = console.measure(table, options=console.options.update(width=300)).maximum
    console.width = max(console.width, needed)
    console.print(table)
    for line in caption(metrics).splitlines():
        console.print(line, soft_wrap=True, highlight=False, style="dim")


def markdown(metrics: dict[str, Any]) -> str:
    lines = [f"# {metrics['title']}", ""]
    lines.append("| " + " | ".join(_heads(metrics)) + " |")
    lines.append("|---" + "|---:" * (len(COLUMNS) - 1) + "|")
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows_of(metrics)]
    return "\n".join([*lines, "", *caption(metrics).splitlines(), ""])


def as_csv(metrics: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows_of(metrics))
    return text.getvalue()
