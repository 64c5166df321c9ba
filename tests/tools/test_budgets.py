"""The sweep over budgets: its figure, and what is recorded of it."""

from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

from isoparam.budget import width_for_budget
from isoparam.figures.budgets import error_by_budget
from isoparam.figures.depth import png
from tools import findings, plot_budgets


def table(best):
    rows = [
        {
            "depth": depth,
            "width": 9,
            "seeds": 3,
            "accuracy": 0.97 - 0.001 * abs(depth - best),
            "accuracy_lo": 0.96,
            "accuracy_hi": 0.98,
        }
        for depth in range(5)
    ]
    return pd.DataFrame(rows)


def test_each_budget_has_a_line_and_a_ring_at_its_best():
    (axes,) = error_by_budget({3000: table(2), 1000: table(4)}).axes
    lines = [line.get_xydata() for line in axes.lines if line.get_linestyle() == "-"]
    lines = [line for line in lines if len(line) > 1]
    assert [line[:, 0].tolist() for line in lines] == [[1, 2, 3, 4]] * 2
    rings = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "o"]
    assert [ring[0] for ring in rings if len(ring) == 1] == [
        pytest.approx([4.0, 3.0]),
        pytest.approx([2.0, 3.0]),
    ]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1,000", "3,000"]


def test_no_budget_is_no_figure():
    with pytest.raises(ValueError, match=r"^a figure needs at least one row, got none$"):
        error_by_budget({})


def test_what_is_recorded_is_on_its_budgets_and_the_figure_is_drawn_from_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    *tables, _ = findings.read_budgets().items()
    assert len(tables) >= 4
    for budget, rows in tables:
        assert rows["depth"].tolist() == list(range(9))
        assert (rows["seeds"] == 3).all()
        for row in rows[rows["depth"] > 0].to_dict("records"):
            assert row["width"] == width_for_budget(budget, row["depth"], 784, 10)
    recorded = Path("studies/budgets/error.png").read_bytes()
    drawn = plot_budgets.figure()
    assert png(drawn) == recorded
    assert all(line.get_ydata().max() < 10 for line in drawn.axes[0].get_lines())  # none collapsed
