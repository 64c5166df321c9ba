"""What docs/diagnostics.md says in words is what the recorded tables say in numbers."""

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from stages.diagnose import BINS

TABLES = ROOT / "plots/diagnostics"
CURVES = ROOT / "plots/curves"


def table(name):
    return pd.read_csv(TABLES / f"{name}.csv")


@pytest.fixture(scope="module")
def summary():
    """One row for each model, from the shallowest to the deepest."""
    return table("summary").sort_values("depth").set_index("model")


@pytest.fixture(scope="module")
def hidden(summary):
    return list(summary.index[summary["depth"] > 0])


def excess(name):
    """Mean confidence less accuracy over all predictions of a model."""
    bins = table("calibration")
    bins = bins[bins["model"] == name]
    return np.average(bins["confidence"] - bins["accuracy"], weights=bins["count"])


def norms_and_similarities(state):
    rows = table("layers")
    rows = rows[rows["state"] == state].sort_values("layer")
    return {
        name: (group["gradient_norm"], group["similarity"]) for name, group in rows.groupby("model")
    }


def test_the_deepest_start_slower_and_all_fit_the_training_images(hidden):
    curves = {name: pd.read_csv(CURVES / f"{name}.csv") for name in hidden}
    first = {name: curve["validation_accuracy"].iloc[0] for name, curve in curves.items()}
    assert first[hidden[-1]] < first[hidden[0]]
    for curve in curves.values():
        assert curve["train_loss"].iloc[-1] < 0.02
        assert curve["validation_loss"].iloc[-1] > 2 * curve["train_loss"].iloc[-1]


def test_the_training_loss_is_least_beyond_one_layer_and_the_gap_grows_from_two(hidden):
    """As docs/homework.md has it."""
    last = pd.DataFrame([pd.read_csv(CURVES / f"{name}.csv").iloc[-1] for name in hidden])
    assert (last["train_loss"].iloc[1:] < last["train_loss"].iloc[0]).all()
    gap = last["validation_loss"] - last["train_loss"]
    assert gap.iloc[1:].is_monotonic_increasing


def test_calibration_turns_from_too_unsure_to_too_sure(summary, hidden):
    assert set(table("calibration")["bins"]) == {BINS} == {15}
    assert excess(summary.index[0]) < 0
    for name in hidden[-2:]:
        assert excess(name) > 0
        for column in ("ece", "test_loss"):
            assert summary.loc[name, column] > max(summary.loc[hidden[:2], column])


def test_four_and_nine_are_confused_most_often(hidden):
    rows = table("confusion")
    matrices = [
        rows[rows["model"] == name].drop(columns=["model", "label"]).to_numpy() for name in hidden
    ]
    errors = sum(matrices) * (1 - np.eye(10))
    pairs = np.triu(errors + errors.T)
    assert np.unravel_index(pairs.argmax(), pairs.shape) == (4, 9)


def test_hard_digits_are_wrong_for_all_and_mostly_in_the_same_way(summary):
    hard = table("hard_digits")
    assert set(hard["wrong"]) == set(hard["networks"]) == {summary["seeds"].sum()}
    assert (hard["votes"] > hard["networks"] / 2).mean() > 0.5


def test_gradients_do_not_vanish_but_images_grow_alike(hidden):
    initial, trained = (norms_and_similarities(state) for state in ("initial", "trained"))
    for name in hidden:
        norms, cosines = initial[name]
        assert norms.max() < 5 * norms.min()
        assert cosines.is_monotonic_increasing
        assert trained[name][0].iloc[0] > trained[name][0].iloc[-1]
        assert trained[name][1].iloc[-1] < cosines.iloc[-1]
    last = [initial[name][1].iloc[-1] for name in hidden]
    assert last[-1] == max(last)
