"""The heat maps of a sweep as tables with shaded cells."""

from kd_lightning.reports.grids import Cell, Grid, Panel, best_cell, cell_text
from kd_lightning.reports.page.blocks import ShadedCell, ShadedTable


def heatmap_tables(grid: Grid) -> list[ShadedTable]:
    """One for each panel of the grid; all have one scale."""
    cells = [cell for panel in grid.panels for cell in panel.cells.values() if cell.sample.n]
    means = [cell.sample.mean for cell in cells]
    ends = (min(means), max(means)) if means else (0.0, 0.0)
    return [_table(grid, panel, ends) for panel in grid.panels]


def _table(grid: Grid, panel: Panel, ends: tuple[float, float]) -> ShadedTable:
    rows = [
        (f"{y:.6g}", [_cell(grid, panel.cells.get((x, y)), ends) for x in grid.xs])
        for y in reversed(grid.ys)  # as on a vertical axis, the largest is at the top
    ]
    title = grid.title + (f", {panel.title}" if panel.title else "")
    note = f"{grid.quantity}." + (" Framed: the highest on val." if grid.is_objective else "")
    return ShadedTable(title, f"{grid.y} ↓ {grid.x} →", [f"{x:.6g}" for x in grid.xs], rows, note)


def _cell(grid: Grid, cell: Cell | None, ends: tuple[float, float]) -> ShadedCell:
    if cell is None or not cell.sample.n:
        return ShadedCell(cell_text(cell), 0.0, "none")
    low, high = ends
    shade = 0.5 if high == low else (cell.sample.mean - low) / (high - low)
    style = "value best" if cell is best_cell(grid) else "value"
    return ShadedCell(cell_text(cell), shade, style)
