"""How a table fits the width of a terminal.

A table that is too wide is shown in groups of columns. The name of a row is repeated in each group:
beside its cells, or above them if the groups are then fewer. Words and numbers are never broken.
"""

import textwrap
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

GAP = 2  # spaces between columns
INDENT = 2  # of the cells below the name of their row
EDGES = 5  # spaces of a grid around and between names and cells

Heads = Sequence[Sequence[str]]  # the lines of the head of each column
Rows = Sequence[Sequence[str]]


def print_rows(title: str, heads: Heads, rows: Rows, console: Console) -> None:
    """Prints a table at the width of the console.

    Args:
        heads: those of the names of the rows, and of the other columns.
        rows: the name and the cells of each row. A name that ends with " *" is the chosen one.
    """
    columns = zip(heads, *rows, strict=True)
    names, *widths = (max(map(cell_len, [*head, *cells])) for head, *cells in columns)
    room = console.width - names - EDGES
    beside, above = column_groups(widths, room), column_groups(widths, console.width - INDENT)
    is_beside = len(beside) <= len(above) and max(widths, default=0) <= room
    for number, group in enumerate(beside if is_beside else above):
        indices = [0, *(index + 1 for index in group)]
        some_heads = [heads[i] for i in indices]
        some_rows = [[row[i] for i in indices] for row in rows]
        if number == 0 and not is_beside:
            print_words(title, console, "table.title")
        if is_beside:
            print_beside("" if number else title, some_heads, some_rows, console)
        else:
            print_above(some_heads, some_rows, [widths[i] for i in group], console)


def column_groups(widths: Sequence[int], room: int) -> list[list[int]]:
    """The indices of columns, in order, in as few groups as fit into ``room`` characters. A wider
    column is a group of its own.
    """
    groups: list[list[int]] = [[]]
    used = 0
    for index, width in enumerate(widths):
        if groups[-1] and used + GAP + width > room:
            groups.append([])
            used = 0
        used += width + (GAP if groups[-1] else 0)
        groups[-1].append(index)
    return groups


def print_beside(title: str, heads: Heads, rows: Rows, console: Console) -> None:
    """A grid with the names of the rows in its first column."""
    grid = Grid(title=escape(title) or None, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, head in enumerate(heads):
        justify = "right" if number else "left"
        grid.add_column(escape("\n".join(head)), justify=justify, no_wrap=True)
    for row in rows:
        grid.add_row(*map(escape, row), style=style_of(row[0]))
    console.print(grid, highlight=False)


def print_above(heads: Heads, rows: Rows, widths: Sequence[int], console: Console) -> None:
    """The names of the rows on lines of their own, above their cells."""
    first, *others = heads
    height = max(map(len, others), default=0)
    lines = zip(*([""] * (height - len(head)) + [*head] for head in others), strict=True)
    print_words(" ".join(first), console, "bold")
    for line in lines:
        print_line(aligned(line, widths), console, "bold")
    print_line("─" * (INDENT + sum(widths) + GAP * (len(widths) - 1)), console)
    for name, *cells in rows:
        print_words(name, console, style_of(name))
        print_line(aligned(cells, widths), console, style_of(name))
    console.print()


def style_of(name: str) -> str | None:
    return "bold" if name.endswith(" *") else None


def aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """A line with each cell at the right end of its column."""
    padded = (
        " " * (width - cell_len(cell)) + cell for cell, width in zip(cells, widths, strict=True)
    )
    return " " * INDENT + (" " * GAP).join(padded)


def print_words(text: str, console: Console, style: str | None = None) -> None:
    """Prints text with its lines broken between words only."""
    width = max(1, console.width)
    for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False):
        print_line(line, console, style)


def print_line(line: str, console: Console, style: str | None = None) -> None:
    """Prints a line as it is, whatever its length."""
    console.print(line, style=style, soft_wrap=True, markup=False, highlight=False)
