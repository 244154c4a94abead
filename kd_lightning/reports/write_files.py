"""The files of a report.

table.md           everything in words
table.tex          the main table; pairs.tex and data_sets.tex the others
table.csv          mean, std and n of every number of every net, at full precision; what is reported
values.csv         the same for each job by itself
pairs.csv          the paired differences
data_sets.csv      the means over data sets and the mean ranks
heatmap*.png  critical_difference*.png
records.jsonl      what all this was made from; with sweep.yaml enough to make it again
"""

import csv
import io
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import whole, write_text
from kd_lightning.base.tables import latex, markdown
from kd_lightning.reports.assemble import Report
from kd_lightning.reports.columns import split
from kd_lightning.reports.differences import adjusted_p_values
from kd_lightning.reports.job_results import FILE, is_a_place, packed
from kd_lightning.reports.published import numbers_of
from kd_lightning.reports.summary import rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# what an earlier report may have left that this one has not
MAY_BE_STALE = ("pairs.*", "data_sets.*", "heatmap*.png", "critical_difference*.png")
# of a sweep.yaml, what does not belong to the machine it ran on
PORTABLE = (
    "title", "command", "overrides", "grid", "variants", "pairs", "columns", "data_sets",
    "reported", "search", "made",
)  # fmt: skip


def write(report: Report, out: Path | str) -> list[Path]:
    """Writes the files of a report, and removes those of an earlier one that it does not have.

    Args:
        out: the sweep's own directory, or a folder for the report and its records.

    Raises:
        UserError: ``out`` cannot be written to, or holds another sweep.
    """
    out = Path(out)
    home = report.source.home
    at_home = home is not None and out.resolve() == home.resolve()
    if not at_home and (out / "jobs").is_dir():
        raise UserError(f"{out} holds a sweep of its own: name another folder (--out)")
    texts = _texts(report)
    if not at_home:
        texts["sweep.yaml"] = _settings(report)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_text(out / name, text)
        pictures = _draw(report, out)
    except OSError as error:
        raise UserError(
            f"cannot write the report to {out}: {error.strerror}; name a folder for it (--out)"
        ) from error
    written = {out / name for name in (*texts, *pictures)}
    for pattern in MAY_BE_STALE:
        for path in set(out.glob(pattern)) - written:
            path.unlink()
    return sorted(written)


def _texts(report: Report) -> dict[str, str]:
    texts = {
        "table.md": _in_markdown(report),
        "table.csv": _csv(_summaries(report)),
        "values.csv": _csv(_values(report)),
        FILE: packed(report.source.records),
    }
    for table in report.tables:
        name = f"{table.name}.tex"
        texts[name] = texts[name] + "\n" + latex(table) if name in texts else latex(table)
    if "pairs.tex" in texts:
        texts["pairs.csv"] = _csv(_differences(report))
    if "data_sets.tex" in texts:
        texts["data_sets.csv"] = _csv(_ranks(report))
    return texts


def _in_markdown(report: Report) -> str:
    text = "\n".join(map(markdown, report.tables))
    if report.tables[0].title == report.source.title:
        return text.removeprefix("#")  # the first table's title is that of the whole
    return f"# {report.source.title}\n\n{text}"


def _settings(report: Report) -> str:
    """A ``sweep.yaml`` from which, with the records, the same report is made."""
    settings = {k: v for k, v in report.source.settings.items() if k in PORTABLE}
    for key in ("overrides", "command"):
        if isinstance(settings.get(key), list):
            settings[key] = [word for word in settings[key] if not is_a_place(word)]
    if settings.get("search"):
        settings["search"] = {k: v for k, v in settings["search"].items() if k != "storage"}
    settings["title"] = report.source.title
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _summaries(report: Report) -> Iterable[dict[str, Any]]:
    source = report.source
    search = bool(source.settings.get("search"))
    for data_set in dict.fromkeys(r.data_set(source.data_sets) for r in source.records):
        of_it = [r for r in source.records if r.data_set(source.data_sets) == data_set]
        for row in rows_of(of_it, search):
            columns = dict.fromkeys(key for record in row.records for key in record.values)
            reported = numbers_of(report.reported, row.records[0])
            columns |= dict.fromkeys(reported)
            # a row with nothing done stands there too
            for column in columns or [""]:
                sample = row.sample(column)
                yield {
                    "data_set": data_set,
                    "variant": row.label,
                    **_named(column),
                    "mean": sample.mean if sample.n else "",
                    "std": sample.std if sample.n > 1 else "",
                    "n": sample.n,
                    "planned": len(row.records),
                    **({"reported": reported.get(column, "")} if report.reported else {}),
                }


def _values(report: Report) -> Iterable[dict[str, Any]]:
    source = report.source
    axes = dict.fromkeys(key for record in source.records for key in record.axes)
    for record in source.records:
        for column, value in (record.values or {"": ""}).items():
            yield {
                "sweep": record.sweep,
                "job": record.number,
                "variant": record.variant,
                **{key: record.axes.get(key, "") for key in axes if key != "variant"},
                "seed": record.seed,
                "state": str(record.state),
                "error": record.error,
                **_named(column),
                "value": value,
            }


def _named(column: str) -> dict[str, str]:
    return dict(zip(("split", "net", "metric"), split(column), strict=True))


def _differences(report: Report) -> Iterable[dict[str, Any]]:
    adjusted = adjusted_p_values(report.differences)
    for difference, p_holm in zip(report.differences, adjusted, strict=True):
        sample = difference.sample
        low, high = sample.interval() or ("", "")
        yield {
            "a": difference.pair.a,
            "b": difference.pair.b,
            "data_set": difference.data_set,
            "column": difference.column,
            "column_b": difference.other,
            "n": sample.n,
            "planned": difference.planned,
            "difference": sample.mean if sample.n else "",
            "low": low,
            "high": high,
            "p": sample.p_value(),
            "p_holm": p_holm,
        }


def _ranks(report: Report) -> Iterable[dict[str, Any]]:
    has_reported = any(one.reported for one in report.across)
    for one in report.across:
        for variant, rank in one.mean_ranks().items():
            mean = one.over_all(variant)
            yield {
                "column": one.column,
                "variant": variant,
                "mean": mean.mean,
                "std": mean.std if mean.n > 1 else "",
                **({"reported": one.reported.get(variant, "")} if has_reported else {}),
                "mean_rank": rank,
                "data_sets": len(one.complete),
            }


def _draw(report: Report, out: Path) -> list[str]:
    """Draws what there is to draw. What draws is slow to import, and may not be there."""
    names: list[str] = []
    if report.grids and find_spec("matplotlib"):
        from kd_lightning.reports import heatmap

        for grid in report.grids:
            _save(heatmap.draw(grid), out / grid.name)
            names.append(grid.name)
    if report.diagrams:
        from kd_lightning.reports import critical_difference

        for name, one in report.diagrams.items():
            _save(critical_difference.draw(one), out / name)
            names.append(name)
    return names


def _save(figure: "Figure", path: Path) -> None:
    with whole(path) as unfinished:
        figure.savefig(unfinished, format="png")
