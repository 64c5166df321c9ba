"""Tables of the documents that are computed, not copied, from recorded tables."""

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
    assert [slope.mean > slope.half for slope in docs._slopes().values()] == [True] * 2 + [
        False
    ] * 3


@pytest.mark.parametrize(
    ("gain", "last", "verdict"),
    [
        (0.003, 0.003, "is significant, and so is"),
        (0.003, 0.0, "is significant, but"),
        (0.0, 0.003, "is not significant"),
        (-0.003, 0.003, "is significant: with skips depth costs more"),
    ],
)
def test_skips_explain_the_loss_where_slopes_differ_and_the_deepest_gains(gain, last, verdict):
    plain = metrics({2: 0.98, 3: 0.97, 5: 0.96})
    found = metrics({2: 0.98, 3: 0.97 + gain, 5: 0.96 + 3 * gain})
    slopes = [
        100 * np.polyfit([2, 3, 5], [m["val_accuracy"] for m in of], 1)[0] for of in (found, plain)
    ]
    text = docs._cause(found, plain, docs._Estimate(100 * last, 0.01, 8))
    assert f"by {slopes[0]:+.3f} ±" in text
    assert f"by {slopes[1]:+.3f} ±" in text
    assert f"{slopes[0] - slopes[1]:+.3f} ±" in text
    assert verdict in text


def test_a_slope_is_that_of_the_least_squares_with_students_interval():
    accuracies = {2: 0.98, 3: 0.97, 5: 0.985}
    slope = docs._slope(pd.DataFrame(metrics(accuracies)), "val_accuracy", "val_sd")
    assert slope.mean == pytest.approx(
        100 * np.polyfit(*zip(*accuracies.items(), strict=True), 1)[0]
    )
    error = 0.002 / 5**0.5 / (14 / 3) ** 0.5  # the depths' sum of squares about their mean
    assert slope.half == pytest.approx(100 * 2.1788 * error, rel=1e-4)  # 12 degrees of freedom
    twice = slope.minus(slope)
    assert twice.mean == 0
    assert twice.half == pytest.approx(100 * 2.0639 * error * 2**0.5, rel=1e-4)  # of 24


def metrics(accuracies):
    """Of models with these depths and validation accuracies, five seeds each."""
    return [
        {"depth": depth, "val_accuracy": accuracy, "val_sd": 0.002, "seeds": 5}
        for depth, accuracy in accuracies.items()
    ]
