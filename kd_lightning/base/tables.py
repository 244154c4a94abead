"""A table of words with notes under it, as Markdown, LaTeX (booktabs) or in a terminal."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

# what a line of a table must not hold as it is
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
    "[": "{[}",  # which would be an argument of the line break before it
    "*": "{*}",
}


@dataclass(frozen=True)
class Table:
    """Cells in words.

    Attributes:
        name: of the files that hold it.
        title: above it.
        heads: one for each column; the first column's cells are the rows' names.
        rows: of cells.
        notes: sentences under it.
    """

    name: str
    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default_factory=tuple)


def markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(_in_markdown(cell) for cell in cells)} |"

    lines = [f"## {_in_markdown(table.title)}", ""]
    if table.rows:
        lines += [line(table.heads), "|---" + "|---:" * (len(table.heads) - 1) + "|"]
        lines += [*map(line, table.rows), ""]
    lines += [f"- {_in_markdown(note)}" for note in table.notes]
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


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Prints them, as wide as they need to be: a cut number is worse than a wrapped line."""
    for table in tables:
        grid = RichTable(title=escape(table.title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for number, head in enumerate(table.heads):
            # the unit or the metric below the rest: heads are longer than what they head
            words = head if number == 0 else "\n".join(head.rsplit("/", 1))
            justify = "right" if number else "left"
            grid.add_column(escape(words), justify=justify, no_wrap=True)
        for row in table.rows:
            grid.add_row(*map(escape, row), style="bold" if row[0].endswith(" *") else None)
        needed = console.measure(grid, options=console.options.update(width=1000)).maximum
        console.width = max(console.width, needed)
        if table.rows:
            console.print(grid, highlight=False)
        else:
            console.print(table.title, markup=False, highlight=False)
        for note in table.notes:
            console.print(note, soft_wrap=True, markup=False, highlight=False, style="dim")
