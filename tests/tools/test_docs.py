"""Tables of the documents that are computed, not copied, from recorded tables."""

import re

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from tools import docs

TABLE = """model,depth,learning_rate,accuracy,accuracy_sd,seeds,chosen
L0,0,0.1,0.1,0,3,False
L1,1,0.1,0.9,0.001,3,False
L2,2,0.1,0.9025,0,3,False
L3,3,0.1,0.905,0.001,3,True
L1,1,0.2,0.95,0,3,True
L2,2,0.2,0.94,0,3,True
L3,3,0.2,,,3,False
L1,1,0.4,0.9,0,3,False
L2,2,0.4,,,3,False
"""


@pytest.fixture
def rates(tmp_path, monkeypatch):
    path = tmp_path / "rates.csv"
    path.write_text(TABLE, encoding="utf-8")
    monkeypatch.setattr(docs, "RATES", path)
    return path


@pytest.mark.usefixtures("rates")
def test_the_slope_is_of_the_depths_that_finish_at_a_rate():
    *_, last = docs.learning_rates().splitlines()
    assert last == "| slope | +0.250 ± 0.100 | -1.000 ± 0.000 |  |"
    assert docs.trend_by_rate() == (
        "At equal learning rates, each additional hidden layer changes validation accuracy by "
        "+0.250 points at 0.1 and -1.000 points at 0.2."
    )


def test_a_slope_within_its_interval_is_no_trend(rates):
    rates.write_text(TABLE.replace("0.9,0.001", "0.9,0.01"), encoding="utf-8")
    assert "; there is no significant trend at 0.1." in docs.trend_by_rate()


def test_the_page_of_results_is_right_about_the_slopes(monkeypatch):
    monkeypatch.chdir(ROOT)
    table = pd.read_csv(ROOT / "tuning/learning_rates.csv")
    of = table.set_index(["model", "learning_rate"])["accuracy"]
    gains = [100 * (of[model].max() - of[model, 0.05]) for model in ("L1", "L8")]
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    assert "L1 gains {:.2f} points and L8 {:.2f}".format(*gains) in text
    assert "Depth helps at the two lowest rates and not at higher ones" in text
    assert [slope > half for _, slope, half in docs._slopes()] == [True] * 2 + [False] * 3


def test_without_skips_there_is_a_trend_and_with_skips_none(monkeypatch):
    """As docs/results.md has it below the table."""
    monkeypatch.chdir(ROOT)
    found = re.findall(r"([+-][\d.]+) ± ([\d.]+)", docs.skips().splitlines()[-1])
    (with_skips, half), (without, other) = (map(float, each) for each in found)
    assert abs(with_skips) < half
    assert without < -other


def test_a_slope_is_that_of_the_least_squares_with_students_interval():
    models = {
        f"L{depth}": {"depth": depth, "val_accuracy": accuracy, "val_sd": 0.002, "seeds": 5}
        for depth, accuracy in ((2, 0.98), (3, 0.97), (5, 0.985))
    }
    slope, half = docs._slope_with_interval(models).split(" ± ")
    assert float(slope) == pytest.approx(
        100 * np.polyfit([2, 3, 5], [0.98, 0.97, 0.985], 1)[0], abs=5e-4
    )
    error = 0.002 / 5**0.5 / (14 / 3) ** 0.5  # the depths' sum of squares about their mean
    assert float(half) == pytest.approx(100 * 2.1788 * error, abs=5e-4)  # 12 degrees of freedom
