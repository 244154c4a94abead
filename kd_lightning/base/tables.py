"""A table of text cells with notes under it, as Markdown, LaTeX, CSV or in a terminal."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from kd_lightning.base.table_layout import print_rows, print_words

# characters that LaTeX would read as commands or cannot print -> what is written instead
LATEX = {
    **{sign: f"\\{sign}" for sign in "_%&#${}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    "−": r"$-$",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "…": r"\dots{}",
    "[": "{[}",  # at the start of a row LaTeX would read [ and * as arguments of the \\ before it
    "*": "{*}",
}


@dataclass(frozen=True)
class Table:
    """A table whose cells are formatted already.

    Attributes:
        name: the stem of the files that the table is written to.
        title: the heading above the table.
        heads: one for each column. The first column holds the names of the rows.
        rows: the cells, row by row.
        notes: sentences under the table.
    """

    name: str
    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default_factory=tuple)


def markdown(
    table: Table, *, level: int = 2, bullets: bool = True, escape_markup: bool = True
) -> str:
    """The table as Markdown.

    Args:
        level: level of the heading.
        bullets: write the notes as a list; False: as plain lines.
        escape_markup: put a backslash before Markdown's own characters.
    """

    def text(words: str) -> str:
        return _in_markdown(words) if escape_markup else words

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(text, cells))} |"

    lines = [f"{'#' * level} {text(table.title)}", ""]
    if table.rows:
        lines += [line(table.heads), "|---" + "|---:" * (len(table.heads) - 1) + "|"]
        lines += [*map(line, table.rows), ""]
    lines += [f"- {text(note)}" if bullets else text(note) for note in table.notes]
    return "\n".join(lines).rstrip() + "\n"


def _in_markdown(text: str) -> str:
    return re.sub(r"([|*<`\[\]\\])", r"\\\1", text)


def latex(table: Table) -> str:
    """A ``table`` environment; the document needs ``\\usepackage{booktabs}``."""
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{in_latex(table.title)}}}"]
    if table.rows:
        lines += [rf"\begin{{tabular}}{{l{'r' * (len(table.heads) - 1)}}}", r"\toprule"]
        lines += [_latex_line(table.heads), r"\midrule"]
        lines += [*map(_latex_line, table.rows), r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        lines.append(r"\par\medskip\raggedright\footnotesize")
        lines += [rf"{in_latex(note)}\par" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(map(in_latex, cells)) + r" \\"


def in_latex(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in text)


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of unformatted values as CSV, with one column for every key of any row."""
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def print_tables(tables: Sequence[Table], console: Console, *, split_heads: bool = True) -> None:
    """Prints tables at the width of the console (see ``table_layout``).

    Args:
        split_heads: break a head at its last "/" (the metric, or the unit), because heads are
            often longer than the cells under them.
    """
    for table in tables:
        names, *others = table.heads
        heads = [[names], *(head.rsplit("/", 1) if split_heads else [head] for head in others)]
        if table.rows:
            print_rows(table.title, heads, table.rows, console)
        else:
            print_words(table.title, console)
        for note in table.notes:
            print_words(note, console, "dim")
