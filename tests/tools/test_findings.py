"""What the documents say of a study, for each outcome that it may have."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import SAMPLED_YAML

from isoparam.figures.depth import depth_accuracy
from isoparam.images.files import save_tensors
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
                "off_budget": 0,
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
            # What is easy for one is easy for all.
            limits = torch.tensor([round(10_000 * value) for value in values])
            right = torch.arange(10_000) < limits[:, None]
            path = Path(f"models/predictions/{name}.safetensors")
            path.parent.mkdir(parents=True, exist_ok=True)
            save_tensors(path, {"right": right, "loss": 1 - right.float()}, {})
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
                "**At 9,610 parameters, every depth from 1 to 3 may be the best**",
                "None of the 3 pairwise differences among depths at this budget is significant",
                "(Tukey's test); the largest is 0.0",
                "Validation chooses 1 hidden layer of 9 units, with 98.0",
            ],
        ),
        (
            ONE_BEST,
            "L1",
            [
                "the best depth is 2 hidden layers** (test accuracy, 95 % confidence for new",
                "for new seeds and new test images, from 4 seeds)",
                "All 3 pairwise differences among depths at this budget are significant",
                "(Tukey's test), up to 2.00 percentage points between 2 and 3 hidden layers.",
                "Validation chooses 1 hidden layer of 9 units, not one of these, with 97.00",
            ],
        ),
        (
            TWO_BEST,
            "L2",
            [
                "the best depth is 2 or 3 hidden layers**",
                "2 of the 3 pairwise differences among depths at this budget are significant",
                "For new seeds alone, the best depth is the same, and 2 differences are signif",
                "Validation chooses 2 hidden layers of 9 units, with 98.00 ± 0.03 % test accuracy",
            ],
        ),
        (
            {"L0": 0.92, "L1": 0.980, "L2": 0.970},
            "L1",
            [
                "the best depth is 1 hidden layer**",
                "difference of 1.00 percentage points between 1 and 2 hidden layers is signif",
                "(t test)",
            ],
        ),
    ],
    ids=["equal", "one best", "two best", "one pair"],
)
def test_the_claim_says_what_the_runs_can_show(means, chosen, sentences, study):
    study(means, chosen=chosen)
    text = findings.claim()
    for sentence in sentences:
        assert sentence in text
    assert "The network without a hidden layer has 9,610 parameters and reaches 92.00" in text


@pytest.mark.parametrize(
    ("means", "seeds", "says"),
    [
        (ONE_BEST, 1, "1 hidden layer of 9 units reach 97.01 % test accuracy**"),
        (ONE_BEST, 1, "(chosen by validation; one seed)"),
        ({"L1": 0.98}, 4, "(chosen by validation; mean and 95 % interval over 4 seeds)"),
    ],
)
def test_the_claim_is_modest_where_no_test_is_possible(means, seeds, says, study):
    study(means, seeds)
    text = findings.claim()
    assert says in text
    assert "These runs cannot show" in text
    assert "best" not in text
    assert "signific" not in text
    assert ("without a hidden layer" in text) == ("L0" in means)


def test_the_matrix_has_each_pair_once_and_the_significant_ones_bold(study):
    study(TWO_BEST)
    header, _, *rows = findings.differences().splitlines()
    assert header == "| | minus L1 | minus L2 |"
    assert rows == [
        "| L2 | **+1.00** |  |",
        "| L3 | **+1.00** | 0.00 |",
    ]


def test_each_table_has_the_same_verdicts(study):
    study(TWO_BEST)
    rows = [re.split(r" *\| *", line)[1:-1] for line in findings.best().splitlines()]
    assert "interval for new seeds and images, %" in rows[0][-1]
    below, best = "significantly below the best", "may be the best"
    verdicts = {"L0": "off the budget", "L1": below, "L2": best, "L3": best}
    assert {row[0]: row[5] for row in rows[2:]} == verdicts
    assert rows[2][3:5] == ["", ""]
    assert rows[3][3:5] == ["< 0.001", "< 0.001"]
    # About Wilson's interval of 9,800 of 10,000.
    assert rows[4][6] == "97.71 to 98.26"
    rows = [re.split(r" *\| *", line)[1:-1] for line in findings.results().splitlines()]
    assert [row[5] for row in rows[2:]] == list(verdicts.values())


def test_the_log_likelihood_is_compared_likewise(study):
    study(TWO_BEST)
    assert findings.log_likelihood() == (
        "By the negative log-likelihood, the best depth is 2 or 3 hidden layers. 2 of the 3 "
        "pairwise differences are significant."
    )
    study(TWO_BEST, seeds=1)
    assert "no test" in findings.log_likelihood()


def test_all_pairs_have_both_p_values(study):
    study(TWO_BEST)
    rows = [re.split(r" *\| *", line)[1:-1] for line in findings.pairs().splitlines()]
    assert rows[2][:2] == ["L2 less L1", "+1.000"]
    assert rows[2][3:] == ["< 0.001", "< 0.001", "yes"]


def test_one_seed_gives_no_verdict(study):
    study(TWO_BEST, seeds=1)
    rows = [re.split(r" *\| *", line)[1:-1] for line in findings.results().splitlines()]
    assert [row[5] for row in rows[2:]] == ["off the budget", *["not tested"] * 3]


def test_the_answers_of_the_homework(study):
    study(TWO_BEST)
    Path("learning_rates.yaml").write_text("L0: 0.01\nL1: 0.2\n", encoding="utf-8")
    recipe = "batch size 8, 1 epochs, momentum 0.9, weight decay 0"
    assert findings.answer(0).startswith("**Answer: 92.00 ± 0.03 % test accuracy**")
    assert f"Peak learning rate 0.01, {recipe}" in findings.answer(0)
    assert f"Peak learning rate 0.2, {recipe}" in findings.answer(1)
    assert findings.depth_answer() == (
        "**Answer.** Test accuracy is highest at 2 hidden layers, with 98.00 ± 0.03 % against "
        "97.00 ± 0.03 % at 1 and 98.00 ± 0.03 % at 3, and with 95 % confidence the best depth is "
        "2 or 3 hidden layers."
    )


@pytest.mark.parametrize(
    ("means", "seeds", "says"),
    [
        (
            ONE_BEST,
            4,
            ["-0.5000 percentage", "p < 0.001): the slope is significant", "opens downwards"],
        ),
        (EQUAL, 4, ["slope is not significant", "curvature is not significant"]),
        ({"L1": 0.97, "L2": 0.98}, 4, ["+1.0000 percentage points", "the slope is significant."]),
        (ONE_BEST, 1, ["give no trend"]),
        ({"L0": 0.9, "L1": 0.97}, 4, ["give no trend"]),
    ],
)
def test_the_trend_in_words(means, seeds, says, study):
    study(means, seeds)
    text = findings.trend()
    for words in says:
        assert words in text
    assert ("curvature" in text) == (seeds > 1 and len(means) > 3)


@pytest.mark.parametrize(
    ("means", "seeds", "says"),
    [
        (
            ONE_BEST,
            4,
            r"0\.018 percentage points on .* 0\.01\d on inf.* not contradict this \(p = 1\.000",
        ),
        (ONE_BEST, 4, r"a false alarm in [4-6]\.\d %"),
        (ONE_BEST, 1, "give no spread"),
        ({"L0": 0.9, "L1": 0.97}, 4, "give no spread"),
    ],
)
def test_the_assumptions_of_the_tests_are_named(means, seeds, says, study):
    study(means, seeds)
    assert re.search(says, findings.assumptions())


def test_the_table_of_learning_rates_shows_what_diverged(tmp_path, monkeypatch):
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


def test_the_figure_has_the_words_of_the_verdicts(study):
    study({"L0": 0.92, "L1": 0.97, "L2": 0.98})
    table = pd.read_csv("plots/depth_accuracy.csv")
    table.loc[len(table)] = table.loc[2].to_dict() | {"model": "S2", "on_budget": False}
    legend = depth_accuracy(table, budget=9610).axes[0].get_legend()
    labels = [text.get_text() for text in legend.get_texts()]
    for verdict, label in zip((findings.BEST, findings.BELOW, findings.OFF), labels, strict=False):
        assert label.startswith(verdict)
