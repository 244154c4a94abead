"""Draws a grid: a heat map for each combination of the other axes, with a number in each cell."""

import math

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kd_lightning.base.words import for_plot
from kd_lightning.reports.grids import Cell, Grid, Panel, best_cell, cell_text

COLORS = "viridis"
WIDTH, HEIGHT = 1.05, 0.72  # of a cell, inches
COLUMNS = 3  # of panels
GREY, FRAME = "0.93", "crimson"


def draw(grid: Grid) -> Figure:
    """Draws the figure. Needs no display."""
    columns = 2 if len(grid.panels) == 4 else min(COLUMNS, len(grid.panels))
    rows = math.ceil(len(grid.panels) / columns)
    width = columns * (len(grid.xs) * WIDTH + 0.9) + 1.1
    height = rows * (len(grid.ys) * HEIGHT + 0.95) + 0.5
    figure = Figure(figsize=(max(width, 5.0), max(height, 2.6)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(for_plot(grid.title), fontsize=11, fontweight="bold")
    cells = [cell for panel in grid.panels for cell in panel.cells.values()]
    means = [100 * cell.sample.mean for cell in cells if cell.sample.n]
    low, high = (min(means), max(means)) if means else (0.0, 1.0)
    if high - low < 1e-4:  # all values are equal, but a color scale needs two ends
        low, high = low - 0.5, high + 0.5
    scale = ScalarMappable(Normalize(low, high), COLORS)
    axes = figure.subplots(rows, columns, squeeze=False)
    for number, ax in enumerate(axes.flat):
        if number >= len(grid.panels):
            ax.set_axis_off()
            continue
        _draw_panel(ax, grid, grid.panels[number], scale)
    if best_cell(grid) is not None:
        figure.supxlabel("framed: the highest on val", fontsize=8, color=FRAME)
    bar = figure.colorbar(scale, ax=axes, shrink=0.9, pad=0.02)
    bar.set_label(grid.quantity, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return figure


def _draw_panel(ax: Axes, grid: Grid, panel: Panel, scale: ScalarMappable) -> None:
    values = [[_mean(panel.cells.get((x, y))) for x in grid.xs] for y in grid.ys]
    ax.set_facecolor(GREY)
    ax.pcolormesh(values, cmap=scale.cmap, norm=scale.norm, edgecolors="white", linewidth=1.5)
    best = best_cell(grid)
    for i, x in enumerate(grid.xs):
        for j, y in enumerate(grid.ys):
            cell = panel.cells.get((x, y))
            color = "0.1"
            if cell is None or not cell.sample.n:
                style = {"fill": False, "hatch": "////", "edgecolor": "0.75", "linewidth": 0}
                ax.add_patch(Rectangle((i + 0.01, j + 0.01), 0.98, 0.98, **style))
            elif _is_dark(scale, cell):
                color = "white"
            ax.text(
                i + 0.5, j + 0.5, cell_text(cell), ha="center", va="center", fontsize=8,
                color=color, linespacing=1.25,
            )  # fmt: skip
            if cell is not None and cell is best:
                style = {"fill": False, "linewidth": 2, "edgecolor": FRAME}
                ax.add_patch(Rectangle((i + 0.04, j + 0.04), 0.92, 0.92, **style))
    ax.set_xticks([i + 0.5 for i in range(len(grid.xs))], [f"{x:g}" for x in grid.xs])
    ax.set_yticks([j + 0.5 for j in range(len(grid.ys))], [f"{y:g}" for y in grid.ys])
    ax.tick_params(length=0, labelsize=9)
    ax.set_xlabel(for_plot(grid.x), fontsize=9)
    ax.set_ylabel(for_plot(grid.y), fontsize=9)
    ax.set_title(for_plot(panel.title), fontsize=9)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _is_dark(scale: ScalarMappable, cell: Cell) -> bool:
    red, green, blue, _ = scale.to_rgba(100 * cell.sample.mean)
    return bool(0.299 * red + 0.587 * green + 0.114 * blue < 0.5)


def _mean(cell: Cell | None) -> float:
    return 100 * cell.sample.mean if cell is not None else math.nan
