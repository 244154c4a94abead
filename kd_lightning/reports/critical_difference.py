"""The critical-difference diagram: rows on a line by their mean rank, bars over what is not told
apart.
"""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kd_lightning.reports.data_sets import ALPHA, Across


def draw(one: Across) -> Figure:
    """The figure, by scikit-posthocs, which must be installed; needs no display."""
    import pandas
    import scikit_posthocs

    means = pandas.DataFrame(one.means)  # data sets x rows
    p_values = scikit_posthocs.posthoc_nemenyi_friedman(means)
    p_values.index = p_values.columns = means.columns
    longest = max(map(len, one.samples))
    width = 6.0 + 0.13 * longest
    figure = Figure(figsize=(width, 1.6 + 0.22 * len(one.samples)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    scikit_posthocs.critical_difference_diagram(
        pandas.Series(one.mean_ranks()),
        p_values,
        alpha=ALPHA,
        ax=ax,
        label_fmt_left="{label}  ({rank:.2f})",
        label_fmt_right="({rank:.2f})  {label}",
        label_props={"fontsize": 9},
    )
    # above the axis, where it would hide the ticks, there is no room for a bar of this length
    ax.set_title(
        f"mean rank of {one.column} on {len(one.complete)} data sets; "
        f"critical difference {one.critical_difference():.2f} (Nemenyi, {ALPHA:.0%})",
        fontsize=9,
    )
    return figure
