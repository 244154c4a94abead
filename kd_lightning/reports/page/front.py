"""Accuracy against size and against speed of all nets, with the front of those that no other net
beats in both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kd_lightning.base.proportions import wilson_interval
from kd_lightning.base.words import percent
from kd_lightning.reports.differences import overlap
from kd_lightning.reports.page.blocks import Figure
from kd_lightning.reports.page.plot import Plot, color
from kd_lightning.reports.page.records import RunRecord
from kd_lightning.reports.page.scales import linear_axis, log_axis, short
from kd_lightning.reports.statistics import Sample

MAX_NETS = 300  # on all data sets
MICROSECONDS = "microseconds a sample"
WIDTH, HEIGHT = 460, 290


@dataclass(frozen=True)
class Net:
    """One net of one row, over its seeds.

    Attributes:
        row: the variant; "" if there is only one.
        accuracy: mean test accuracy.
        interval: 95 % interval of the accuracy; None if it is not known.
        parameters: their number.
        seconds: per sample of the forward pass, in a batch.
    """

    name: str
    row: str
    accuracy: float
    interval: tuple[float, float] | None
    parameters: float
    seconds: float

    @property
    def title(self) -> str:
        where = f" of {self.row}" if self.row else ""
        between = ""
        if self.interval is not None:
            low, high = self.interval
            between = f" (95 % interval {100 * low:.2f} to {100 * high:.2f})"
        return (
            f"{self.name}{where}: accuracy {percent(self.accuracy)}{between}, "
            f"{self.parameters:,.0f} parameters, {format_seconds(self.seconds)} a sample"
        )


def nets_of(records: Sequence[RunRecord]) -> list[Net]:
    """All nets of all rows, on one data set, that have an accuracy, a size and a speed."""
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        for name in record.nets:
            groups.setdefault((record.result.variant, name), []).append(record)
    several = len({variant for variant, _ in groups}) > 1
    return [_net(name, row if several else "", group) for (row, name), group in groups.items()]


def _net(name: str, row: str, records: Sequence[RunRecord]) -> Net:
    def mean(part: str) -> float:
        return Sample(tuple(record.metrics["nets"][name][part] for record in records)).mean

    accuracies = Sample(
        tuple(record.metrics["nets"][name]["test"]["accuracy"] for record in records),
        overlap([record.result for record in records]),
    )
    interval = accuracies.interval()
    if (accuracies.n == 1 or accuracies.is_constant) and (n := records[0].num_test):
        # one run, or the same net in all runs: only the number of test samples limits it
        interval = wilson_interval(accuracies.mean * n, n)
    if interval is not None:
        interval = max(interval[0], 0.0), min(interval[1], 1.0)
    return Net(name, row, accuracies.mean, interval, mean("parameters"), 1 / mean("throughput"))


def front_figures(records: Sequence[RunRecord]) -> list[Figure]:
    """Accuracy by parameters, and by seconds, of each data set that has two nets or more."""
    figures, left = [], MAX_NETS
    for data_set in dict.fromkeys(record.data_set for record in records):
        nets = nets_of([record for record in records if record.data_set == data_set])[:left]
        left -= len(nets)
        if len(nets) < 2:
            continue
        on = f" on {data_set}" if data_set else ""
        figures += [
            _figure(f"Accuracy and size{on}", nets, "parameters", lambda net: net.parameters),
            _figure(f"Accuracy and time{on}", nets, MICROSECONDS, lambda net: 1e6 * net.seconds),
        ]
    return figures


def count_nets(records: Sequence[RunRecord]) -> int:
    """How many nets of rows there are on all data sets."""
    nets = {(record.row, name) for record in records for name in record.nets}
    return len(nets)


def pareto(nets: Sequence[Net], cost: Callable[[Net], float]) -> list[Net]:
    """The nets that are more accurate than all nets that cost no more, the cheapest first."""
    front: list[Net] = []
    for net in sorted(nets, key=lambda net: (cost(net), -net.accuracy)):
        if not front or net.accuracy > front[-1].accuracy:
            front.append(net)
    return front


def _figure(title: str, nets: Sequence[Net], label: str, cost: Callable[[Net], float]) -> Figure:
    ends = [100 * end for net in nets for end in (net.interval or (net.accuracy,))]
    plot = Plot(
        log_axis(label, map(cost, nets)),
        linear_axis("test accuracy, %", [*ends, *(100 * net.accuracy for net in nets)]),
        width=WIDTH, height=HEIGHT,
    )  # fmt: skip
    front = [(cost(net), 100 * net.accuracy) for net in pareto(nets, cost)]
    plot.line(front, "front", "Front: no other net is at least as cheap and as accurate")
    names = list(dict.fromkeys(net.name for net in nets))
    for net in nets:
        style, point = color(names.index(net.name)), (cost(net), 100 * net.accuracy)
        if net.interval is not None:
            low, high = net.interval
            plot.interval(point[0], 100 * low, 100 * high, style, key=net.name)
        plot.dot(point, style, net.title, radius=5, key=net.name)
    legend = [(color(number), name) for number, name in enumerate(names)]
    return Figure(plot.svg(f"{title}: test accuracy by {label}"), title, legend, width=WIDTH)


def format_seconds(seconds: float) -> str:
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{short(round(seconds / size, 2))} {unit}"
    return f"{seconds / 1e-9:.0f} ns"
