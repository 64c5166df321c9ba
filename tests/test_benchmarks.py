"""The benchmarks run, with every contestant that is installed, and judge their goals rightly."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import sampled_softmax as benchmark

ROOT = Path(__file__).parents[1]


def test_sampled_softmax_prints_a_table_and_writes_it(tmp_path):
    sizes = ["--classes", "60", "--classes", "90", "--batch-size", "4", "--features", "8"]
    few = ["--samples", "16", "--rounds", "2", "--out", str(tmp_path)]
    torch_only = [
        word
        for name in [*benchmark.STEPS, "linear_cross_entropy"]
        if name != benchmark.OURS
        for word in ("--rivals", name)
    ]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sampled_softmax", *sizes, *few, *torch_only],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "sampled_softmax.csv")
    assert table["contestant"].tolist() == list(benchmark.STEPS) * 2
    assert sorted(set(table["classes"])) == [60, 90]
    assert (table["rounds"] == 2).all()
    assert (table["best_ms"] > 0).all()
    assert (table["best_ms"] <= table["median_ms"]).all()
    assert (tmp_path / "sampled_softmax.png").stat().st_size > 10_000
    text = (tmp_path / "sampled_softmax.md").read_text(encoding="utf-8")
    assert text in done.stdout
    for name in benchmark.STEPS:
        assert name in text
    assert "time / floor at C = 90" in text
    assert "B = 4, d = 8, K = 16" in text
    assert "1 thread, PyTorch" in text
    assert f"`python -m benchmarks.sampled_softmax {' '.join(sizes)}" in text


def test_the_recorded_report_is_that_of_the_recorded_figures():
    path = ROOT / "benchmarks" / "results" / "sampled_softmax.csv"
    recorded = path.with_suffix(".md").read_text(encoding="utf-8")
    conditions = recorded.split(". Ratios", 1)[0]
    assert recorded == benchmark.report(pd.read_csv(path), conditions, "processor_ms")
    assert "`python -m benchmarks.sampled_softmax" in conditions


def test_contestants_compute_the_same_loss_gradient_and_update():
    # The traced rival is the same estimate as ours: only then are their times comparable.
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.nn.Parameter(torch.randn(9, 4, generator=torch.Generator().manual_seed(1)))
    updates = {}
    for name in (benchmark.OURS, "gather + autograd", "nn.Embedding(sparse)", "dense gradient"):
        problem = benchmark.Problem(x, torch.nn.Parameter(weight.detach().clone()), 6)
        step = benchmark.STEPS[name](problem)
        torch.manual_seed(5)  # all draw the targets, then the ids
        step()
        updates[name] = problem.weight.detach() - weight.detach()
        assert x.grad is None
        assert problem.weight.grad is None
    for update in updates.values():
        assert bool(update.any())
        # Differences of weights below 4: two roundings of 2^-22 at most.
        torch.testing.assert_close(update, updates[benchmark.OURS], rtol=0, atol=2**-21)


def test_the_floor_leaves_the_shared_weight_as_it_is():
    weight = torch.nn.Parameter(torch.randn(9, 4))
    before = weight.detach().clone()
    benchmark.floor_step(benchmark.Problem(torch.randn(3, 4), weight, 6))()
    assert torch.equal(weight, before)


def table_of(floor, ours, tensorflow, full):
    milliseconds = dict(
        zip((benchmark.FLOOR, benchmark.OURS, benchmark.TENSORFLOW, benchmark.FULL),
            (floor, ours, tensorflow, full), strict=True)
    )  # fmt: skip
    rows = [
        {"classes": C, "contestant": name, "best_ms": ms[i]}
        for i, C in enumerate((10_000, 100_000, 1_000_000))
        for name, ms in milliseconds.items()
    ]
    return benchmark.add_ratios(pd.DataFrame(rows), "best_ms")


@pytest.mark.parametrize("met", [True, False])
def test_goals(met):
    ours = [1.2, 1.2, 1.3] if met else [1.3, 1.4, 1.6]
    lines = benchmark.goals(table_of([1, 1, 1.1], ours, [1.7] * 3, [1, 130, 9]))
    assert len(lines) == 3 + 1 + 3 + 1
    if met:
        assert all(line.startswith("met: ") for line in lines)
    else:
        assert "MISSED: time / floor at C = 10,000, 1.300 (<= 1.25)" in lines
        assert "MISSED: time at C = 1,000,000 / at 10,000, 1.231 (<= 1.15)" in lines
        assert "MISSED: TensorFlow / ours at C = 1,000,000, 1.062 (>= 1.25)" in lines
        assert "MISSED: full cross-entropy / ours at C = 100,000, 92.857 (>= 100)" in lines


def test_a_contestant_out_of_time_sits_out():
    timers = {"fast": lambda: (1.0, 0.5), "slow": lambda: (600.0, 500.0)}
    table = benchmark.measure(timers, rounds=6, seconds=1.0).set_index("contestant")
    assert table["rounds"].to_dict() == {"fast": 6, "slow": 2}
    assert table.loc["slow", ["best_ms", "median_ms", "processor_ms"]].tolist() == [600, 600, 500]


def test_unknown_rivals_are_named(tmp_path):
    import typer

    with pytest.raises(typer.BadParameter, match=r"got \['jax'\]"):
        benchmark.main(rivals=["jax"], out=tmp_path)
