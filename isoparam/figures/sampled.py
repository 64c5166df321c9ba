"""Figures of the sampled softmax: from tables to matplotlib figures; no file is read or written."""

from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from isoparam.figures.depth import LINE, MUTED, STYLE, check_rows, spans

# Okabe and Ito's colours suit any colour vision; lines differ in marker and dash too.
FULL, IMPORTANCE, STATED, NONE = "#222222", "#0072b2", "#d55e00", "#cc79a7"
_COLOURS = {"full": FULL, "importance": IMPORTANCE, "stated": STATED, "none": NONE}
_MARKERS = {"full": "s", "importance": "o", "stated": "D", "none": "^"}
_SHADES = ("#56b4e9", "#009e73", "#0072b2", "#332288", "#e69f00")  # by K


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
    check_rows(table)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 4.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        for axes, column, factor, label in (
            (left, "test_accuracy", 100.0, "test accuracy, %"),
            (right, "test_loss", 1.0, "full-softmax negative log-likelihood, nats"),
        ):
            for weighting, rows in table.groupby("weighting", sort=False):
                mean, below, above = (factor * each for each in spans(rows, column))
                if weighting == "full":
                    axes.axhline(mean.iloc[0], color=FULL, linewidth=1.2, label="full softmax")
                    lo, hi = (mean - below).iloc[0], (mean + above).iloc[0]
                    axes.axhspan(lo, hi, color=FULL, alpha=0.15, linewidth=0)
                    continue
                style = LINE | {"fmt": f"{_MARKERS[weighting]}-", "color": _COLOURS[weighting]}
                name = f"sampled, {weighting} weights"
                axes.errorbar(rows["samples"], mean, [below, above], label=name, **style)
            axes.set_xlabel("sampled classes K beside the label")
            axes.set_ylabel(label)
            axes.set_xticks(sorted(set(table["samples"].dropna().astype(int))))
        left.legend(fontsize=8.5)
        seeds = " or ".join(map(str, sorted(set(table["seeds"]))))
        reached = ", ".join(
            f"{weighting} {100 * rows.min():.1f} to {100 * rows.max():.1f} %"
            for weighting, rows in table.groupby("weighting", sort=False)["test_accuracy"]
            if weighting != "full"
        )
        _title(
            figure,
            f"Accuracy from sampled classes: {reached}",
            f"linear classifier; mean and 95 % interval over {seeds} seeds",
        )
        return figure


def instance_discrimination(table: pd.DataFrame) -> Figure:
    """Top-1 accuracy and full negative log-likelihood on new views against epochs.

    Args:
        table: the columns run, weighting, samples, images, of_epochs, epoch, loss and accuracy,
            one row for each evaluation; accuracies in [0, 1].

    Returns:
        The figure: above accuracies, below losses; on the left images drawn equally often, on the
        right by Zipf's law.

    Raises:
        ValueError: if there is no row.
    """
    check_rows(table)
    laws = [law for law in ("uniform", "zipf") if law in set(table["images"])]
    titles = {"uniform": "each image once an epoch", "zipf": "images drawn by Zipf's law"}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 4.0 * len(laws), 6.2), layout="constrained")
        panels = figure.subplots(2, len(laws), sharex="col", squeeze=False)
        for law, above, below in zip(laws, *panels, strict=True):
            of_law = table[table["images"] == law]
            sizes = sorted(set(table["samples"].dropna()))
            shades = {k: _SHADES[i % len(_SHADES)] for i, k in enumerate(sizes)}
            for _, rows in of_law.groupby("run", sort=False):
                first, short = rows.iloc[0], rows["of_epochs"].max() < of_law["of_epochs"].max()
                weighting = first["weighting"]
                color = shades.get(first["samples"])
                style: dict[str, Any] = {
                    "color": color if weighting == "importance" else _COLOURS[weighting],
                    "marker": _MARKERS[weighting],
                    "markersize": 4,
                    "linewidth": 1.4,
                    "linestyle": "--" if short else "-",
                    "label": f"{_training(first)}, {first['of_epochs']} epochs",
                }
                above.plot(rows["epoch"], 100 * rows["accuracy"], **style)
                below.plot(rows["epoch"], rows["loss"], **style)
            above.set_title(titles[law], fontsize=10)
            above.set_ylim(bottom=0)
            below.set_xlabel("epoch")
            below.legend(fontsize=8.5, loc="upper right")
        panels[0, 0].set_ylabel("top-1 accuracy on new views, %")
        panels[1, 0].set_ylabel("full-softmax negative\nlog-likelihood, nats")
        ends = table.groupby("run", sort=False).tail(1)
        best = ends.loc[ends[ends["images"] == laws[0]]["accuracy"].idxmax()]
        _title(
            figure,
            f"Each image a class: top-1 {100 * best['accuracy']:.1f} % "
            f"({_training(best)}, {best['of_epochs']} epochs)",
            "one run each; negative log-likelihood and top-1 over all classes",
        )
        return figure


def _training(run: pd.Series) -> str:
    """How a run trained, for a legend."""
    if run["weighting"] == "full":
        return "full softmax"
    name = "no correction" if run["weighting"] == "none" else f"{run['weighting']} weights"
    return f"{name}, K = {int(run['samples'])}"


def _title(figure: Figure, title: str, note: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    figure.supxlabel(note, x=0.99, ha="right", fontsize=8.5, color=MUTED)
