"""Large studies: their parameters are valid, and the report is that of the recorded figures."""

from contextlib import chdir

import pandas as pd
import pytest

from benchmarks import large, timing
from isoparam.budget import count_parameters
from pipeline import parameters
from tools import demo


@pytest.mark.parametrize("study", large.CASES)
def test_a_large_study_has_valid_parameters(study, tmp_path):
    folder = tmp_path / "study"
    demo.make(folder, demo.CHANGES | large.FEW | large.CASES[study], demo.LEARNING_RATE)
    with chdir(folder):
        params = parameters.read_params()
    for model in params.models.values():
        count = count_parameters(model.depth, model.width or 0, 64, 10)
        assert model.depth == 0 or abs(count / params.budget - 1) < 0.1
    assert max(len(params.models), len(params.seeds), params.budget / 1e6) >= 60


def test_the_recorded_report_is_that_of_the_recorded_figures():
    path = timing.RESULTS / "large.csv"
    recorded = path.with_suffix(".md").read_text(encoding="utf-8")
    conditions = recorded.split(".\n", 1)[0]
    table = pd.read_csv(path)
    assert recorded == large.report(table, conditions)
    assert table["study"].tolist() == list(large.CASES)
    assert (table[["drawing_s", "report_s"]] < 60).all(axis=None)
    assert "`python -m benchmarks.large`" in conditions
