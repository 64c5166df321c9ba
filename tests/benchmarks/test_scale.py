"""The benchmark of DVC itself runs, and docs/scale.md says what it recorded."""

import pandas as pd
from conftest import ROOT

from benchmarks import scale


def test_small_pipelines_are_measured(run_benchmark, tmp_path):
    out = tmp_path / "scale.csv"
    printed = run_benchmark("scale", "--size", "3/2", "--out", str(out))
    table = pd.read_csv(out)
    assert table["step"].tolist() == list(scale.STEPS)
    assert (table["processor_s"] > 0.1).all()
    # A record and an output of each of the three stages and of the one that gathers them.
    assert set(table["remote_files"]) == {8}
    assert out.with_suffix(".md").read_text(encoding="utf-8") in printed


def test_the_recorded_report_is_that_of_the_recorded_figures():
    path = ROOT / "benchmarks/results/scale.csv"
    recorded = path.with_suffix(".md").read_text(encoding="utf-8")
    conditions = recorded.split(".\n", 1)[0]
    assert recorded == scale.report(pd.read_csv(path), conditions)
    assert "`python -m benchmarks.scale`" in conditions
