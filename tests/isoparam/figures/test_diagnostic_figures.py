"""Figures of what networks do: what is in them, the tables at the edge, and the same bytes twice.

Warnings are errors here, so that every drawing is also a test that it draws without one.
"""

import numpy as np
import pandas as pd
import pytest

from isoparam.figures.depth import png
from isoparam.figures.diagnostics import (
    DIGITS_PER_ROW,
    LEAST_NORM,
    LEAST_PREDICTIONS,
    MOST_DIGITS,
    by_layer,
    calibration,
    confusion,
    hard_digits,
)

COUNTS = [1, 2, 3, 4, 9]


def names(count):
    return [f"L{depth}" for depth in range(count)]


def summary(count, seeds=5):
    return pd.DataFrame(
        {
            "model": names(count),
            "seeds": seeds,
            "test_loss": [0.1 + 0.01 * n for n in range(count)],
            "ece": [0.01 + 0.001 * n for n in range(count)],
            "test_images": 10_000,
            "probe_images": 1_000,
        }
    )


def confusions(count, value=2.5, classes=10):
    """Of each class and model: `value` images for the next class, the others right."""
    matrix = np.eye(classes) * 90 + np.roll(np.eye(classes), 1, axis=1) * value
    tables = []
    for name in names(count):
        table = pd.DataFrame(matrix, columns=[str(c) for c in range(classes)])
        table.insert(0, "label", range(classes))
        table.insert(0, "model", name)
        tables.append(table)
    return pd.concat(tables)


def bins(count, least=LEAST_PREDICTIONS):
    return pd.concat(
        pd.DataFrame(
            {
                "model": name,
                "bins": 15,
                "count": [least - 1, least, 900],
                "confidence": [0.2, 0.5, 0.99],
                "accuracy": [1.0, 0.4, 0.98],
            }
        )
        for name in names(count)
    )


def layers(count, norm=1.0):
    tables = []
    for depth, name in enumerate(names(count)):
        for state in ("initial", "trained"):
            table = pd.DataFrame({"model": name, "state": state, "layer": range(1, depth + 2)})
            for column, value in (("gradient_norm", norm), ("similarity", 0.5)):
                table[column] = value
                table[f"{column}_least"] = 0.9 * value
                table[f"{column}_greatest"] = 1.1 * value
            tables.append(table)
    return pd.concat(tables)


def digits(count, wrong=45, side=28):
    return pd.DataFrame(
        {
            "label": [n % 10 for n in range(count)],
            "predicted": [(n + 1) % 10 for n in range(count)],
            "votes": 40,
            "wrong": wrong,
            "networks": 45,
            "pixels": [bytes([n % 256] * side**2).hex() for n in range(count)],
        }
    )


def texts(figure):
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("count", COUNTS)
def test_each_model_has_its_confusions_and_its_sum_of_errors(count):
    figure = confusion(confusions(count), summary(count))
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in panels] == [
        f"{name}: 25 errors" for name in names(count)
    ]
    for axes in panels:
        assert {(*text.get_position(), text.get_text()) for text in axes.texts} == {
            ((label + 1) % 10, label, "3") for label in range(10)
        }
        (image,) = axes.images
        assert image.get_array().mask.diagonal().all()


@pytest.mark.parametrize("value", [0.0, 0.4])
def test_less_than_half_an_image_has_no_number(value):
    (axes, *_) = confusion(confusions(1, value), summary(1)).axes
    assert not axes.texts


@pytest.mark.parametrize(("seeds", "said"), [(1, "one seed"), (5, "over 5 seeds")])
def test_notes_say_over_how_many_seeds(seeds, said):
    for figure in (
        confusion(confusions(2), summary(2, seeds)),
        calibration(bins(2), summary(2, seeds)),
        by_layer(layers(2), summary(2, seeds)),
    ):
        assert texts(figure)[-1].endswith((said, f"{said}; cells below 0.5 have no number"))


@pytest.mark.parametrize("count", COUNTS)
def test_points_of_a_reliability_diagram_are_those_of_the_table(count):
    figure = calibration(bins(count), summary(count))
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == count
    for n, axes in enumerate(panels):
        stems, points = axes.collections
        assert points.get_offsets().tolist() == [[50.0, 40.0], [99.0, 98.0]]
        assert [segment.tolist() for segment in stems.get_segments()] == [
            [[50.0, 50.0], [50.0, 40.0]],
            [[99.0, 99.0], [99.0, 98.0]],
        ]
        small, large = points.get_sizes() - 10
        assert large / small == pytest.approx(900 / LEAST_PREDICTIONS)
        (text,) = axes.texts
        assert text.get_text() == f"ECE {1 + 0.1 * n:.2f} %\nNLL {0.1 + 0.01 * n:.3f} nats"
    assert f"of 15 bins that has {LEAST_PREDICTIONS} predictions or more" in texts(figure)[-1]


def test_a_model_with_few_predictions_has_no_points():
    table = bins(1).iloc[:1]
    (axes, *_) = calibration(table, summary(1)).axes
    assert not len(axes.collections[1].get_offsets())
    png(calibration(table, summary(1)))


@pytest.mark.parametrize("count", COUNTS)
def test_each_layer_has_its_norm_and_its_similarity(count):
    figure = by_layer(layers(count), summary(count))
    figure.draw_without_rendering()
    above, below = figure.axes[:count], figure.axes[count:]
    assert [axes.get_title() for axes in above] == names(count)
    for depth, panels in enumerate(zip(above, below, strict=True)):
        for axes, value in zip(panels, (1.0, 0.5), strict=True):
            assert [line.get_xdata().tolist() for line in axes.lines] == [
                [*range(1, depth + 2)]
            ] * 2
            assert [line.get_ydata().tolist() for line in axes.lines] == [[value] * (depth + 1)] * 2
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "at initialisation",
        "after training",
    ]


def test_layers_of_many_models_stand_in_rows_of_nine():
    figure = by_layer(layers(20), summary(20))
    figure.draw_without_rendering()
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown if axes.get_title()] == names(20)
    rows = {axes.get_subplotspec().rowspan.start for axes in shown}
    assert len(rows) == 2 * 3
    # Each has an axis of its own for its layers.
    ends = {axes.get_title(): axes.get_xlim()[1] for axes in shown if axes.get_title()}
    assert ends == {f"L{depth}": depth + 1.5 for depth in range(20)}


def test_layers_without_a_gradient_are_drawn():
    figure = by_layer(layers(3, norm=0.0), summary(3))
    png(figure)
    assert figure.axes[0].lines[0].get_ydata().tolist() == [LEAST_NORM]


@pytest.mark.parametrize(
    ("count", "wrong", "title", "shown"),
    [
        (1, 45, "1 test image that all 45 networks get wrong", 1),
        (1, 44, "1 test image that 44 of 45 networks get wrong", 1),
        (12, 45, "12 test images that all 45 networks get wrong", 12),
        (MOST_DIGITS, 45, f"{MOST_DIGITS} test images that all 45 networks get wrong", MOST_DIGITS),
    ],
)
@pytest.mark.parametrize("side", [8, 28])
def test_hard_digits_are_shown_with_what_the_networks_say(count, wrong, title, shown, side):
    figure = hard_digits(digits(count, wrong, side))
    figure.draw_without_rendering()
    assert figure.get_suptitle().strip() == title
    assert (f"the {shown} of the largest loss" in texts(figure)[-1]) == (shown < count)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == shown
    assert len(figure.axes) == -(-shown // DIGITS_PER_ROW) * DIGITS_PER_ROW
    for n, axes in enumerate(panels):
        assert axes.get_title() == f"{n % 10} → {(n + 1) % 10}"
        assert [text.get_text() for text in axes.texts] == ["40 of 45"]
        assert axes.images[0].get_array().tolist() == [[n] * side] * side


FIGURES = {
    "confusion": lambda count: confusion(confusions(3)[: 10 * count], summary(count)),
    "calibration": lambda count: calibration(bins(3)[: 3 * count], summary(count)),
    "by_layer": lambda count: by_layer(layers(3)[:count], summary(count)),
    "hard_digits": lambda count: hard_digits(digits(count)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_table_gives_the_same_bytes(name):
    first, second = (png(FIGURES[name](2)) for _ in range(2))
    assert first.startswith(b"\x89PNG")
    assert first == second


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_leaves_the_style_of_others_alone(name):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    FIGURES[name](2)
    assert dict(mpl.rcParams) == before


def test_without_a_hard_digit_the_figure_says_so():
    figure = hard_digits(digits(0))
    assert figure.get_suptitle().strip() == "No network gets any test image wrong"
    assert not figure.axes
    png(figure)


@pytest.mark.parametrize("name", sorted(FIGURES.keys() - {"hard_digits"}))
def test_without_a_row_there_is_no_figure(name):
    with pytest.raises(ValueError, match="a figure needs at least one row, got none"):
        FIGURES[name](0)
