"""The figure of a sweep over budgets, from tables; no file is read or written."""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from isoparam.figures.depth import STYLE, add_title, check_rows

# From light to dark, distinguishable in grey and with any colour vision; markers differ too.
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#332288", "#222222")
_MARKERS = "osD^vPX"


def error_by_budget(tables: dict[int, pd.DataFrame]) -> Figure:
    """Test error against depth, a line for each budget, on a logarithmic scale.

    Args:
        tables: for each budget, in parameters, the columns depth, width, seeds, accuracy,
            accuracy_lo and accuracy_hi; accuracies in [0, 1]; depth 0, off any budget, is left out.

    Returns:
        The figure; the depth with the least error of each budget has a ring.

    Raises:
        ValueError: if there is no budget.
    """
    check_rows(tables)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.subplots()
        for index, (budget, table) in enumerate(sorted(tables.items())):
            rows = table[table["depth"] > 0].sort_values("depth")
            error = 100 * (1 - rows["accuracy"])
            hi = 100 * (1 - rows["accuracy_lo"].fillna(rows["accuracy"]))
            lo = 100 * (1 - rows["accuracy_hi"].fillna(rows["accuracy"]))
            colour = _COLOURS[index % len(_COLOURS)]
            axes.errorbar(
                rows["depth"],
                error,
                yerr=[error - lo, hi - error],
                color=colour,
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=5,
                linewidth=1.3,
                capsize=2.5,
                label=f"{budget:,}",
            )
            best = error.idxmin()
            axes.plot(
                rows["depth"][best],
                error[best],
                "o",
                markersize=11,
                markerfacecolor="none",
                markeredgecolor=colour,
            )
        axes.set_xlabel("hidden layers")
        # An interval may reach beyond what an error can be; it is cut there.
        axes.set_yscale("log", nonpositive="clip")
        least = min(1 - table["accuracy"].max() for table in tables.values())
        axes.set_ylim(bottom=80 * least)
        axes.yaxis.set_major_locator(FixedLocator([1, 2, 5, 10, 20, 50, 100]))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("test error, %")
        axes.set_xticks(sorted({int(depth) for t in tables.values() for depth in t["depth"]} - {0}))
        axes.legend(title="parameters", loc="upper right")
        seeds = " or ".join(
            str(n) for n in sorted({int(n) for t in tables.values() for n in t["seeds"]})
        )
        add_title(
            figure,
            "Error against depth at several budgets of parameters",
            f"mean and 95 % interval over {seeds} seeds; rings: the least error of each budget",
        )
        return figure
