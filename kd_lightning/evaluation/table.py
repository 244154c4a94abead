"""The results table of a run, made from its ``metrics.json`` alone."""

from collections.abc import Callable
from typing import Any

from rich.console import Console

from kd_lightning.base import tables
from kd_lightning.uncertainty.temperature import BOUNDS

# column -> how a value is formatted
COLUMNS = {
    "net": str,
    "accuracy": "{:.2%}".format,
    "last": "{:.2%}".format,
    "PGD accuracy": "{:.2%}".format,
    "NLL": "{:.3f}".format,
    "ECE": "{:.3f}".format,
    "T": "{:.2f}".format,
    "ECE scaled": "{:.3f}".format,
    "parameters": "{:,}".format,
    "compression": "{:.1f}x".format,
    "agreement": "{:.2%}".format,
    "throughput": "{:,.0f}".format,
}
SCALED = ("T", "ECE scaled")  # only if temperatures were fitted
ATTACKED = ("PGD accuracy",)  # only if the nets were attacked


def columns_of(metrics: dict[str, Any]) -> dict[str, Callable[[Any], str]]:
    """The columns of this run's table, and how their values are formatted."""
    is_scaled = any("scaled" in net for net in metrics["nets"].values())
    left_out = (() if is_scaled else SCALED) + (() if "attack" in metrics else ATTACKED)
    return {name: COLUMNS[name] for name in COLUMNS if name not in left_out}


def rows_of(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """One row of unformatted values for each net: the teacher, the students, their combinations
    (ensemble, vote, soups) and the students trained without a teacher.

    ``accuracy`` is that of the weights chosen on val, ``last`` that of the last epoch. A vote has
    no probabilities, so it has neither NLL nor ECE.
    """
    nets = metrics["nets"]
    teacher = nets.get("teacher")
    return [
        {
            "net": net["title"],
            "accuracy": net["test"]["accuracy"],
            "last": net.get("last", {}).get("accuracy"),
            "PGD accuracy": net["test"].get("robust_accuracy"),
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
    """The lines under the table: what the columns of this run mean."""
    chosen = (
        "accuracy: of the weights chosen on val; last: of the last epoch"
        if metrics["has_val"]
        else "nothing chosen on val: accuracy is that of the last epoch"
    )
    lines = [f"{metrics['protocol']}.", f"{chosen}; both on test, which chose nothing."]
    if "averaging" in metrics:
        lines.append(f"Weights of the students: {metrics['averaging']}.")
        if any(", " in name for name in metrics["nets"]):
            lines.append("Those that were trained without a teacher are not averaged.")
    if "teacher" in metrics["nets"]:
        origin = metrics["nets"]["teacher"]["origin"]
        lines.append(f"Teacher: {origin}. agreement: same class as the teacher.")
    if (attack := metrics.get("attack")) is not None:
        lines.append(
            f"PGD accuracy: share of {attack['samples']:,} test images that are recognized "
            f"unchanged and after {attack['steps']} steps of PGD that change each value by "
            f"{attack['epsilon']:.4g} at most (foolbox). Stronger attacks exist."
        )
    if "T" in columns_of(metrics):
        lines.append("T: the temperature fitted on val; ECE scaled: with it.")
        lines += [*_at_bounds(metrics), *metrics.get("doubts", [])]
    lines.append(
        f"{metrics['unit']}/s: forward pass, batches of {metrics['batch']}, {metrics['device']}."
    )
    return "\n".join(lines)


def _at_bounds(metrics: dict[str, Any]) -> list[str]:
    """Which temperatures stopped at a bound of the search and are no optimum, and why."""
    reasons = ("all of val is right", "a uniform prediction would do better on val")
    fitted = {
        k: net["scaled"]["temperature"] for k, net in metrics["nets"].items() if "scaled" in net
    }
    lines = []
    for bound, reason in zip(BOUNDS, reasons, strict=True):
        if names := "; ".join(name for name in fitted if fitted[name] == bound):
            lines.append(f"T = {bound:g} is the limit, and no optimum: {reason} ({names}).")
    return lines


def table_of(metrics: dict[str, Any]) -> tables.Table:
    """The formatted table."""
    columns = columns_of(metrics)
    heads = [f"{metrics['unit']}/s" if name == "throughput" else name for name in columns]
    rows = [
        ["" if row[name] is None else as_text(row[name]) for name, as_text in columns.items()]
        for row in rows_of(metrics)
    ]
    return tables.Table("table", metrics["title"], heads, rows, caption(metrics).splitlines())


def print_table(metrics: dict[str, Any], console: Console) -> None:
    tables.print_tables([table_of(metrics)], console, split_heads=False)


def markdown(metrics: dict[str, Any]) -> str:
    return tables.markdown(table_of(metrics), level=1, bullets=False, escape_markup=False)


def as_csv(metrics: dict[str, Any]) -> str:
    """The table at full precision."""
    columns = columns_of(metrics)
    return tables.csv_text({name: row[name] for name in columns} for row in rows_of(metrics))
