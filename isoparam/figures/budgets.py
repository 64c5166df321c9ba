"""The figure of a sweep over budgets, from tables; no file is read or written."""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from isoparam.figures.depth import LINE, ON_BUDGET, PAGE_INCHES, SMALL, add_title, check_rows, spans


def differences_by_budget(tables: dict[int, pd.DataFrame]) -> Figure:
    """Test accuracy minus that of the best depth, against depth, a panel for each budget.

    Args:
        tables: for each budget, in parameters, the columns depth, seeds, accuracy, accuracy_lo,
            accuracy_hi and collapsed (number of seeds that learnt nothing); accuracies in [0, 1].
            Depth 0, off any budget, is left out, and so are depths with collapsed seeds.

    Returns:
        The figure; the best depth of each budget has a filled point. Each panel has its own scale.

    Raises:
        ValueError: if there is no budget.
    """
    check_rows(tables)
    with mpl.rc_context(SMALL):
        figure = Figure(figsize=(PAGE_INCHES, 2.6), layout="constrained")
        panels = figure.subplots(1, len(tables), sharex=True, squeeze=False).flat
        for axes, (budget, table) in zip(panels, sorted(tables.items()), strict=True):
            rows = table[(table["depth"] > 0) & (table["collapsed"] == 0)].sort_values("depth")
            mean, *ends = (100 * each for each in spans(rows, "accuracy"))
            style = LINE | {"markersize": 4, "markerfacecolor": "white", "capsize": 2}
            axes.errorbar(rows["depth"], mean - mean.max(), ends, **style)
            best = rows["depth"][mean.idxmax()]
            axes.plot(best, 0.0, "o", markersize=5, color=ON_BUDGET, zorder=3)
            axes.set_title(f"{budget:,}")
            axes.set_xticks(range(1, int(table["depth"].max()) + 1))
        panels[0].set_ylabel("test accuracy minus\nthe best, points")
        figure.supxlabel("hidden layers", fontsize=9)
        seeds = " or ".join(map(str, sorted({int(n) for t in tables.values() for n in t["seeds"]})))
        add_title(
            figure,
            "Difference to the best depth of each budget, in parameters",
            f"mean and 95 % interval over {seeds} seeds; filled: the best; each panel has its own "
            "scale; depths with seeds that learn nothing are left out",
        )
        return figure
