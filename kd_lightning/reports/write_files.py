"""Writes the files of a report.

table.md           all tables
table.tex          the main table; the other tables are pairs.tex and data_sets.tex
table.csv          mean, std and n of every number of every net, unrounded, and published numbers
values.csv         every number of every net of each job
pairs.csv          the paired differences
data_sets.csv      the means over data sets and the mean ranks
heatmap*.png  critical_difference*.png
records.jsonl      the results of the jobs
correct.npz        which test samples each net got right, for intervals that cover the test set

``records.jsonl``, ``correct.npz`` and ``sweep.yaml`` are enough to make all other files again.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import atomic_write
from kd_lightning.base.kept_files import write_kept
from kd_lightning.base.tables import csv_text, latex, markdown
from kd_lightning.records.run_directory import is_run
from kd_lightning.reports import correctness
from kd_lightning.reports.assemble import Report
from kd_lightning.reports.columns import PERCENT, split
from kd_lightning.reports.differences import Difference, adjusted_p_values, equivalence_p_values
from kd_lightning.reports.job_results import FILE, is_local, to_jsonl
from kd_lightning.reports.published import published_values
from kd_lightning.reports.summary import rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Files of an earlier report that this one may not have.
MAY_BE_STALE = ("pairs.tex", "pairs.csv", "data_sets.tex", "data_sets.csv", "heatmap.png")
MAY_BE_STALE += ("heatmap-*.png", "critical_difference-*.png")
HEAD = "data_set,variant,"  # of the table.csv of a report
# Keys of a sweep.yaml that do not depend on the machine on which the sweep ran.
PORTABLE = (
    "title", "command", "overrides", "grid", "variants", "pairs", "primary", "primary_column",
    "compared", "expected_std", "margin", "chosen_by", "columns", "data_sets", "reported", "search",
    "made",
)  # fmt: skip


def write(report: Report, out: Path | str) -> list[Path]:
    """Writes the files of a report. Files of an earlier report that are not rewritten are removed.

    Args:
        out: the sweep's own directory, or a folder for the report.

    Raises:
        UserError: ``out`` cannot be written to, or holds other files than those of a report.
    """
    out = Path(out)
    own = report.source.directory
    in_own_directory = own is not None and out.resolve() == own.resolve()
    texts = _texts(report)
    if not in_own_directory:
        texts["sweep.yaml"] = _settings(report)
        _check_folder(out, (*texts, correctness.FILE))
    had_report = in_own_directory or _has_report(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_kept(out, texts)
        if not in_own_directory:  # the sweep's own directory has the predictions of its jobs
            correctness.write(
                out / correctness.FILE, [result.correct for result in report.source.results]
            )
        pictures = _draw(report, out)
    except OSError as error:
        raise UserError(
            f"cannot write the report to {out}: {error.strerror}; name a folder for it (--out)"
        ) from error
    written = {out / name for name in (*texts, *pictures)}
    written |= {path for path in [out / correctness.FILE] if path.exists()}
    for pattern in MAY_BE_STALE if had_report else ():
        for path in set(out.glob(pattern)) - written:
            path.unlink()
    return sorted(written)


def _check_folder(out: Path, names: Iterable[str]) -> None:
    """Raises ``UserError`` for a folder whose files no report has written."""
    if (out / "jobs").is_dir():
        raise UserError(f"{out} holds another sweep: name another folder (--out)")
    if is_run(out):
        raise UserError(
            f"{out} is a run, whose own table would be replaced: name another folder (--out)"
        )
    foreign = [] if _has_report(out) else [name for name in names if (out / name).exists()]
    if foreign:
        raise UserError(
            f"{out} holds {foreign[0]}, which no report has written: name another folder (--out)"
        )


def _has_report(out: Path) -> bool:
    """Whether the files of an earlier report are there; committed ones may lack the records."""
    if (out / FILE).exists():
        return True
    try:
        return (out / "table.csv").read_text("utf-8").startswith(HEAD)
    except (OSError, UnicodeDecodeError):
        return False


def _texts(report: Report) -> dict[str, str]:
    """File name -> content."""
    texts = {
        "table.md": _markdown(report),
        "table.csv": csv_text(_summaries(report)),
        "values.csv": csv_text(_values(report)),
        FILE: to_jsonl(report.source.results),
    }
    for table in report.tables:
        name = f"{table.name}.tex"
        texts[name] = texts[name] + "\n" + latex(table) if name in texts else latex(table)
    if "pairs.tex" in texts:
        texts["pairs.csv"] = csv_text(_differences(report))
    if "data_sets.tex" in texts:
        texts["data_sets.csv"] = csv_text(_ranks(report))
    return texts


def _markdown(report: Report) -> str:
    text = "\n".join(map(markdown, report.tables))
    if report.tables[0].title == report.source.title:
        return text.removeprefix("#")  # the first table's title is the title of the file
    return f"# {report.source.title}\n\n{text}"


def _settings(report: Report) -> str:
    """The text of a ``sweep.yaml``. With ``records.jsonl`` it gives the same report again."""
    settings = {k: v for k, v in report.source.settings.items() if k in PORTABLE}
    for key in ("overrides", "command"):
        if isinstance(settings.get(key), list):
            settings[key] = [word for word in settings[key] if not is_local(word)]
    if settings.get("search"):
        settings["search"] = {k: v for k, v in settings["search"].items() if k != "storage"}
    settings["title"] = report.source.title
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def _summaries(report: Report) -> Iterable[dict[str, Any]]:
    """The lines of table.csv: one for each row of a table and each column that it has."""
    source = report.source
    search = bool(source.settings.get("search"))
    for data_set in dict.fromkeys(r.data_set(source.data_sets) for r in source.results):
        selected = [r for r in source.results if r.data_set(source.data_sets) == data_set]
        for row in rows_of(selected, search):
            columns = dict.fromkeys(key for result in row.results for key in result.values)
            published = published_values(report.published, row.results[0])
            columns |= dict.fromkeys(published)
            # a row without any finished job has a line too
            for column in columns or [""]:
                sample = row.sample(column)
                yield {
                    "data_set": data_set,
                    "variant": row.label,
                    **_parts(column),
                    "mean": sample.mean if sample.n else "",
                    "std": sample.std if sample.n > 1 else "",
                    "n": sample.n,
                    "planned": len(row.results),
                    **({"reported": published.get(column, "")} if report.published else {}),
                }


def _values(report: Report) -> Iterable[dict[str, Any]]:
    """The lines of values.csv: one for each job and each column that it has."""
    results = report.source.results
    axes = dict.fromkeys(key for result in results for key in result.axes)
    for result in results:
        for column, value in (result.values or {"": ""}).items():
            yield {
                "sweep": result.sweep,
                "job": result.number,
                "variant": result.variant,
                **{key: result.axes.get(key, "") for key in axes if key != "variant"},
                "seed": result.seed,
                "state": str(result.state),
                "error": result.error,
                **_parts(column),
                "value": value,
            }


def _parts(column: str) -> dict[str, str]:
    return dict(zip(("split", "net", "metric"), split(column), strict=True))


def _differences(report: Report) -> Iterable[dict[str, Any]]:
    adjusted = adjusted_p_values(report.differences)
    margin = report.source.settings.get("margin")
    equivalent = equivalence_p_values(report.differences, margin)
    for difference, p_holm, p_equal in zip(report.differences, adjusted, equivalent, strict=True):
        sample = difference.sample
        low, high = sample.interval() or ("", "")
        yield {
            "a": difference.pair.a,
            "b": difference.pair.b,
            "contrast": difference.kind,
            "data_set": difference.data_set,
            "column": difference.column,
            "column_b": difference.column_b,
            "n": sample.n,
            "planned": difference.planned,
            "difference": sample.mean if sample.n else "",
            "low": low,
            "high": high,
            **_with_test(difference),
            "detectable": difference.sample.detectable(),
            "p": sample.p_value(),
            "p_holm": p_holm,
            **({} if margin is None else _equivalence(difference, margin, p_equal)),
        }


def _with_test(difference: Difference) -> dict[str, Any]:
    low, high = difference.interval_with_test or ("", "")
    return {"low_with_test": low, "high_with_test": high}


def _equivalence(difference: Difference, margin: float, p: float | None) -> dict[str, Any]:
    """The cells of the equivalence test; a metric that is no share has no margin in points."""
    return {"margin": margin if difference.metric in PERCENT else "", "p_within_margin": p}


def _ranks(report: Report) -> Iterable[dict[str, Any]]:
    has_published = any(comparison.published for comparison in report.comparisons)
    for comparison in report.comparisons:
        for variant, rank in comparison.mean_ranks().items():
            sample = comparison.overall(variant)
            published = {"reported": comparison.published.get(variant, "")}
            yield {
                "column": comparison.column,
                "variant": variant,
                "mean": sample.mean,
                "std": sample.std if sample.n > 1 else "",
                **(published if has_published else {}),
                "mean_rank": rank,
                "data_sets": len(comparison.complete),
            }


def _draw(report: Report, out: Path) -> list[str]:
    """Draws the heat maps and diagrams. The drawing modules are imported here because they are slow
    to import and optional.
    """
    names: list[str] = []
    if report.grids and find_spec("matplotlib"):
        from kd_lightning.reports import heatmap

        for grid in report.grids:
            _save(heatmap.draw(grid), out / grid.name)
            names.append(grid.name)
    if report.diagrams:
        from kd_lightning.reports import critical_difference

        for name, comparison in report.diagrams.items():
            _save(critical_difference.draw(comparison), out / name)
            names.append(name)
    return names


def _save(figure: "Figure", path: Path) -> None:
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished, format="png")
