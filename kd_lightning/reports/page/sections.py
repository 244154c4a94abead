"""Chooses what a page shows: the sections of one run, or of several runs.

A page of several runs shows the details of a few of them, so that its size stays sensible. What is
left out is said in its last section.
"""

from collections.abc import Iterator, Sequence

from kd_lightning.base.tables import Table
from kd_lightning.reports.assemble import Report
from kd_lightning.reports.columns import OBJECTIVE, format_value, heading
from kd_lightning.reports.page.blocks import (
    Block,
    Commands,
    Examples,
    Figure,
    Figures,
    Folded,
    Heading,
    Notes,
    Section,
    SortableTable,
)
from kd_lightning.reports.page.confusion import confusion_blocks
from kd_lightning.reports.page.curves import MAX_POINTS, curve_figures, overview_figure
from kd_lightning.reports.page.examples import examples_of
from kd_lightning.reports.page.front import MAX_NETS, count_nets, front_figures
from kd_lightning.reports.page.heatmaps import heatmap_tables
from kd_lightning.reports.page.nets_table import nets_table
from kd_lightning.reports.page.origin import command_of
from kd_lightning.reports.page.records import RunRecord
from kd_lightning.reports.page.reliability import (
    FEW,
    confidence_figures,
    reliability_figures,
    risk_figure,
)

MAX_DETAILED = 8  # runs whose details a page of several runs shows
MAX_EXAMPLES = 24  # of a single run
MAX_EXAMPLES_EACH = 6  # of each of several runs
MAX_CONFUSED_NETS = 4
MAX_LINES = 120  # runs in the chart of all runs
FIXED = ("variant", "seed", "state")  # columns of the table of values
MAX_ROWS = 500  # runs in the table of values, and in the list of commands

RELIABILITY = (
    "A point is a bin of samples: their confidence, and the share of them that is right. Its area "
    "is the number of samples, which stands above; its bar is the 95 % interval (Wilson). Bins of "
    f"fewer than {FEW} samples are hollow. On the diagonal, confidence and accuracy agree."
)
DIFFERENT = {
    True: "Test samples on which the teacher and the first student differ, the surest first.",
    False: "Errors of which the first student is most sure.",
}


def sections_of(report: Report, records: Sequence[RunRecord]) -> list[Section]:
    """The sections that have something to show."""
    done = [record for record in records if record.result.metrics]
    if len(records) == 1 and done:
        sections = _sections_of_run(report, done[0])
    else:
        sections = _sections_of_runs(report, records, done)
    return [section for section in sections if section.blocks]


def _sections_of_run(report: Report, record: RunRecord) -> Iterator[Section]:
    settings = report.source.settings  # of a single run, those of the command line alone
    is_asked = any(settings.get(key) for key in ("columns", "pairs", "compared"))
    nets = nets_table(record)
    tables = _tables(report) if is_asked or not nets else []
    yield Section("results", "Results", "", [*nets, *tables])
    yield _front([record])
    yield Section("training", "Training", "", _figures(curve_figures(record)))
    calibration = record.calibration or {}
    yield Section("reliability", "Reliability", RELIABILITY,
                  _figures(reliability_figures(calibration)))  # fmt: skip
    yield Section("confidence", "Confidence", "", _confidence(record))
    yield Section("confusion", "Confused classes", "On the test part.", _confusion(record))
    yield Section("examples", "Examples", _about_examples(record), _examples(record, MAX_EXAMPLES))
    yield Section("command", "Command", "", _commands([record]))


def _sections_of_runs(
    report: Report, records: Sequence[RunRecord], done: Sequence[RunRecord]
) -> Iterator[Section]:
    yield Section("results", "Results", "", _tables(report))
    yield _front(done)
    maps = [table for grid in report.grids for table in heatmap_tables(grid)]
    yield Section("heatmaps", "Heat map of two settings", "", maps)
    overview = overview_figure(done[:MAX_LINES])
    yield Section("training", "Training", "", _figures([overview] if overview else []))
    detailed = choose_detailed(done)
    folded = [Folded(record.name, blocks) for record in detailed if (blocks := _details(record))]
    yield Section("runs", "Runs in detail", "", folded)
    yield Section("values", "Values of each run", "", [values_table(report, records)])
    yield Section("commands", "Commands", "What repeats each run.", _commands(records))
    yield Section("limits", "What this page leaves out", "", _left_out(records, done, detailed))


def choose_detailed(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The first run of each row, then the second runs, and so on, up to ``MAX_DETAILED``."""
    turns: dict[str, int] = {}
    ordered = []
    for position, record in enumerate(records):
        turn = turns[record.row] = turns.get(record.row, -1) + 1
        ordered.append((turn, position, record))
    return [record for *_, record in sorted(ordered, key=lambda entry: entry[:2])][:MAX_DETAILED]


def _details(record: RunRecord) -> list[Block]:
    parts = {
        "Training": _figures(curve_figures(record)),
        "Reliability": _figures(reliability_figures(record.calibration or {})),
        "Confidence": _confidence(record),
        "Confused classes": _confusion(record),
        "Examples": _examples(record, MAX_EXAMPLES_EACH),
    }
    blocks: list[Block] = list(nets_table(record))
    for title, part in parts.items():
        blocks += [Heading(title), *part] if part else []
    return blocks


def _front(records: Sequence[RunRecord]) -> Section:
    intro = (
        "A point is a net, its bar the 95 % interval of its accuracy: over the seeds, or of the "
        "test part where there is one seed (Wilson). The line joins the nets that no other net "
        "beats in both. Time: one over the throughput of the results table."
    )
    return Section("front", "Accuracy, size and speed", intro, _figures(front_figures(records)))


def _tables(report: Report) -> list[Block]:
    return [SortableTable(table) for table in report.tables]


def _figures(figures: Sequence[Figure]) -> list[Block]:
    return [Figures(figures)] if figures else []


def _confidence(record: RunRecord) -> list[Block]:
    if not record.calibration:
        return []
    return [
        Figures([risk_figure(record.calibration)]),
        Figures(confidence_figures(record.calibration)),
    ]


def _confusion(record: RunRecord) -> list[Block]:
    nets = [*record.students, *(name for name in record.nets if name == "teacher")]
    return [block for net in nets[:MAX_CONFUSED_NETS] for block in confusion_blocks(record, net)]


def _about_examples(record: RunRecord) -> str:
    return DIFFERENT["teacher" in record.nets]


def _examples(record: RunRecord, most: int) -> list[Block]:
    examples = examples_of(record, most)
    return [Examples(examples)] if examples else []


def values_table(report: Report, records: Sequence[RunRecord]) -> SortableTable:
    """The columns of the report for each run alone."""
    columns = list(report.columns) or [OBJECTIVE]
    several = any(record.data_set for record in records)
    rows = []
    for record in records[:MAX_ROWS]:
        result = record.result
        cells = [
            format_value(column, result.values[column]) if column in result.values else ""
            for column in columns
        ]
        where = [record.data_set] if several else []
        rows.append([*where, result.variant, str(result.seed), str(result.state), *cells])
    heads = ["data", *FIXED] if several else FIXED
    heads = [*heads, *map(heading, columns)]
    return SortableTable(Table("values", "", heads, rows))


def _commands(records: Sequence[RunRecord]) -> list[Block]:
    commands = [command_of(record) for record in records[:MAX_ROWS]]
    found = [command for command in commands if command is not None]
    if not found:
        return []
    block = Commands(found)
    return [block] if len(found) <= MAX_DETAILED else [Folded(f"{len(found)} commands", [block])]


def _left_out(
    records: Sequence[RunRecord], done: Sequence[RunRecord], detailed: Sequence[RunRecord]
) -> list[Block]:
    longest = max((len(record.epochs) for record in done), default=0)
    num_nets = count_nets(done)
    facts = {
        f"Details are shown of {len(detailed)} of {len(done)} runs: the first run of each row, "
        "then further ones. A page of a single run shows all of its details.":
            len(detailed) < len(done),
        f"The chart of all runs shows the first {MAX_LINES} of {len(done)} runs.":
            len(done) > MAX_LINES,
        f"The charts of accuracy, size and speed show the first {MAX_NETS} of {num_nets} nets.":
            num_nets > MAX_NETS,
        f"The table of values and the commands show the first {MAX_ROWS} of {len(records)} runs.":
            len(records) > MAX_ROWS,
        f"A line has at most {MAX_POINTS} points; the longest run has {longest} epochs.":
            longest > MAX_POINTS,
    }  # fmt: skip
    sentences = [sentence for sentence, is_so in facts.items() if is_so]
    return [Notes(sentences)] if sentences else []


def title_of(report: Report, records: Sequence[RunRecord]) -> str:
    """The heading of the page."""
    if len(records) == 1:
        return str(records[0].metrics.get("title") or report.source.title)
    return report.source.title
