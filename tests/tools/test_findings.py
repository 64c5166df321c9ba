"""What the documents say of a study, for each outcome that it may have."""

import re
from pathlib import Path

import pytest
from conftest import SAMPLED_YAML

from isoparam.results.statistics import estimate
from pipeline import files, parameters
from stages import aggregate
from tools import docs, findings

# Deviations of seeds from the mean, not the same for two models.
NOISE = {
    "L0": [0.0002, -0.0003, 0.0001, 0.0],
    "L1": [0.0001, -0.0001, 0.0002, -0.0002],
    "L2": [-0.0001, 0.0002, 0.0001, -0.0002],
    "L3": [0.0002, 0.0001, -0.0002, -0.0001],
}
DEPTHS = {name: int(name[1]) for name in NOISE}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Writes metrics of models of these mean test accuracies and aggregates them."""
    monkeypatch.chdir(tmp_path)

    def write(means, seeds=4, chosen="L1") -> None:
        models = ", ".join(
            f"{name}: {{depth: {DEPTHS[name]}" + (", width: 9}" if DEPTHS[name] else "}")
            for name in means
        )
        parameters.PARAMETERS.write_text(
            "data: {dataset: mnist}\nbudget: 9610\nseeds: [0]\n"
            "train: {epochs: 1, batch_size: 8, warmup: 0.2, momentum: 0.9, weight_decay: 0.0}\n"
            f"models: {{{models}}}\n{SAMPLED_YAML}",
            encoding="utf-8",
        )
        for name, mean in means.items():
            values = [mean + off for off in NOISE[name][:seeds]]
            accuracy, deviation, lo, hi = estimate(values)
            metrics = {
                "depth": DEPTHS[name],
                "width": 9 if DEPTHS[name] else 0,
                "parameters": 9_610,
                "deviation": 0,
                "on_budget": DEPTHS[name] > 0,
                "seeds": seeds,
                "test_accuracy": accuracy,
                "test_sd": deviation,
                "test_lo": lo,
                "test_hi": hi,
                "val_accuracy": 0.9 + 0.01 * (name == chosen),
                "test_accuracies": values,
            }
            files.write_json(Path(f"metrics/depths/{name}.json"), metrics)
        aggregate.main()

    return write


EQUAL = {"L0": 0.92, "L1": 0.980, "L2": 0.980, "L3": 0.980}
ONE_BEST = {"L0": 0.92, "L1": 0.970, "L2": 0.980, "L3": 0.960}
TWO_BEST = {"L0": 0.92, "L1": 0.970, "L2": 0.980, "L3": 0.980}


@pytest.mark.parametrize(
    ("means", "chosen", "sentences"),
    [
        (
            EQUAL,
            "L1",
            [
                "**At 9,610 parameters, no depth from 1 to 3 can be ruled out as the best**",
                "Of the 3 differences between depths on the budget none is significant",
                "is not.",
                "Validation chooses 1 hidden layer of 9 units, with 98.0",
            ],
        ),
        (
            ONE_BEST,
            "L1",
            [
                "the best depth is 2 hidden layers** (test accuracy, 95 % confidence, 4 seeds)",
                "Of the 3 differences between depths on the budget all are significant",
                "the largest, 2.00 points between L2 and L3, is.",
                "Validation chooses 1 hidden layer of 9 units, not one of these, with 97.00",
            ],
        ),
        (
            TWO_BEST,
            "L2",
            [
                "the best depth is one of 2 and 3 hidden layers**",
                "Of the 3 differences between depths on the budget 2 are significant",
                "Validation chooses 2 hidden layers of 9 units, with 98.00",
            ],
        ),
        (
            {"L0": 0.92, "L1": 0.980, "L2": 0.970},
            "L1",
            [
                "the best depth is 1 hidden layer**",
                "The difference, 1.00 points between L1 and L2, is significant (t test).",
            ],
        ),
    ],
    ids=["equal", "one best", "two best", "one pair"],
)
def test_the_claim_says_what_the_runs_can_tell(means, chosen, sentences, study):
    study(means, chosen=chosen)
    text = findings.claim()
    for sentence in sentences:
        assert sentence in text
    assert "Without a hidden layer it is 92.00" in text


@pytest.mark.parametrize(
    ("means", "seeds", "says"),
    [
        (ONE_BEST, 1, "1 hidden layer of 9 units classify 97.01 % of the test images rightly**"),
        (ONE_BEST, 1, "(chosen by validation; one seed)"),
        ({"L1": 0.98}, 4, "(chosen by validation; mean and 95 % interval over 4 seeds)"),
    ],
)
def test_the_claim_is_modest_where_no_test_is_possible(means, seeds, says, study):
    study(means, seeds)
    text = findings.claim()
    assert says in text
    assert "these runs cannot tell" in text
    assert "best" not in text
    assert "signific" not in text
    assert ("Without a hidden layer" in text) == ("L0" in means)


def test_the_matrix_has_each_pair_once_and_the_significant_ones_bold(study):
    study(TWO_BEST)
    header, _, *rows = findings.differences().splitlines()
    assert header == "| | less L1 | less L2 |"
    assert rows == [
        "| L2 | **+1.00** |  |",
        "| L3 | **+1.00** | 0.00 |",
    ]


def test_the_table_of_the_best_leaves_out_what_is_shown_to_be_worse(study):
    study(TWO_BEST)
    rows = [re.split(r" *\| *", line)[1:-1] for line in findings.best().splitlines()]
    assert "interval over 10,000 test images, %" in rows[0][-1]
    assert {row[0]: row[3] for row in rows[2:]} == {"L0": "", "L1": "", "L2": "yes", "L3": "yes"}
    assert rows[2][2] == "off the budget"
    assert rows[3][2] == "< 0.001"
    # Wilson's interval of 9,800 of 10,000.
    assert rows[4][4] == "97.71 to 98.26"


@pytest.mark.parametrize(
    ("means", "seeds", "says"),
    [
        (ONE_BEST, 4, ["-0.5000 points", "p < 0.001): a significant slope", "opens downwards"]),
        (EQUAL, 4, ["no significant slope", "no significant curvature"]),
        ({"L1": 0.97, "L2": 0.98}, 4, ["+1.0000 points", "a significant slope."]),
        (ONE_BEST, 1, ["do not tell a trend"]),
        ({"L0": 0.9, "L1": 0.97}, 4, ["do not tell a trend"]),
    ],
)
def test_the_trend_is_told_in_words(means, seeds, says, study):
    study(means, seeds)
    text = findings.trend()
    for words in says:
        assert words in text
    assert ("curvature" in text) == (seeds > 1 and len(means) > 3)


def test_the_results_mark_what_may_be_the_best(study):
    study(TWO_BEST)
    rows = [re.split(r" *\| *", line)[1:-1] for line in findings.results().splitlines()]
    assert rows[0][6] == "may be the best"
    assert [row[6] for row in rows[2:]] == ["", "", "yes", "yes"]


@pytest.mark.parametrize(
    ("means", "seeds", "says"),
    [
        (ONE_BEST, 4, r"0\.018 points\. Bartlett's test does not contradict that \(p = 1\.000\)"),
        (ONE_BEST, 4, r"a false alarm in [4-6]\.\d % of studies"),
        (ONE_BEST, 1, "do not tell a spread"),
        ({"L0": 0.9, "L1": 0.97}, 4, "do not tell a spread"),
    ],
)
def test_what_the_tests_take_for_granted_is_said(means, seeds, says, study):
    study(means, seeds)
    assert re.search(says, findings.assumptions())


def test_learning_rates_are_told_with_what_diverged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    docs.RATES.parent.mkdir()
    docs.RATES.write_text(
        "model,depth,learning_rate,accuracy,accuracy_sd,seeds,chosen\n"
        "L0,0,0.03,0.92,0.001,3,True\n"
        "L2,2,0.1,0.98,0.001,3,False\n"
        "L2,2,0.2,0.985,0.001,3,True\n"
        "L2,2,0.4,,,3,False\n"
    )
    assert docs.learning_rates().splitlines() == [
        "| | 0.03 | 0.1 | 0.2 | 0.4 |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| L0 | **92.00** |  |  |  |",
        "| L2 |  | 98.00 | **98.50** | diverged |",
    ]
