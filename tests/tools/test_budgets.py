"""The sweep over budgets and the study on Fashion-MNIST: figures, and what is recorded of them."""

from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

from isoparam.budget import width_for_budget
from isoparam.figures.budgets import differences_by_budget
from isoparam.figures.depth import depth_accuracy, png
from pipeline import files, parameters
from stages import plot
from tools import findings


def table(best):
    rows = [
        {
            "depth": depth,
            "width": 9,
            "seeds": 3,
            "accuracy": 0.97 - 0.001 * abs(depth - best),
            "accuracy_lo": 0.96,
            "accuracy_hi": 0.98,
            "collapsed": int(depth == 3),
        }
        for depth in range(5)
    ]
    return pd.DataFrame(rows)


def test_each_budget_has_a_panel_with_the_differences_to_its_best():
    panels = differences_by_budget({3000: table(2), 1000: table(4)}).axes
    assert [axes.get_title() for axes in panels] == ["1,000", "3,000"]
    for axes, best, expected in zip(
        panels, (4, 2), ([-0.3, -0.2, 0.0], [-0.1, 0.0, -0.2]), strict=True
    ):
        line, point = axes.get_lines()[0], axes.get_lines()[-1]
        assert line.get_xdata().tolist() == [1, 2, 4]  # 3 has a collapsed seed
        assert line.get_ydata() == pytest.approx(expected, abs=1e-9)
        assert point.get_xydata().tolist() == [[best, 0.0]]


def test_no_budget_is_no_figure():
    with pytest.raises(ValueError, match=r"^a figure needs at least one row, got none$"):
        differences_by_budget({})


def test_what_is_recorded_is_on_its_budgets_and_the_figure_is_drawn_from_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    *tables, _ = findings.read_budgets().items()
    assert len(tables) >= 4
    for budget, rows in tables:
        assert rows["depth"].tolist() == list(range(9))
        assert (rows["seeds"] == 5).all()
        for row in rows[rows["depth"] > 0].to_dict("records"):
            assert row["width"] == width_for_budget(budget, row["depth"], 784, 10)
    recorded = Path("studies/budgets/differences.png").read_bytes()
    assert png(differences_by_budget(findings.read_budgets())) == recorded


def test_the_study_on_fashion_mnist_is_recorded_with_its_figure(monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = findings.STUDIES / "fashion"
    table = files.read_csv(folder / "depth_accuracy.csv", plot.TABLE_COLUMNS)
    params = parameters.read_params()
    assert table["model"].tolist() == list(params.models)
    assert table["width"].tolist() == [model.width or 0 for model in params.models.values()]
    assert (table["seeds"] == 5).all()
    for row in table.itertuples():
        recorded = files.read_json(folder / f"metrics/depths/{row.model}.json")
        assert recorded["test_accuracy"] == pytest.approx(row.accuracy, abs=1e-12)
    figure = png(depth_accuracy(table, params.budget))
    assert figure == (folder / "depth_accuracy.png").read_bytes()
