"""The study's figures: from tables to matplotlib figures; no file is read or written here."""

import textwrap
from collections.abc import Sized
from io import BytesIO
from math import ceil
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

INK, MUTED = "#222222", "#777777"
ON_BUDGET, OFF_BUDGET = "#0b5cad", "#c2571a"

# This error rate is one image in 100,000.
LEAST_ERROR_PERCENT = 1e-3

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "isoparam",
}
MODELS_PER_ROW = 9
# Percentage points below the best that the choice of a learning rate needs.
SHOWN_POINTS = 0.4
# Depths that are named along the axis.
MOST_DEPTHS = 12
# For figures of many panels: as wide as a page, so that letters are printed in their size.
PAGE_INCHES = 7.2
NOTE_LETTERS_PER_INCH = 14.5
SMALL = STYLE | {"font.size": 8, "axes.titlesize": 9}
# A line through points with intervals.
LINE: dict[str, Any] = {"fmt": "o-", "color": ON_BUDGET, "linewidth": 1.2, "capsize": 3}


def png(figure: Figure) -> bytes:
    """The figure as a PNG file; without metadata, so that the same figure gives the same bytes."""
    content = BytesIO()
    figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
    return content.getvalue()


def check_rows(rows: Sized) -> None:
    """Raise a ValueError if there is nothing to draw."""
    if not len(rows):
        raise ValueError("a figure needs at least one row, got none")


def add_title(figure: Figure, title: str, note: str) -> None:
    """A title, and below it, in lines left free by the layout, a note in small letters."""
    lines = textwrap.wrap(note, int(NOTE_LETTERS_PER_INCH * figure.get_figwidth()))
    free = "\n" * len(lines)
    figure.suptitle(f"{title}{free}", x=0.01, ha="left", fontsize=11, fontweight="bold")
    inches_from_top = 0.28
    y = 1 - inches_from_top / figure.get_figheight()
    figure.text(0.01, y, "\n".join(lines), va="top", fontsize=8, color=MUTED)


def spans(rows: pd.DataFrame, column: str) -> tuple[pd.Series, pd.Series, pd.Series]:
    """A mean, and the spans to the lower and upper end of its interval, 0 if it has none."""
    mean = rows[column]
    lo, hi = (rows[f"{column}_{end}"].astype(float).fillna(mean) for end in ("lo", "hi"))
    return mean, mean - lo, hi - mean


def pairs_of_panels(count: int, height: float) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Two panels for each of several models, one above the other, nine models in a row.

    All the upper panels share their y axis, and so do the lower ones.

    Args:
        count: of models, 1 or more.
        height: of a row, in inches.

    Returns:
        The figure, and the upper and the lower panel of each model.
    """
    columns = min(count, MODELS_PER_ROW)
    rows = ceil(count / columns)
    figure = Figure(figsize=(PAGE_INCHES, 0.6 + height * rows), layout="constrained")
    panels = figure.subplots(2 * rows, columns, squeeze=False)
    pairs = list(zip(panels[::2].flat, panels[1::2].flat, strict=True))
    for index, pair in enumerate(pairs):
        pair[1].sharex(pair[0])
        pair[0].tick_params(labelbottom=False)
        for axes, first in zip(pair, pairs[0], strict=True):
            if index:
                axes.sharey(first)
            axes.tick_params(labelleft=index % columns == 0)
            axes.set_visible(index < count)
    return figure, pairs[:count]


def depth_accuracy(table: pd.DataFrame, budget: int) -> Figure:
    """Test accuracy against depth, with the intervals over seeds.

    Points are filled where the depth may be the best of those on the budget, for new seeds and new
    test images. A bar at the right shows how far these would move all points together.

    Networks without a hidden layer cannot meet the budget: their accuracy is written beside the
    axes, where it does not squeeze the scale of the others.

    Args:
        table: the columns depth, width, parameters, on_budget, seeds, accuracy, accuracy_lo,
            accuracy_hi, may_be_best, new_images_lo and new_images_hi, one row for each model;
            accuracies in [0, 1].
        budget: number of parameters that the models on the budget have.

    Returns:
        The figure.

    Raises:
        ValueError: if there is no row.
    """
    check_rows(table)
    hidden, linear = table[table["depth"] > 0], table[table["depth"] == 0]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.9), layout="constrained")
        axes = figure.add_subplot()
        seeds = sorted(set(table["seeds"]))
        on = hidden[hidden["on_budget"]]
        axes.plot(on["depth"], 100 * on["accuracy"], color=ON_BUDGET, linewidth=1.2, zorder=2)
        best = on["may_be_best"]
        tested = seeds != [1] and len(on) > 1
        verdict = "may be the best (95 % confidence set)" if tested else "not tested"
        for rows, color, fill, marker, label in (
            (on[best], ON_BUDGET, ON_BUDGET, "o", verdict),
            (on[~best], ON_BUDGET, "white", "o", "significantly below the best"),
            (hidden[~hidden["on_budget"]], OFF_BUDGET, OFF_BUDGET, "D", "off the budget"),
        ):
            if len(rows):
                mean, *ends = (100 * each for each in spans(rows, "accuracy"))
                style: dict[str, Any] = {"fmt": marker, "color": color, "markerfacecolor": fill}
                axes.errorbar(rows["depth"], mean, ends, capsize=3, label=label, zorder=3, **style)
        lengths = (hidden["new_images_hi"] - hidden["new_images_lo"]).astype(float)
        if lengths.notna().any():
            half = 50 * lengths.mean()
            label = f"± {half:.2f}: for new seeds and test images (95 %); "
            label += "most of it moves all points together"
            x, y = hidden["depth"].max() + 0.6, 100 * hidden["accuracy"].mean()
            axes.errorbar(x, y, half, fmt="none", color=MUTED, elinewidth=1, capsize=3, label=label)
        widths = hidden.groupby("depth")["width"].agg(lambda units: ", ".join(map(str, units)))
        axes.set_xlabel("hidden layers, and units of each")
        axes.set_ylabel("test accuracy, %")
        widths = widths.iloc[:: ceil(len(widths) / MOST_DEPTHS) or 1]
        axes.set_xticks(widths.index, [f"{depth}\n{units}" for depth, units in widths.items()])
        axes.margins(x=0.07)
        axes.set_ylim(top=min(100, axes.get_ylim()[1]))
        title = f"Accuracy against depth at {budget:,} parameters\n"
        axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
        note = f"mean and 95 % interval over {' or '.join(map(str, seeds))} seeds"
        if seeds == [1]:
            note = "one seed"
        for row in linear.itertuples():
            note += (
                f"; no hidden layer ({row.parameters:,} parameters, off the budget): "
                f"{100 * row.accuracy:.2f} %"
            )
        axes.text(0, 1.02, note, transform=axes.transAxes, fontsize=8.5, color=MUTED)
        if len(hidden):
            # It stands below the axes, where it hides no interval.
            axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), fontsize=8.5)
        return figure


def learning_curves(curves: dict[str, pd.DataFrame]) -> Figure:
    """Validation accuracy and losses of each model against the epoch, nine models in a row.

    Args:
        curves: for each model the columns epoch, train_loss, validation_loss,
            validation_accuracy, validation_accuracy_lo and validation_accuracy_hi.

    Returns:
        The figure: of each row of models above the error rates, below the losses.

    Raises:
        ValueError: if there is no model.
    """
    check_rows(curves)
    with mpl.rc_context(SMALL):
        figure, pairs = pairs_of_panels(len(curves), height=3.6)
        for (name, curve), (above, below) in zip(curves.items(), pairs, strict=True):
            epoch = curve["epoch"]
            above.plot(epoch, _error_percent(curve["validation_accuracy"]), color=ON_BUDGET)
            lo, hi = (_error_percent(curve[f"validation_accuracy_{end}"]) for end in ("hi", "lo"))
            above.fill_between(epoch, lo, hi, color=ON_BUDGET, alpha=0.25, linewidth=0)
            above.set_title(name)
            below.plot(epoch, curve["train_loss"], color=OFF_BUDGET, linestyle="--")
            below.plot(epoch, curve["validation_loss"], color=ON_BUDGET)
            for axes in (above, below):
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter(NullFormatter())
            above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for above, below in pairs[::MODELS_PER_ROW]:
            above.set_ylabel("validation error, %")
            below.set_ylabel("loss, nats")
        below.plot([], [], color=OFF_BUDGET, linestyle="--", label="training")
        below.plot([], [], color=ON_BUDGET, label="validation")
        figure.legend(*below.get_legend_handles_labels(), loc="upper right", ncols=2)
        figure.supxlabel("epoch", fontsize=9)
        known = any(curve["validation_accuracy_lo"].notna().any() for curve in curves.values())
        note = "mean over seeds; band: 95 % interval" if known else "one seed"
        note += "; the hump: the learning rate is at its peak"
        add_title(figure, "Learning curves", note)
        return figure


def learning_rates(table: pd.DataFrame) -> Figure:
    """Validation accuracy of each model against the learning rate, one panel for each model.

    Args:
        table: the columns model, depth, learning_rate, accuracy, accuracy_sd, seeds and chosen;
            accuracies in [0, 1], empty where training diverged.

    Returns:
        The figure.

    Raises:
        ValueError: if there is no row.
    """
    check_rows(table)
    table = table.assign(sd=100 * table["accuracy_sd"].astype(float).fillna(0.0))
    models = list(dict.fromkeys(table["model"]))
    hidden = 100 * table[table["depth"] > 0]["accuracy"]
    top = (hidden + table["sd"]).max() + 0.05
    columns = min(5, len(models))
    with mpl.rc_context(STYLE):
        rows = -(-len(models) // columns)
        figure = Figure(figsize=(1.9 * columns, 2.1 * rows + 0.5), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for name, axes in zip(models, panels, strict=False):
            grid = table[table["model"] == name]
            rates, accuracies = grid["learning_rate"], 100 * grid["accuracy"]
            axes.errorbar(rates, accuracies, grid["sd"], markersize=3, **LINE | {"capsize": 2})
            axes.plot(rates[grid["chosen"]], accuracies[grid["chosen"]], "D", color=OFF_BUDGET)
            for rate in rates[accuracies.isna()]:
                axes.axvline(rate, color=MUTED, linestyle=":")
            axes.set_xscale("log")
            axes.set_xticks(rates)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.tick_params(axis="x", labelrotation=90, labelsize=8)
            axes.tick_params(axis="y", labelsize=8)
            axes.set_title(name, fontsize=10)
            if grid["depth"].iloc[0] > 0 and hidden.notna().any():
                # What is far below the best is off the axis.
                axes.set_ylim(max(hidden.min(), hidden.max() - SHOWN_POINTS) - 0.05, top)
            axes.set_xlim(0.8 * rates.min(), 1.25 * rates.max())
        for axes in panels:
            axes.set_visible(False)
        seeds = " or ".join(map(str, sorted(set(table["seeds"]))))
        figure.supxlabel("peak of the learning rate", fontsize=10)
        figure.supylabel("validation accuracy, %", fontsize=10)
        title = (
            f"Choice of the learning rate (diamond): mean and standard deviation over {seeds} "
            "seeds; dotted: diverged"
        )
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        return figure


def _error_percent(accuracy: pd.Series) -> pd.Series:
    """Error rate in percent, at least what a logarithmic axis can show of no error at all."""
    return (100 * (1 - accuracy.astype(float))).clip(lower=LEAST_ERROR_PERCENT)
