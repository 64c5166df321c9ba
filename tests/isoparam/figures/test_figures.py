"""Figures from tables: what is in them, the tables at the edge, and the same bytes twice.

Warnings are errors here, so that every drawing is also a test that it draws without one.
"""

from itertools import pairwise

import pandas as pd
import pytest
from matplotlib.figure import Figure

from isoparam.figures.depth import (
    PAGE_INCHES,
    add_title,
    depth_accuracy,
    learning_curves,
    learning_rates,
    png,
)

BUDGET = 814_090
COLUMNS = (
    "model",
    "depth",
    "width",
    "parameters",
    "on_budget",
    "seeds",
    "accuracy",
    "accuracy_lo",
    "accuracy_hi",
    "may_be_best",
    "new_images_lo",
    "new_images_hi",
)
LINEAR = ("L0", 0, 0, 7_850, False, 5, 0.925, 0.924, 0.926, False, 0.920, 0.930)
FIRST = ("L1", 1, 1024, 814_090, True, 5, 0.984, 0.983, 0.985, False, 0.9814, 0.9866)
SECOND = ("L2", 2, 588, 813_802, True, 5, 0.986, 0.985, 0.987, True, 0.9836, 0.9884)
SMALL = ("S3", 3, 9, 7_360, False, 5, 0.945, 0.943, 0.947, False, 0.940, 0.950)


def table(*rows: tuple):
    return pd.DataFrame(rows, columns=list(COLUMNS))


def with_one_seed(*rows: tuple):
    """As from a study with a single seed: no interval, and nothing is left out of the best."""
    return table(*((*row[:5], 1, row[6], None, None, row[4], None, None) for row in rows))


def from_csv(frame, tmp_path):
    """As a stage reads it from the file that another stage wrote: None is NaN there."""
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    return pd.read_csv(path)


def curve(accuracy, half=0.002, epochs=4):
    """Curves of which the accuracy ends at a value, with an interval if there is a half of it."""
    values = [accuracy - 0.01 * left for left in reversed(range(epochs))]
    return pd.DataFrame(
        {
            "epoch": range(1, epochs + 1),
            "train_loss": [0.3 / n for n in range(1, epochs + 1)],
            "validation_loss": [0.4 / n for n in range(1, epochs + 1)],
            "validation_accuracy": values,
            "validation_accuracy_lo": [None if half is None else v - half for v in values],
            "validation_accuracy_hi": [None if half is None else v + half for v in values],
        }
    )


def intervals(figure):
    """Of each group of points their depths, means and ends of intervals."""
    (axes,) = figure.axes
    groups = []
    for points, _, (bars,) in axes.containers:
        if points:
            ends = [(low[1], high[1]) for low, high in bars.get_segments()]
            groups.append((points.get_xdata().tolist(), points.get_ydata().tolist(), ends))
    return groups


def bars_at_the_right(figure):
    """Of each bar that belongs to no point its place and its two ends."""
    (axes,) = figure.axes
    return [
        ((low[0], high[0]), (low[1], high[1]))
        for points, _, (bars,) in axes.containers
        if points is None
        for low, high in bars.get_segments()
    ]


def legend_of(figure):
    (axes,) = figure.axes
    legend = axes.get_legend()
    return [text.get_text() for text in legend.get_texts()] if legend else []


def texts_of(figure):
    (axes,) = figure.axes
    return [text.get_text() for text in axes.texts]


BEST, BELOW = "may be the best (95 % confidence set)", "significantly below the best"
ALONE, OFF = "not tested", "off the budget"


@pytest.mark.parametrize(
    ("rows", "depths", "labels"),
    [
        ([LINEAR, FIRST, SECOND, SMALL], [1, 2, 3], [BEST, BELOW, OFF]),
        ([FIRST, SECOND], [1, 2], [BEST, BELOW]),
        ([LINEAR, SECOND], [2], [ALONE]),
        ([SECOND], [2], [ALONE]),
        ([SMALL], [3], [OFF]),
        ([SECOND, SMALL], [2, 3], [ALONE, OFF]),
        ([LINEAR], [], []),
        ([SECOND, (*SMALL[:1], 2, *SMALL[2:])], [2], [ALONE, OFF]),  # two of one depth
    ],
    ids=lambda value: "-".join(str(each[0]) for each in value if isinstance(each, tuple)) or None,
)
@pytest.mark.parametrize("make", [table, with_one_seed])
def test_models_stand_at_their_depth_with_their_width(make, rows, depths, labels, tmp_path):
    for frame in (make(*rows), from_csv(make(*rows), tmp_path)):
        figure = depth_accuracy(frame, BUDGET)
        figure.draw_without_rendering()
        (axes,) = figure.axes
        assert axes.get_xticks().tolist() == depths
        if make is with_one_seed:
            # No test is possible, so that nothing is said of the best.
            expected = [ALONE] * any(row[4] for row in rows) + [OFF] * (OFF in labels)
        else:
            expected = labels
        legend = legend_of(figure)
        if make is table and depths:
            assert legend.pop().endswith("most of it moves all points together")
        assert legend == expected
        (note,) = texts_of(figure)
        of_depth = {
            depth: ", ".join(str(row[2]) for row in rows if row[1] == depth) for depth in depths
        }
        ticks = [label.get_text() for label in axes.get_xticklabels()]
        assert ticks == [f"{depth}\n{units}" for depth, units in of_depth.items()]
        assert ("no hidden layer" in note) == (LINEAR in rows)
        assert axes.get_title(loc="left").strip() == "Accuracy against depth at 814,090 parameters"


def test_points_and_intervals_are_those_of_the_table():
    groups = intervals(depth_accuracy(table(LINEAR, FIRST, SECOND, SMALL), BUDGET))
    # A difference and a sum of numbers up to 100, each rounded.
    near = {"abs": 4 * 100 * 2**-53}
    assert len(groups) == 3
    for (depths, means, ends), rows in zip(groups, [[SECOND], [FIRST], [SMALL]], strict=True):
        assert depths == [row[1] for row in rows]
        assert means == pytest.approx([100 * row[6] for row in rows], **near)
        for end, row in zip(ends, rows, strict=True):
            assert end == pytest.approx((100 * row[7], 100 * row[8]), **near)


def test_points_are_filled_where_the_depth_may_be_the_best():
    (axes,) = depth_accuracy(table(FIRST, SECOND), BUDGET).axes
    filled, hollow = (points for points, _, _ in axes.containers if points)
    assert (filled.get_xdata().tolist(), hollow.get_xdata().tolist()) == ([2], [1])
    assert filled.get_markerfacecolor() == filled.get_markeredgecolor()
    assert hollow.get_markerfacecolor() == "white"
    assert hollow.get_markeredgecolor() == filled.get_markeredgecolor()


def test_a_bar_beside_the_points_is_the_interval_over_other_test_images():
    figure = depth_accuracy(table(LINEAR, FIRST, SECOND), BUDGET)
    (((left, right), (low, high)),) = bars_at_the_right(figure)
    assert left == right > 2
    # The mean of 0.26 and 0.24 points, about the mean of the accuracies.
    assert (high - low) / 2 == pytest.approx(0.25, rel=1e-9)
    assert (high + low) / 2 == pytest.approx(98.5, rel=1e-9)
    assert legend_of(figure)[-1].startswith("± 0.25: for new seeds and test images (95 %)")


def test_one_seed_has_points_without_intervals():
    ((depths, means, ends),) = intervals(depth_accuracy(with_one_seed(FIRST, SECOND), BUDGET))
    assert depths == [1, 2]
    assert ends == [(mean, mean) for mean in means]


def test_the_line_joins_the_models_on_the_budget_alone():
    (axes,) = depth_accuracy(table(LINEAR, FIRST, SMALL, SECOND), BUDGET).axes
    assert axes.lines[0].get_xdata().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        ([FIRST], "mean and 95 % interval over 5 seeds"),
        ([FIRST, (*SECOND[:5], 3, *SECOND[6:])], "mean and 95 % interval over 3 or 5 seeds"),
        ([LINEAR], "; no hidden layer (7,850 parameters, off the budget): 92.50 %"),
    ],
    ids=["hidden", "two counts of seeds", "linear"],
)
def test_the_note_says_over_how_many_seeds_and_where_the_linear_model_is(rows, note):
    assert texts_of(depth_accuracy(table(*rows), BUDGET))[-1].endswith(note)


def test_the_note_claims_no_interval_over_one_seed():
    assert "interval" not in texts_of(depth_accuracy(with_one_seed(FIRST), BUDGET))[-1]


def test_of_60_depths_those_are_named_that_have_room():
    rows = [(f"L{depth}", depth, 1000 + depth, *SECOND[3:]) for depth in range(1, 61)]
    figure = depth_accuracy(table(*rows), BUDGET)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert len(boxes) == 12
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))


@pytest.mark.parametrize(
    ("names", "epochs", "half"),
    [
        *((["L0"], epochs, half) for epochs in (1, 4) for half in (0.002, None)),
        (["L0", "L1"], 4, None),
        ([f"L{depth}" for depth in range(9)], 4, 0.002),
    ],
)
def test_each_model_has_its_curves_in_a_panel(names, epochs, half):
    curves = {name: curve(0.9 + 0.01 * n, half, epochs) for n, name in enumerate(names)}
    figure = learning_curves(curves)
    figure.draw_without_rendering()
    above, below = figure.axes[: len(names)], figure.axes[len(names) :]
    assert [axes.get_title() for axes in above] == names
    for upper, lower, data in zip(above, below, curves.values(), strict=True):
        assert upper.lines[0].get_xdata().tolist() == list(range(1, epochs + 1))
        assert upper.lines[0].get_ydata().tolist() == [
            100 * (1 - accuracy) for accuracy in data["validation_accuracy"]
        ]
        assert lower.lines[0].get_ydata().tolist() == data["train_loss"].tolist()
        assert lower.lines[1].get_ydata().tolist() == data["validation_loss"].tolist()
    note = "one seed" if half is None else "mean over seeds; band: 95 % interval"
    assert figure.texts[-1].get_text() == f"{note}; the hump: the learning rate is at its peak"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["training", "validation"]


def test_many_models_stand_in_rows_of_nine():
    curves = {f"L{depth}": curve(0.9, 0.002, epochs=2) for depth in range(20)}
    figure = learning_curves(curves)
    figure.draw_without_rendering()
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 2 * 20
    assert [axes.get_title() for axes in shown if axes.get_title()] == list(curves)
    assert figure.get_figheight() > 3 * 3
    # Each row has the epochs below it.
    assert [axes.xaxis.get_tick_params()["labelbottom"] for axes in shown] == (
        [False] * 9 + [True] * 9
    ) * 2 + [False] * 2 + [True] * 2


def test_no_axis_goes_above_100_percent():
    row = ("L2", 2, 588, 813_802, True, 5, 0.998, 0.993, 0.9999, True, 0.99, 0.9999)
    (axes,) = depth_accuracy(table(row), BUDGET).axes
    low, high = axes.get_ylim()
    assert low < 99.3
    assert high == 100


def test_a_long_note_stays_within_the_figure():
    words = "a note of many words that no line of the figure can hold; " * 4
    figure = Figure(figsize=(PAGE_INCHES, 3), layout="constrained")
    axes = figure.subplots()
    add_title(figure, "Title", words.strip())
    figure.draw_without_rendering()
    title, note = (text.get_window_extent() for text in (figure._suptitle, figure.texts[-1]))
    assert figure.texts[-1].get_text().split() == words.split()
    assert note.x1 < figure.bbox.x1
    assert axes.get_window_extent().y1 < note.y0 < note.y1 < title.y1


def test_an_interval_beyond_an_accuracy_of_1_is_drawn():
    learning_curves({"L1": curve(0.999, half=0.01)}).draw_without_rendering()


@pytest.mark.parametrize("half", [0.0, None])
def test_a_perfect_accuracy_is_drawn(half):
    learning_curves({"L1": curve(1.0, half, epochs=1)}).draw_without_rendering()


FIGURES = {
    "depth_accuracy": lambda: depth_accuracy(table(LINEAR, FIRST, SECOND, SMALL), BUDGET),
    "learning_curves": lambda: learning_curves({"L0": curve(0.92), "L1": curve(0.98)}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_table_gives_the_same_bytes(name, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path in paths:
        path.write_bytes(png(FIGURES[name]()))
    first, second = (path.read_bytes() for path in paths)
    assert first.startswith(b"\x89PNG")
    assert first == second
    assert sorted(tmp_path.iterdir()) == paths


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_leaves_the_style_of_others_alone(name):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    FIGURES[name]()
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    "draw", [lambda: depth_accuracy(table(), BUDGET), lambda: learning_curves({})]
)
def test_without_a_model_there_is_no_figure(draw):
    with pytest.raises(ValueError, match="a figure needs at least one row, got none"):
        draw()


@pytest.mark.parametrize("models", [1, 2, 9])
def test_learning_rates_have_a_panel_for_each_model(models):
    grid = pd.DataFrame(
        [
            {
                "model": f"L{depth}",
                "depth": depth,
                "learning_rate": rate,
                "accuracy": accuracy,
                "accuracy_sd": None if accuracy is None else 0.001,
                "seeds": 3,
                "chosen": rate == 0.1,
            }
            for depth in range(models)
            for rate, accuracy in ((0.05, 0.97), (0.1, 0.98), (0.2, None))
        ]
    )
    figure = learning_rates(grid)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == list(dict.fromkeys(grid["model"]))
    for axes in shown:
        diamond = next(line for line in axes.lines if line.get_marker() == "D")
        assert diamond.get_xydata().tolist() == [[0.1, pytest.approx(98.0)]]
        assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [0.2]
    assert png(figure) == png(learning_rates(grid))


def test_learning_rates_that_are_far_off_do_not_squeeze_the_others():
    accuracies = {0.05: 0.983, 0.1: 0.985, 0.2: 0.986, 0.3: 0.96}
    grid = pd.DataFrame(
        {
            "model": "L2",
            "depth": 2,
            "learning_rate": accuracies.keys(),
            "accuracy": accuracies.values(),
            "accuracy_sd": 0.0005,
            "seeds": 3,
            "chosen": [rate == 0.2 for rate in accuracies],
        }
    )
    axes = learning_rates(grid).axes[0]
    bottom, top = axes.get_ylim()
    shown = [100 * accuracy for accuracy in (0.983, 0.985, 0.986)]
    assert bottom < min(shown) - 0.05
    assert top > max(shown) + 0.05
    assert top - bottom < 2 * (max(shown) - min(shown))


def test_learning_rates_of_nothing_are_refused():
    with pytest.raises(ValueError, match="a figure needs at least one row, got none"):
        learning_rates(pd.DataFrame())
