"""Figures of the sampled softmax: from tables to matplotlib figures; no file is read or written."""

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED = "#222222", "#777777"
# Okabe and Ito's colours, told apart with any colour vision; lines differ in marker and dash too.
FULL, IMPORTANCE, STATED, NONE = "#222222", "#0072b2", "#d55e00", "#cc79a7"
_COLOURS = {"full": FULL, "importance": IMPORTANCE, "stated": STATED, "none": NONE}
_MARKERS = {"full": "s", "importance": "o", "stated": "D", "none": "^"}
_SHADES = ("#56b4e9", "#009e73", "#0072b2", "#332288", "#117733")

_STYLE = {
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
    "svg.hashsalt": "isoparam",
}


def sampled_classifier(table: pd.DataFrame) -> Figure:
    """Test accuracy and full negative log-likelihood against the number of sampled classes.

    Args:
        table: the columns weighting, samples, seeds, and test_accuracy and test_loss, each with
            its interval in ..._lo and ..._hi; one row for each run, accuracies in [0, 1].

    Returns:
        The figure: on the left accuracies, on the right losses; the full softmax as a band.

    Raises:
        ValueError: if there is no row.
    """
    if table.empty:
        raise ValueError("a figure needs at least one run, got none")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 4.0), layout="constrained")
        panels = figure.subplots(1, 2)
        for axes, column, factor, label in zip(
            panels,
            ("test_accuracy", "test_loss"),
            (100.0, 1.0),
            ("test accuracy, %", "full-softmax negative log-likelihood, nats"),
            strict=True,
        ):
            for weighting, rows in table.groupby("weighting", sort=False):
                mean, lo, hi = (
                    factor * rows[name].astype(float).fillna(rows[column])
                    for name in (column, f"{column}_lo", f"{column}_hi")
                )
                if weighting == "full":
                    axes.axhline(mean.iloc[0], color=FULL, linewidth=1.2, label="full softmax")
                    axes.axhspan(lo.iloc[0], hi.iloc[0], color=FULL, alpha=0.15, linewidth=0)
                    continue
                axes.errorbar(
                    rows["samples"],
                    mean,
                    yerr=[mean - lo, hi - mean],
                    color=_COLOURS[weighting],
                    marker=_MARKERS[weighting],
                    linewidth=1.2,
                    capsize=3,
                    label=f"sampled, {weighting} weights",
                )
            axes.set_xlabel("sampled classes K beside the label")
            axes.set_ylabel(label)
            axes.set_xticks(sorted(set(table["samples"].dropna().astype(int))))
        panels[0].legend(frameon=False, fontsize=8.5)
        seeds = " or ".join(map(str, sorted(set(table["seeds"]))))
        _title(
            figure,
            "A linear classifier trained on sampled classes",
            f"mean and 95 % interval over {seeds} seeds",
        )
        return figure


def instance_discrimination(table: pd.DataFrame) -> Figure:
    """Top-1 accuracy and full negative log-likelihood on fresh views against epochs.

    Args:
        table: the columns run, weighting, samples, images, of_epochs, epoch, loss and accuracy,
            one row for each evaluation; accuracies in [0, 1].

    Returns:
        The figure: above accuracies, below losses; on the left images drawn equally often, on the
        right by Zipf's law.

    Raises:
        ValueError: if there is no row.
    """
    if table.empty:
        raise ValueError("a figure needs at least one run, got none")
    laws = [law for law in ("uniform", "zipf") if law in set(table["images"])]
    titles = {"uniform": "each image once an epoch", "zipf": "images drawn by Zipf's law"}
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(1.2 + 4.0 * len(laws), 6.2), layout="constrained")
        panels = figure.subplots(2, len(laws), sharex="col", squeeze=False)
        for law, above, below in zip(laws, *panels, strict=True):
            runs = list(table[table["images"] == law].groupby("run", sort=False))
            shades = iter(_SHADES * len(runs))
            longest = table["of_epochs"].where(table["images"] == law).max()
            for _, rows in runs:
                _draw_run(above, below, rows, next(shades), longest)
            above.set_title(titles[law], fontsize=10)
            above.set_ylim(bottom=0)
            below.set_xlabel("epoch")
            above.legend(frameon=False, fontsize=8)
        panels[0, 0].set_ylabel("top-1 accuracy on fresh views, %")
        panels[1, 0].set_ylabel("full-softmax negative\nlog-likelihood, nats")
        _title(figure, "Each training image a class of its own", "")
        return figure


def _draw_run(above: Axes, below: Axes, rows: pd.DataFrame, shade: str, longest: float) -> None:
    first = rows.iloc[0]
    weighting, law = first["weighting"], first["images"]
    short = first["of_epochs"] < longest
    name = "full softmax" if weighting == "full" else f"{weighting}, K = {int(first['samples'])}"
    style = {
        "color": shade if weighting == "importance" and law == "uniform" else _COLOURS[weighting],
        "marker": _MARKERS[weighting],
        "markersize": 4,
        "linewidth": 1.4,
        "linestyle": "--" if short else "-",
        "label": f"{name}, {first['of_epochs']} epochs",
    }
    above.plot(rows["epoch"], 100 * rows["accuracy"], **style)
    below.plot(rows["epoch"], rows["loss"], **style)


def _title(figure: Figure, title: str, note: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    if note:
        figure.text(0.99, 0.985, note, ha="right", va="top", fontsize=8.5, color=MUTED)
