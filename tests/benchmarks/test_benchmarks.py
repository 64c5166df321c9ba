"""The benchmarks run, with every contestant that is installed."""

import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import emulated, instance, repro, timing, training
from benchmarks import sampled_softmax as benchmark
from isoparam.network import mlp, products


@pytest.mark.parametrize("law", ["uniform", "zipf"])
def test_sampled_softmax_prints_a_table_and_writes_it(run_benchmark, tmp_path, law):
    sizes = ["--law", law, "--classes", "60", "--classes", "90", "--batch-size", "4"]
    few = ["--samples", "16", "--samples", "8", "--features", "8", "--rounds", "2"]
    names = [name for name in benchmark.STEPS if benchmark.ONLY.get(name, law) == law]
    torch_only = [
        word
        for name in names
        if name not in {benchmark.OURS, "linear_cross_entropy"}
        for word in ("--rivals", name)
    ]
    printed = run_benchmark("sampled_softmax", *sizes, *few, "--out", str(tmp_path), *torch_only)
    path = tmp_path / f"sampled_softmax{'_zipf' if law == 'zipf' else ''}.csv"
    table = pd.read_csv(path)
    names.remove("linear_cross_entropy")
    assert table["contestant"].tolist() == names * 4
    assert table[["classes", "samples"]].drop_duplicates().to_numpy().tolist() == [
        [60, 8],
        [60, 16],
        [90, 8],
        [90, 16],
    ]
    assert (table["rounds"] == 2).all()
    assert (table["best_ms"] > 0).all()
    assert (table["best_ms"] <= table["median_ms"]).all()
    assert (table.loc[table["contestant"] == benchmark.OURS, "to_isoparam"] == 1).all()
    assert path.with_suffix(".png").is_file() == (law == "uniform")
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    assert text in printed
    for name in names:
        assert name in text
    assert "B = 4, d = 8" in text
    assert "1 thread, PyTorch" in text
    assert f"`python -m benchmarks.sampled_softmax {' '.join(sizes)}" in text


@pytest.mark.parametrize("name", ["sampled_softmax", "sampled_softmax_zipf"])
def test_the_recorded_report_is_that_of_the_recorded_figures(name):
    path = ROOT / "benchmarks" / "results" / f"{name}.csv"
    recorded = path.with_suffix(".md").read_text(encoding="utf-8")
    conditions = recorded.split(". Ratios", 1)[0]
    assert recorded == benchmark.report(pd.read_csv(path), conditions, "processor_ms")
    assert "`python -m benchmarks.sampled_softmax" in conditions


@pytest.mark.parametrize("law", ["uniform", "zipf"])
def test_contestants_compute_the_same_loss_gradient_and_update(law):
    # The traced rival is the same estimate as ours: only then are their times comparable.
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.nn.Parameter(torch.randn(9, 4, generator=torch.Generator().manual_seed(1)))
    updates = {}
    kept = [benchmark.KEPT] * (law == "zipf")
    traced = ("gather + autograd", "nn.Embedding(sparse)", "dense gradient")
    for name in (benchmark.OURS, *kept, *traced):
        problem = benchmark.Problem(x, torch.nn.Parameter(weight.detach().clone()), 6, law)
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


def test_a_contestant_out_of_time_sits_out():
    timers = {"fast": lambda: (1.0, 0.5), "slow": lambda: (600.0, 500.0)}
    table = timing.measure(timers, rounds=6, seconds=1.0).set_index("contestant")
    assert table["rounds"].to_dict() == {"fast": 6, "slow": 2}
    assert table.loc["slow", ["best_ms", "median_ms", "processor_ms"]].tolist() == [600, 600, 500]


def test_unknown_rivals_are_named(tmp_path):
    import typer

    with pytest.raises(typer.BadParameter, match=r"got \['jax'\]"):
        benchmark.main(rivals=["jax"], out=tmp_path)


@pytest.fixture
def problem():
    return training.Problem(*training.random_images(256, "cpu"), [784, 24, 16, 10], 64)


IN_MEMORY = [training.FLOOR, training.AUTOGRAD, training.LOADER, training.SKLEARN]


def test_training_prints_tables_and_writes_them(run_benchmark, tmp_path):
    small = ["--depths", "0", "--depths", "2", "--images", "256", "--budget", "20000"]
    few = ["--rounds", "2", "--budgets", "9000", "--batch-sizes", "32", "--out", str(tmp_path)]
    rivals = [word for name in IN_MEMORY for word in ("--rivals", name)]
    printed = run_benchmark("training", *small, *few, *rivals)
    epochs, processes, sizes = (
        pd.read_csv(tmp_path / f"{name}.csv") for name in ("epochs", "processes", "sizes")
    )
    names = [name for name in training.CONTESTANTS if name in {training.OURS, *IN_MEMORY}]
    assert epochs["contestant"].tolist() == names * 2
    assert (epochs["rounds"] == 2).all()
    assert (epochs["best_s"] > 0).all()
    assert (epochs["best_s"] <= epochs["median_s"]).all()
    assert (epochs.loc[epochs["contestant"] == training.OURS, "to_isoparam"] == 1).all()
    assert processes["contestant"].iloc[[0, -1]].tolist() == ["replicas: 1", "strict"]
    assert sizes[["depth", "budget", "batch_size"]].to_numpy().tolist() == [
        [2, 9000, 128],
        [2, 20000, 32],
    ]
    if sys.platform == "linux":
        assert (sizes["peak_mib"] > 100).all()  # torch alone takes more
    assert (tmp_path / "training.png").stat().st_size > 10_000
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text in printed
    assert f"| {training.LOADER}, of 1/10 |" in text
    assert f"`python -m benchmarks.training {' '.join(small)}" in text


def recorded(name):
    return pd.read_csv(timing.RESULTS / f"{name}.csv")


PROCESSORS = sorted(path.parent.name for path in timing.RESULTS.glob("training/*/epochs.csv"))


@pytest.mark.parametrize("processor", PROCESSORS)
def test_lines_of_trainings_are_reported_apart_and_run_to_the_right(processor):
    epochs, sizes = (recorded(f"training/{processor}/{name}") for name in ("epochs", "sizes"))
    figure = training.draw(epochs, sizes, "title", "processor_s")
    *by_depth, by_size = figure.axes
    shown = []
    for axes in by_depth:
        looks = [(x.get_color(), x.get_linestyle()) for x in axes.lines]
        assert len(set(looks)) == len(looks) <= 10
        shown += [line.get_label() for line in axes.lines]
    assert sorted(shown) == sorted([training.OURS, *set(epochs["contestant"])])
    (line,) = by_size.lines
    assert (np.diff(line.get_xdata()) > 0).all()


def test_the_sampled_softmax_is_drawn_in_units_of_the_floor():
    table = recorded("sampled_softmax")
    figure = benchmark.draw(table, "title", "processor_ms")
    near, far = ({x.get_label(): x.get_ydata() for x in axes.lines} for axes in figure.axes)
    assert set(near) | set(far) == set(table["contestant"])
    assert set(near) & set(far) == {benchmark.OURS}
    for name, rows in table.groupby("contestant"):
        ratios = (near | far)[name]
        assert ratios == pytest.approx(rows["to_floor"].to_numpy(), rel=1e-3)
        assert name == benchmark.OURS or (max(ratios) < 2) == (name in near)


def test_top_1_is_drawn_against_the_recorded_seconds():
    table, curves = recorded("instance"), pd.read_csv(ROOT / "plots/instance.csv")
    lines = instance.draw(table, curves).axes[0].lines
    for line, run in zip(lines, table.itertuples(), strict=True):
        same = curves[(curves["run"] == run.run) & (curves["of_epochs"] == run.epochs)]
        share = same["accuracy"].iloc[-1] if len(same) else run.test_accuracy
        end = line.get_xdata()[-1], line.get_ydata()[-1]
        assert end == pytest.approx((run.processor_s, 100 * share))
    assert [len(line.get_xdata()) for line in lines] == [3, 3, 3, 8, 8, 8, 6, 6, 1]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_recorded_training_report_is_that_of_the_recorded_figures(processor):
    folder = timing.RESULTS / "training" / processor
    text = (folder / "README.md").read_text(encoding="utf-8")
    tables = [pd.read_csv(folder / f"{name}.csv") for name in ("epochs", "processes", "sizes")]
    conditions = text.split(".\n", 1)[0]
    assert text == training.report(*tables, conditions, "processor_s")
    assert "`python -m benchmarks.training" in conditions


def test_the_floor_multiplies_as_much_as_autograd(problem, monkeypatch):
    # The counter does not know oneDNN's product.
    monkeypatch.setattr(products, "_linear", None)
    counts = {}
    for name in (training.FLOOR, training.AUTOGRAD, training.OURS):
        step = training.STEPS[name](problem, problem.batches)
        with FlopCounterMode(display=False) as counter:
            step()
        counts[name] = counter.get_total_flops()
    # Ours also looks at one image of validation, in the forward direction.
    ours = counts.pop(training.OURS) - 2 * (784 * 24 + 24 * 16 + 16 * 10)
    assert {*counts.values(), ours} == {ours}
    assert ours > 0


@pytest.mark.parametrize(
    "variant", [training.by_torch_mm, training.in_passes, training.updated_in_passes]
)
def test_variants_of_ours_train_alike(problem, variant):
    ours = training.isoparam_step(problem, problem.batches)
    other = variant(problem, problem.batches)
    for _ in range(3):
        # A loss of a few nats, off by the roundings of a hundred float32 sums at most.
        assert other().train_loss == pytest.approx(ours().train_loss, rel=1e-4)


def test_ours_calls_what_the_variants_replace(problem):
    step = training.isoparam_step(problem, problem.batches)
    for module, name in ((mlp, "product"), (products, "_fused_sgd")):
        spy = mock.Mock(side_effect=getattr(module, name))
        training.with_other(step, module, name, spy)()
        assert spy.call_count >= problem.batches
        assert getattr(module, name) is not spy


@pytest.mark.parametrize("name", [training.AUTOGRAD, training.LOADER])
def test_rivals_train_all_their_weights(problem, name, monkeypatch):
    # One that did not would be a fast one.
    model = training.network(problem.sizes)
    before = [weight.detach().clone() for weight in model.parameters()]
    monkeypatch.setattr(training, "network", lambda _: model)
    training.timers_of([name], problem, {})[name]()
    assert all((old != new).any() for old, new in zip(before, model.parameters(), strict=True))


def test_unknown_contestants_of_training_are_named(tmp_path):
    import typer

    with pytest.raises(typer.BadParameter, match=r"got \['jax'\]"):
        training.main(rivals=["jax"], out=tmp_path)


def test_repro_notes_what_ran(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], check=True)
    wait = f"{sys.executable} -c \"import time; time.sleep(1); open('waited', 'w')\""
    Path("dvc.yaml").write_text(f"stages: {{plot: {{cmd: {json.dumps(wait)}, outs: [waited]}}}}\n")
    table = repro.repro().set_index("stage")
    assert table.index.tolist() == [repro.START, "plot"]
    assert 0.4 < table.loc["plot", "command_s"] <= table.loc["plot", "seconds"] + repro.SECONDS
    assert not table["torch"].any()
    assert repro.repro()["stage"].tolist() == [repro.START]


def test_repro_ends_with_an_error_of_dvc(tmp_path, monkeypatch):
    import typer

    monkeypatch.chdir(tmp_path)
    with pytest.raises(typer.Exit):
        repro.repro()


def test_the_parts_of_a_run():
    table = pd.DataFrame(
        [
            (repro.START, 2.0, 0.0, 0.0, False, 0.0),
            ("train@L1", 850.0, 849.0, 3.0, True, 600.0),
            ("plot", 30.0, 29.0, 1.0, False, 100.0),
            ("check", 10.0, 9.0, 1.0, True, 100.0),
            (repro.AGAIN, 4.0, 0.0, 0.0, False, 0.0),
        ],
        columns=["stage", "seconds", "command_s", "import_s", "torch", "peak_mib"],
    ).assign(dataset="mnist")
    assert repro.parts(table) == {
        "training": 846.0, "drawing": 28.0, "other": 8.0, "imports": 5.0, "DVC": 5.0
    }  # fmt: skip
    floor = {"floor_s": [None, 1128.0, None, None, None], "cores": 2}
    assert "are 1.50 times the matrix products alone" in repro.report(table.assign(**floor), "")


def test_the_recorded_report_of_a_run_is_that_of_the_recorded_figures():
    path = ROOT / "benchmarks" / "results" / "repro.csv"
    recorded = path.with_suffix(".md").read_text(encoding="utf-8")
    conditions = recorded.split(".\n", 1)[0]
    assert recorded == repro.report(pd.read_csv(path), conditions)


@pytest.mark.parametrize(
    ("name", "report"),
    [("emulated", emulated.report_hashes), ("strict_cost", emulated.report_times)],
)
def test_the_recorded_tables_are_those_of_the_recorded_figures(name, report):
    path = ROOT / "benchmarks" / "results" / f"{name}.csv"
    assert path.with_suffix(".md").read_text(encoding="utf-8") == report(pd.read_csv(path)) + "\n"
