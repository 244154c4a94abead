"""Draws the critical-difference diagram: rows on a line at their mean ranks; bars join rows that
do not differ significantly.
"""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kd_lightning.base.words import for_plot
from kd_lightning.reports.data_sets import ALPHA, Comparison


def draw(comparison: Comparison) -> Figure:
    """Draws the figure with scikit-posthocs, which must be installed. Needs no display."""
    import pandas
    import scikit_posthocs

    rounded = {for_plot(row): means for row, means in comparison.rounded.items()}
    ranks = {for_plot(row): rank for row, rank in comparison.mean_ranks().items()}
    means = pandas.DataFrame(rounded)  # data sets x rows
    p_values = scikit_posthocs.posthoc_nemenyi_friedman(means)
    p_values.index = p_values.columns = means.columns
    longest = max(map(len, comparison.samples))
    width = 6.0 + 0.13 * longest
    height = 1.6 + 0.22 * len(comparison.samples)
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    scikit_posthocs.critical_difference_diagram(
        pandas.Series(ranks),
        p_values,
        alpha=ALPHA,
        ax=ax,
        label_fmt_left="{label}  ({rank:.2f})",
        label_fmt_right="({rank:.2f})  {label}",
        label_props={"fontsize": 9},
    )
    # The critical difference is given as a number: a bar of its length above the axis would hide
    # the ticks.
    ax.set_title(
        f"mean rank of {for_plot(comparison.column)} on {len(comparison.complete)} data sets; "
        f"critical difference {comparison.critical_difference():.2f} (Nemenyi, {ALPHA:.0%})",
        fontsize=9,
    )
    return figure
