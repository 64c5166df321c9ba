"""Figures of what networks do: from tables to matplotlib figures; no file is read or written."""

from math import ceil, floor, isqrt
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from isoparam.figures.depth import (
    INK,
    MODELS_PER_ROW,
    MUTED,
    OFF_BUDGET,
    ON_BUDGET,
    PAGE_INCHES,
    SMALL,
    add_title,
    check_rows,
    pairs_of_panels,
)

# Hard digits of a page.
DIGITS_PER_ROW, MOST_DIGITS = 10, 60

# Classes that are named along an axis.
MOST_TICKS = 40

# Of fewer predictions than these an accuracy says little.
LEAST_PREDICTIONS = 20

# The line of each state of the networks.
STATES = {"initial": ("s--", OFF_BUDGET), "trained": ("o-", ON_BUDGET)}

# Where no gradient flows, what a logarithmic axis can show.
LEAST_NORM = 1e-12


def confusion(table: pd.DataFrame, summary: pd.DataFrame, names: list[str] | None = None) -> Figure:
    """Which digits are taken for which, a panel for each model; right answers are left out.

    Args:
        table: the columns model, label and one for each class, "0", "1", ...: the images of the
            label that are taken for that class, the mean over seeds.
        summary: the columns model, seeds and test_images, a row for each model.
        names: of the classes, where they are no digits.

    Returns:
        The figure.

    Raises:
        ValueError: if there is no row.
    """
    check_rows(table)
    with mpl.rc_context(SMALL | {"axes.grid": False}):
        matrices = {
            name: rows.drop(columns=["model", "label"]).to_numpy(float)
            for name, rows in table.groupby("model", sort=False)
        }
        errors = {name: m * (1 - np.eye(len(m))) for name, m in matrices.items()}
        most = max(float(m.max()) for m in errors.values())
        figure, panels = _panels(len(errors), height=2.3)
        centred = {"ha": "center", "va": "center", "fontsize": 6.5}
        for axes, (name, counts) in zip(panels, errors.items(), strict=True):
            classes = len(counts)
            shown = np.ma.masked_array(counts, np.eye(classes, dtype=bool))
            axes.set_facecolor("#e6e6e6")
            # The square root distinguishes one image from none beside fifty.
            axes.imshow(shown, cmap="Blues", norm=PowerNorm(0.5, 0, max(most, 1.0)))
            for label, predicted in zip(*(counts >= 0.5).nonzero(), strict=True):
                value = counts[label, predicted]
                text, color = f"{floor(value + 0.5)}", "white" if value > 0.35 * most else INK
                axes.text(predicted, label, text, centred, color=color)
            ticks = range(0, classes, ceil(classes / MOST_TICKS))
            labels = names and [names[tick] for tick in ticks]
            axes.set_xticks(ticks, labels)
            axes.set_yticks(ticks, labels)
            axes.tick_params(length=0, labelsize=7)
            axes.tick_params("x", labelrotation=90 if names else 0)
            axes.set_title(f"{name}: {counts.sum():.0f} errors", loc="left")
        noun, nouns = ("class", "classes") if names else ("digit", "digits")
        figure.supxlabel(f"predicted {noun}", fontsize=9)
        figure.supylabel(f"true {noun}", fontsize=9)
        first = summary.iloc[0]
        add_title(
            figure,
            f"Which {nouns} are taken for which",
            f"errors among {first['test_images']:,} test images, {_over(first['seeds'])}; "
            "cells below 0.5 have no number",
        )
        return figure


def calibration(table: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Reliability diagrams: accuracy against confidence, a panel for each model.

    Args:
        table: the columns model, bins, count (predictions of all seeds), confidence and accuracy,
            a row for each bin that is not empty; the last two in [0, 1].
        summary: the columns model, seeds, test_loss and ece, a row for each model.

    Returns:
        The figure; the area of a point is the share of the predictions in its bin.

    Raises:
        ValueError: if there is no row.
    """
    check_rows(table)
    summary = summary.set_index("model")
    with mpl.rc_context(SMALL):
        groups = list(table.groupby("model", sort=False))
        figure, panels = _panels(len(groups), height=2.1, sharex=True, sharey=True)
        for axes, (name, rows) in zip(panels, groups, strict=True):
            share = rows["count"] / rows["count"].sum()
            drawn = rows["count"] >= LEAST_PREDICTIONS
            x, y = 100 * rows["confidence"][drawn], 100 * rows["accuracy"][drawn]
            axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.8, linestyle="--")
            axes.vlines(x, x, y, color=OFF_BUDGET, linewidth=2)
            edge: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.6}
            area = 10 + 150 * share[drawn]
            axes.scatter(x, y, area, color=ON_BUDGET, zorder=3, clip_on=False, **edge)
            axes.set_title(name, loc="left")
            ece, loss = summary.loc[name, ["ece", "test_loss"]]
            text = f"ECE {100 * ece:.2f} %\nNLL {loss:.3f} nats"
            axes.text(0.05, 0.95, text, transform=axes.transAxes, va="top")
            axes.set_xlim(0, 100)
            axes.set_ylim(0, 100)
            axes.set_aspect("equal")
        figure.supxlabel("confidence, %", fontsize=9)
        figure.supylabel("accuracy, %", fontsize=9)
        add_title(
            figure,
            "How far the networks' confidence can be trusted",
            f"a point for each of {table['bins'].iloc[0]} bins that has {LEAST_PREDICTIONS} "
            "predictions or more; area: its share of all predictions; bar: accuracy less "
            f"confidence; ECE and NLL: {_over(summary['seeds'].iloc[0])}",
        )
        return figure


def by_layer(table: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Norms of gradients and similarities of images by layer, a column of panels for each model.

    Args:
        table: the columns model, state (initial or trained), layer, and gradient_norm and
            similarity, each with the range over seeds in ..._least and ..._greatest.
        summary: the columns seeds and probe_images, a row for each model.

    Returns:
        The figure: above the norms, below the similarities.

    Raises:
        ValueError: if there is no row.
    """
    check_rows(table)
    with mpl.rc_context(SMALL):
        groups = list(table.groupby("model", sort=False))
        figure, pairs = pairs_of_panels(len(groups), height=3.8)
        for (name, rows), (above, below) in zip(groups, pairs, strict=True):
            above.set_yscale("log")
            above.yaxis.set_minor_formatter(NullFormatter())
            for axes, column in ((above, "gradient_norm"), (below, "similarity")):
                for state, (line, color) in STATES.items():
                    _band(axes, rows[rows["state"] == state], column, line, color)
            layers = int(rows["layer"].max())
            above.set_title(name)
            below.set_xlim(0.5, layers + 0.5)
            below.set_xticks(sorted({1, ceil(layers / 2), layers}))
            below.set_ylim(0, 1)
        for above, below in pairs[::MODELS_PER_ROW]:
            above.set_ylabel("gradient norm of\nthe layer's weight")
            below.set_ylabel("mean cosine of two images,\nas the layer gets them")
        figure.supxlabel("layer, from the images to the logits", fontsize=9)
        handles = [
            mpl.lines.Line2D([], [], color=OFF_BUDGET, linestyle="--", marker="s", markersize=3),
            mpl.lines.Line2D([], [], color=ON_BUDGET, marker="o", markersize=3),
        ]
        texts = ["at initialisation", "after training"]
        figure.legend(handles, texts, loc="upper right", ncols=2)
        first = summary.iloc[0]
        over = _over(first["seeds"], "median and range")
        note = f"gradient of the mean loss of {first['probe_images']:,} training images; {over}"
        add_title(figure, "What reaches each layer", note)
        return figure


def hard_digits(table: pd.DataFrame, names: list[str] | None = None) -> Figure:
    """The images that the most networks get wrong, in the order of the table.

    Args:
        table: the columns label, predicted, votes (networks that say `predicted`), wrong (networks
            that do not say `label`), networks, and pixels (two hexadecimal digits each, of a
            square image; NaN where the data are no pictures), largest loss first.
        names: of the classes, where they are no digits.

    Returns:
        The figure, with as many of them as fit on a page; without rows it says that there are none.
    """
    shown = table.iloc[:MOST_DIGITS]
    if table.empty:
        figure = Figure(figsize=(PAGE_INCHES, 0.6), layout="constrained")
        add_title(figure, "No network gets any test image wrong", "so that none is shown")
        return figure
    with mpl.rc_context(SMALL | {"axes.grid": False}):
        rows = ceil(len(shown) / DIGITS_PER_ROW)
        figure = Figure(figsize=(PAGE_INCHES, 0.6 + 0.98 * rows), layout="constrained")
        panels = figure.subplots(rows, DIGITS_PER_ROW, squeeze=False).flatten()
        for axes in panels:
            axes.set_axis_off()
        small = {"ha": "center", "va": "top", "fontsize": 7.5, "color": MUTED}
        for axes, row in zip(panels, shown.itertuples(), strict=False):
            if isinstance(row.pixels, str):
                pixels = np.frombuffer(bytes.fromhex(row.pixels), dtype=np.uint8)
                side = isqrt(len(pixels))
                axes.imshow(pixels.reshape(side, side), cmap="gray_r", vmin=0)
            if names:
                said = f"{names[row.label]}\n→ {names[row.predicted]}"
            else:
                said = f"{row.label} → {row.predicted}"
            axes.set_title(said, fontsize=7 if names else 9, pad=2)
            votes = f"{row.votes} of {row.networks}"
            axes.text(0.5, -0.02, votes, small, transform=axes.transAxes)
        first = table.astype(object).iloc[0]  # which keeps whole numbers whole
        wrong = "all" if first["wrong"] == first["networks"] else f"{first['wrong']} of"
        count = f"{len(table)} test images" if len(table) > 1 else "1 test image"
        add_title(
            figure,
            f"{count} that {wrong} {first['networks']} networks get wrong",
            f"above: true {'class' if names else 'digit'} → what most networks say; "
            "below: how many say that"
            + (f"; the {len(shown)} of the largest loss" if len(shown) < len(table) else "")
            + "; largest loss first"
            + ("" if isinstance(first["pixels"], str) else "; the data are no pictures to show"),
        )
        return figure


def _panels(
    count: int, height: float, *, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """As many panels, three in a row."""
    rows = ceil(count / 3)
    figure = Figure(figsize=(PAGE_INCHES, 0.9 + height * rows), layout="constrained")
    panels = figure.subplots(rows, 3, sharex=sharex, sharey=sharey, squeeze=False).flatten()
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, list(panels[:count])


def _band(axes: Axes, rows: pd.DataFrame, column: str, line: str, color: str) -> None:
    """The median over seeds as a line, the range as a band."""
    middle, least, greatest = (
        rows[f"{column}{end}"].clip(lower=LEAST_NORM) for end in ("", "_least", "_greatest")
    )
    axes.plot(rows["layer"], middle, line, color=color, linewidth=1.2, markersize=2.5)
    axes.fill_between(rows["layer"], least, greatest, color=color, alpha=0.25, linewidth=0)


def _over(seeds: int, what: str = "mean") -> str:
    return "one seed" if seeds == 1 else f"{what} over {seeds} seeds"
