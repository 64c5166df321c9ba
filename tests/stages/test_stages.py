"""The commands of the stages: what they write, and one sentence and nothing left for each fault.

The stages run in this process, in a folder of their own, on a tiny study.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT, SAMPLED_YAML
from ruamel.yaml import YAML

from isoparam.budget import parameters_of
from isoparam.images.files import load_images, load_tensors, save_images, save_tensors
from isoparam.images.mnist import Images, normalise
from isoparam.network.files import load_perceptron, save_perceptron
from isoparam.network.mlp import layer_views, logits
from isoparam.network.recipe import Row
from pipeline import files, parameters
from stages import (
    aggregate,
    check,
    choose,
    diagnose,
    download,
    evaluate,
    gradients,
    plot,
    plot_diagnostics,
    split,
    train,
    tune,
)

PARAMS = """\
# A tiny study.
data: {dataset: digits}
budget: 300  # of parameters
seeds: [3, 1]
train: {device: cpu, epochs: 2, batch_size: 8, warmup: 0.2, momentum: 0.9, weight_decay: 0.0}
models:
  L0: {depth: 0}
  L1: {depth: 1, width: 4}  # on the budget
  L2: {depth: 2, width: 9}
"""
PARAMS += SAMPLED_YAML
RATES = "L0: 0.01\nL1: 0.01\nL2: 0.01\n"
SIZES = {"L0": [64, 10], "L1": [64, 4, 10], "L2": [64, 9, 9, 10]}
MODELS, METRICS = Path("models/depths"), Path("metrics/depths")
CURVE_COLUMNS = (
    "epoch",
    "train_loss",
    "validation_loss",
    "validation_accuracy",
    "validation_accuracy_lo",
    "validation_accuracy_hi",
)


def images(count, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 64), generator=generator).byte()
    return Images(pixels, (torch.arange(count) % 10).byte())


def write_split():
    folder = Path("data/split")
    folder.mkdir(parents=True)
    for number, (part, count) in enumerate({"train": 24, "validation": 6, "test": 7}.items()):
        save_images(folder / f"{part}.safetensors", images(count, number))


def write_model(name):
    folder = MODELS / name
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for seed in (3, 1):
        flat = torch.randn(1, parameters_of(SIZES[name]), generator=generator)
        save_perceptron(
            folder / f"seed-{seed}.safetensors",
            layer_views(flat, SIZES[name]),
            {"seed": seed, "sizes": SIZES[name], "mean": 100.0, "deviation": 50.0},
        )
    rows = [(seed, epoch, 1.0, 2.0, 0.5 + 0.1 * seed) for seed in (1, 3) for epoch in (1, 2)]
    files.write_csv(folder / "history.csv", pd.DataFrame(rows, columns=evaluate.HISTORY))


def write_raw():
    folder = Path("data/raw/MNIST/raw")
    folder.mkdir(parents=True)
    for prefix, count in (("train", 30), ("t10k", 7)):
        part = images(count, count)
        for kind, array in (
            ("images-idx3", part.images.view(-1, 8, 8)),
            ("labels-idx1", part.labels),
        ):
            content = download.idx_header(array.shape) + array.numpy().tobytes()
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(content)


def metrics_of(depth, width):
    """What evaluate writes, as far as aggregate reads it."""
    accuracy = 0.9 + 0.01 * depth
    values = {
        "depth": depth,
        "width": width,
        "parameters": 300 + depth,
        "off_budget": depth,
        "on_budget": depth == 1,
        "seeds": 2,
        "accuracy": accuracy,
        "accuracy_sd": 0.001,
        "accuracy_lo": accuracy - 0.01,
        "accuracy_hi": accuracy + 0.01,
        # Validation chooses a model that is not the best on the test set.
        "validation_accuracy": 0.95 if depth == 1 else 0.9,
    }
    metrics = {key: values[column] for column, key in aggregate.COLUMNS.items()}
    return metrics | {"test_accuracies": [accuracy - 0.001 * depth, accuracy + 0.001 * depth]}


def write_metrics():
    for name, depth, width in (("L0", 0, 0), ("L1", 1, 4), ("L2", 2, 9)):
        files.write_json(METRICS / f"{name}.json", metrics_of(depth, width))
        write_predictions(name, [[1, 1, 1, 1], [1, 1, 1, 0]])


def write_predictions(name, right):
    path = evaluate.PREDICTIONS / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    right = torch.tensor(right, dtype=torch.bool)
    save_tensors(path, {"right": right, "loss": 1.0 - right.float()}, {})


def write_tables():
    write_metrics()
    aggregate.main()
    for name in SIZES:
        rows = [(epoch, 1.0 / epoch, 2.0 / epoch, 0.9, 0.89, 0.91) for epoch in (1, 2)]
        table = pd.DataFrame(rows, columns=list(CURVE_COLUMNS))
        files.write_csv(Path(f"plots/curves/{name}.csv"), table)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder in which a stage runs, with the parameters of a tiny study."""
    # For the processes that a stage starts: they start in that folder.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    parameters.PARAMETERS.write_text(PARAMS, encoding="utf-8")
    parameters.LEARNING_RATES.write_text(RATES, encoding="utf-8")
    return tmp_path


def content(folder):
    """All that is in a folder: the bytes of each file, None for a folder."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


# What the stages write.


def test_split_writes_the_three_parts(folder):
    write_raw()
    before = content(folder)
    split.main()
    written = content(folder)
    assert before.items() <= written.items()
    names = {path.name for path in set(written) - set(before) if path.suffix}
    assert names == {f"{part}.safetensors" for part in ("train", "validation", "test")}
    parts = {name: load_images(split.OUT / name, 64, 10) for name in names}
    assert {name: len(part.labels) for name, part in parts.items()} == {
        "train.safetensors": 25,
        "validation.safetensors": 5,
        "test.safetensors": 7,
    }
    assert torch.equal(parts["test.safetensors"].images, images(7, 7).images)
    split.main()
    assert content(folder) == written


def test_train_writes_the_weights_of_each_seed_and_the_history(folder):
    write_split()
    before = content(folder)
    train.main("L1", workers=2)
    written = content(folder)
    assert before.items() <= written.items()
    out = MODELS / "L1"
    assert set(written) - set(before) == {
        MODELS.parent,
        MODELS,
        out,
        out / "history.csv",
        out / "seed-1.safetensors",
        out / "seed-3.safetensors",
    }
    for seed in (1, 3):
        _, metadata = load_perceptron(out / f"seed-{seed}.safetensors", SIZES["L1"])
        assert metadata["seed"] == seed
    history = files.read_csv(out / "history.csv", Row._fields)
    assert list(zip(history["seed"], history["epoch"], strict=True)) == [
        (1, 1),
        (1, 2),
        (3, 1),
        (3, 2),
    ]
    # Again, with the processes one after the other, and over what is there.
    (out / "seed-9.safetensors").write_bytes(b"of another study")
    train.main("L1", workers=1)
    assert content(folder) == written


@pytest.mark.usefixtures("one_process")
def test_tune_writes_the_last_figures_of_each_trial_and_none_of_what_diverged(folder):
    write_split()
    change_params('"linear": [0.1]', '"linear": [0.01, 1.0e+38]')
    change_params("[9]", "[9, 7]")
    before = content(folder)
    tune.main("L0", workers=2)
    assert {str(path) for path in set(content(folder)) - set(before)} <= {
        "tuning",
        "tuning/L0.csv",
        ".checkpoints",
    }
    table = pd.read_csv("tuning/L0.csv")
    assert list(table.columns) == list(choose.COLUMNS)
    assert table[["learning_rate", "seed"]].to_numpy().tolist() == [
        [0.01, 9],
        [0.01, 7],
        [1e38, 9],
        [1e38, 7],
    ]
    assert table["validation_accuracy"].isna().tolist() == [False, False, True, True]
    assert table["validation_loss"].isna().tolist() == [False, False, True, True]
    # The same seed and rate give what training gives.
    change_params("seeds: [3, 1]", "seeds: [7]")
    train.main("L0", workers=1)
    last = pd.read_csv(MODELS / "L0/history.csv").iloc[-1]
    assert last["validation_loss"] == table["validation_loss"][1]
    assert last["validation_accuracy"] == table["validation_accuracy"][1]


def write_grids(rows):
    """The same trials for each model: learning rate, seed, validation accuracy."""
    table = pd.DataFrame(
        [(rate, seed, 1.0, accuracy) for rate, seed, accuracy in rows], columns=choose.COLUMNS
    )
    for name in SIZES:
        files.write_csv(Path(f"tuning/{name}.csv"), table)


def chosen():
    table = pd.read_csv("tuning/learning_rates.csv")
    rates = dict(table[table["chosen"]][["model", "learning_rate"]].to_numpy().tolist())
    written = YAML(typ="safe").load(parameters.LEARNING_RATES)
    assert written == rates
    assert set(rates) == set(SIZES)
    (rate,) = set(rates.values())
    return rate


@pytest.fixture
def undrawn(monkeypatch):
    """The figure takes longer than the choice."""
    monkeypatch.setattr(choose, "learning_rates", lambda _: None)
    monkeypatch.setattr(choose, "png", lambda _: b"figure")


# Of 0.1 and 0.2, three seeds each.
ACCURACIES = [0.9867, 0.9833, 0.9857, 0.9815, 0.9886, 0.9856]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("rows", "rate"),
    [
        ([(0.1, 0, 0.9), (0.1, 1, 0.8), (0.2, 0, 0.9), (0.2, 1, 0.9), (0.4, 0, 0.5)], 0.2),
        # The mean counts, not the best seed.
        ([(0.1, 0, 0.8), (0.1, 1, 0.8), (0.2, 0, 0.99), (0.2, 1, 0.6)], 0.1),
        # A seed that diverged counts.
        ([(0.1, 0, 0.8), (0.1, 1, 0.8), (0.2, 0, 0.99), (0.2, 1, None)], 0.1),
        # Just below a rate that diverges another seed may diverge.
        ([(0.1, 0, 0.8), (0.2, 0, 0.9), (0.4, 0, None)], 0.1),
        # The lower of two equals.
        ([(0.1, 0, 0.8), (0.2, 0, 0.8)], 0.1),
        # Equally many right answers, though the means differ in their last bit.
        ([*zip([0.1] * 3 + [0.2] * 3, [0, 1, 2] * 2, ACCURACIES, strict=True)], 0.1),
        ([(0.3, 0, 0.8)], 0.3),
    ],
)
def test_choose_takes_the_rate_with_the_best_mean(rows, rate):
    write_grids(rows)
    choose.main()
    assert chosen() == rate


def test_choose_draws_what_was_tried():
    write_grids([(rate, seed, 0.8 + rate) for rate in (0.1, 0.2) for seed in (0, 1)])
    choose.main()
    assert Path("tuning/learning_rates.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("best", "reported"), [(0.1, 3), (0.2, 0), (0.4, 3)])
def test_choose_reports_a_best_rate_at_the_edge(capsys, best, reported):
    write_grids([(rate, 0, 0.9 if rate == best else 0.8) for rate in (0.1, 0.2, 0.4)])
    choose.main()
    assert capsys.readouterr().out.count("is at the edge of what was tried") == reported


@pytest.mark.usefixtures("undrawn")
def test_choose_keeps_the_comment_and_refuses_what_all_diverged(refuses):
    parameters.LEARNING_RATES.write_text(f"# Why.\n{RATES}", encoding="utf-8")
    write_grids([(0.1, 0, 0.9)])
    choose.main()
    assert parameters.LEARNING_RATES.read_text(encoding="utf-8").startswith("# Why.\nL0: 0.1\n")
    write_grids([(0.1, 0, None), (0.2, 0, None)])
    refuses("L0 diverges at each learning rate: add lower ones to tuning", choose.main)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("L0", {"depth": 0, "width": 0, "parameters": 650, "off_budget": 350, "on_budget": False}),
        ("L1", {"depth": 1, "width": 4, "parameters": 310, "off_budget": 10, "on_budget": True}),
        ("L2", {"depth": 2, "width": 9, "parameters": 775, "off_budget": 475, "on_budget": False}),
    ],
)
def test_evaluate_writes_metrics_and_curves(name, facts):
    write_split()
    write_model(name)
    evaluate.main(name)
    metrics = files.read_json(METRICS / f"{name}.json")
    assert facts.items() <= metrics.items()
    assert set(aggregate.COLUMNS.values()) <= set(metrics)
    assert len(metrics["test_accuracies"]) == metrics["seeds"] == 2
    # Of 7 images, and the last epoch of the history: 0.6 and 0.8.
    assert all((7 * accuracy) % 1 in (0, 1) for accuracy in metrics["test_accuracies"])
    assert metrics[aggregate.COLUMNS["validation_accuracy"]] == pytest.approx(0.7, rel=1e-15)
    curves = files.read_csv(Path(f"plots/curves/{name}.csv"), CURVE_COLUMNS)
    assert curves["epoch"].tolist() == [1, 2]
    assert curves["train_loss"].tolist() == [1.0, 1.0]
    predictions, _ = load_tensors(evaluate.PREDICTIONS / f"{name}.safetensors")
    assert predictions["right"].double().mean(1).tolist() == metrics["test_accuracies"]
    assert float(predictions["loss"].mean()) == pytest.approx(metrics["test_loss"], rel=1e-6)


def test_metrics_of_all_models_have_the_same_keys():
    write_split()
    keys = set()
    for name in SIZES:
        write_model(name)
        evaluate.main(name)
        keys.add(tuple(files.read_json(METRICS / f"{name}.json")))
    assert len(keys) == 1


def test_aggregate_makes_one_table_and_lets_validation_choose():
    write_metrics()
    aggregate.main()
    table = files.read_csv(aggregate.TABLE, ["model", *aggregate.COLUMNS])
    assert table["model"].tolist() == ["L0", "L1", "L2"]
    for name, row in zip(SIZES, table.to_dict("records"), strict=True):
        metrics = files.read_json(METRICS / f"{name}.json")
        expected = {"model": name} | {c: metrics[key] for c, key in aggregate.COLUMNS.items()}
        assert expected.items() <= row.items()
        # The only one on the budget is its best.
        assert row["may_be_best"] == (name == "L1")
        # 7 of 8 answers are right.
        assert 0 <= row["new_images_lo"] < 0.875 < row["new_images_hi"] <= 1
    assert files.read_json(Path("metrics/summary.json"))["depth"] == 1


def test_the_table_is_in_the_order_of_the_depth_whatever_that_of_the_models():
    lines = PARAMS.splitlines(keepends=True)
    parameters.PARAMETERS.write_text(
        "".join(lines[:6] + lines[8:5:-1] + lines[9:]), encoding="utf-8"
    )
    write_metrics()
    aggregate.main()
    table = files.read_csv(aggregate.TABLE, ["model"])
    assert table["model"].tolist() == ["L0", "L1", "L2"]


def test_models_on_the_budget_are_compared():
    write_metrics()
    accuracies = {"L0": [0.92, 0.92], "L1": [0.95, 0.96], "L2": [0.94, 0.96]}
    for name, values in accuracies.items():
        path = METRICS / f"{name}.json"
        metrics = files.read_json(path) | {"on_budget": name != "L0", "test_accuracies": values}
        files.write_json(path, metrics)
    write_predictions("L2", [[1, 0, 1, 1], [1, 0, 1, 1]])
    aggregate.main()
    written = files.read_json(Path("metrics/comparisons.json"))
    for found, difference in (
        (written, 0.125),
        (written["log_likelihood"], 0.125),
        (written["these_images"], 0.005),
    ):
        [pair] = found["pairs"]
        assert (pair["first"], pair["second"]) == ("L1", "L2")
        assert pair["difference"] == pytest.approx(difference, rel=1e-9)
        assert list(found["p_best"]) == ["L1", "L2"]
    assert written["may_be_best"] == ["L1", "L2"]
    assert written["trend"]["slope"]["mean"] == pytest.approx(-0.125, rel=1e-9)
    assert written["trend"]["curvature"] is None
    assert list(written["intervals"]) == list(accuracies)
    assert written["test_images"] == 4


def test_predictions_of_another_kind_are_refused():
    write_metrics()
    path = evaluate.PREDICTIONS / "L1.safetensors"
    save_tensors(path, {"right": torch.ones(2, 4)}, {})
    with pytest.raises(ValueError, match=r"L1.safetensors must hold `right` and `loss` of one"):
        aggregate.main()
    for content in (path.read_bytes()[:-1], None):
        path.unlink()
        if content:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=r"L1.safetensors is missing or damaged .*: run `dvc"):
            aggregate.main()


def test_of_two_with_equally_many_right_answers_validation_chooses_the_shallower():
    write_metrics()
    for name, accuracy in (("L1", 0.9844666666666666), ("L2", 0.9844666666666667)):
        path = METRICS / f"{name}.json"
        files.write_json(path, files.read_json(path) | {"val_accuracy": accuracy})
    aggregate.main()
    assert files.read_json(Path("metrics/summary.json"))["depth"] == 1


def test_plot_draws_both_figures(folder):
    write_tables()
    before = content(folder)
    plot.main()
    written = content(folder)
    assert before.items() <= written.items()
    figures = {Path("plots/depth_accuracy.png"), Path("plots/learning_curves.png")}
    assert set(written) - set(before) == figures
    assert all(written[path].startswith(b"\x89PNG") for path in figures)


def write_models():
    for name in SIZES:
        write_model(name)


@pytest.mark.parametrize("seeds", ["[3, 1]", "[3]"])
def test_diagnose_writes_the_tables_and_plot_draws_them(seeds, folder):
    parameters.PARAMETERS.write_text(PARAMS.replace("[3, 1]", seeds), encoding="utf-8")
    write_split()
    write_models()
    before = content(folder)
    diagnose.main()
    plot_diagnostics.main()
    written = content(folder)
    assert before.items() <= written.items()
    names = {"confusion", "calibration", "gradient_norms", "hard_digits"}
    assert {path.name for path in set(written) - set(before) if path.suffix} == {
        f"{name}.csv" for name in plot_diagnostics.COLUMNS
    } | {f"{name}.png" for name in names}
    (diagnose.OUT / "of_another_study.csv").touch()
    diagnose.main()
    assert content(folder) == written


def test_the_diagnosis_is_that_of_the_networks():
    write_split()
    write_models()
    diagnose.main()
    tables = {
        name: files.read_csv(diagnose.OUT / f"{name}.csv", columns)
        for name, columns in plot_diagnostics.COLUMNS.items()
    }
    test = images(7, 2)
    wrong = torch.zeros(7, dtype=torch.int64)
    for name, summary in zip(SIZES, tables["summary"].to_dict("records"), strict=True):
        evaluate.main(name)
        metrics = files.read_json(METRICS / f"{name}.json")
        # Losses of the same weights, by products of matrices of another shape in float32.
        assert summary["test_loss"] == pytest.approx(metrics["test_loss"], rel=1e-5)
        assert (summary["model"], summary["test_images"], summary["probe_images"]) == (name, 7, 24)
        of_model = tables["confusion"][tables["confusion"]["model"] == name]
        matrix = of_model[[str(label) for label in range(10)]].to_numpy()
        assert matrix.sum() == 7
        assert matrix.trace() / 7 == pytest.approx(metrics["test_accuracy"], abs=1e-15)
        bins = tables["calibration"][tables["calibration"]["model"] == name]
        right = (bins["count"] * bins["accuracy"]).sum()
        assert right / (2 * 7) == pytest.approx(metrics["test_accuracy"], abs=1e-15)
        wrong_here = torch.zeros(7, dtype=torch.int64)
        for seed in (3, 1):
            layers, metadata = load_perceptron(
                MODELS / f"{name}/seed-{seed}.safetensors", SIZES[name]
            )
            z = logits(layers, normalise(test.images, metadata["mean"], metadata["deviation"]))
            wrong_here += z[0].argmax(-1) != test.labels
        assert summary["wrong_by_all_seeds"] == int((wrong_here == 2).sum())
        wrong += wrong_here
    hard = tables["hard_digits"]
    assert sorted(hard["index"]) == (wrong == wrong.max()).nonzero()[:, 0].tolist()
    for row in hard.to_dict("records"):
        assert (row["wrong"], row["networks"]) == (int(wrong.max()), 6)
        assert row["label"] == int(test.labels[row["index"]])
        assert bytes.fromhex(row["pixels"]) == bytes(test.images[row["index"]].tolist())


@pytest.mark.usefixtures("one_process")
def test_initial_weights_are_those_that_training_starts_from():
    """With next to no learning, a network after training is the one before."""
    only = "models:\n  L2: {depth: 2, width: 9}\n"
    start, end = PARAMS.index("models:"), PARAMS.index(SAMPLED_YAML)
    parameters.PARAMETERS.write_text(PARAMS[:start] + only + PARAMS[end:], encoding="utf-8")
    parameters.LEARNING_RATES.write_text("L2: 1.0e-30\n", encoding="utf-8")
    write_split()
    train.main("L2", workers=1)
    diagnose.main()
    table = files.read_csv(diagnose.OUT / "layers.csv", plot_diagnostics.COLUMNS["layers"])
    initial, trained = (
        table[table["state"] == state].drop(columns="state").reset_index(drop=True)
        for state in ("initial", "trained")
    )
    assert len(initial) == 3
    pd.testing.assert_frame_equal(initial, trained, check_exact=True)


def test_a_single_seed_goes_all_the_way():
    parameters.PARAMETERS.write_text(PARAMS.replace("[3, 1]", "[3]"), encoding="utf-8")
    write_split()
    for name in SIZES:
        write_model(name)
        history = MODELS / f"{name}/history.csv"
        table = pd.read_csv(history)
        files.write_csv(history, table[table["seed"] == 3])
        evaluate.main(name)
    aggregate.main()
    plot.main()
    table = files.read_csv(aggregate.TABLE, aggregate.COLUMNS)
    assert table["seeds"].tolist() == [1, 1, 1]
    assert bool(table["accuracy_lo"].isna().all())
    comparisons = files.read_json(Path("metrics/comparisons.json"))
    assert comparisons["may_be_best"] == ["L1"]


def test_gradients_are_checked_and_their_errors_written(monkeypatch):
    monkeypatch.setattr(gradients, "CASES", 3)
    gradients.main()
    written = files.read_json(gradients.OUT)
    assert written["cases"] == 3
    assert all(0 <= share < 1 for share in written["share_of_tolerance"].values())
    assert len(written["largest_error"]) == 4


@pytest.mark.parametrize(
    "off",
    [
        1e-6,
        float("inf"),
        pytest.param(
            float("nan"),
        ),
    ],
)
def test_wrong_gradients_fail_and_write_nothing(folder, monkeypatch, off):
    right = gradients.classifier_gradients
    monkeypatch.setattr(gradients, "CASES", 2)
    monkeypatch.setattr(
        gradients, "classifier_gradients", lambda *case: tuple(g + off for g in right(*case))
    )
    before = content(folder)
    with pytest.raises(ValueError, match="the derived gradients are wrong: softmax_against_"):
        gradients.main()
    assert content(folder) == before


# Faults.


def damage(path, data):
    """Remove a file for None, or replace its bytes by others or by a function of them."""
    target = Path(path)
    if data is None:
        target.unlink()
    else:
        target.write_bytes(data if isinstance(data, bytes) else data(target.read_bytes()))


def truncated(whole):
    return whole[:-5]


def without(column):
    """Removes a column from the text of a CSV file."""

    def change(whole: bytes) -> bytes:
        rows = [line.split(",") for line in whole.decode().splitlines()]
        index = rows[0].index(column)
        return "\n".join(",".join(row[:index] + row[index + 1 :]) for row in rows).encode()

    return change


def change_params(old, new):
    text = parameters.PARAMETERS.read_text(encoding="utf-8")
    assert old in text
    parameters.PARAMETERS.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def refuses(folder):
    """Whether a stage tells a fault in one line, and leaves nothing but an empty folder."""

    def check_stage(message: str, main: Callable[..., None], *arguments: object) -> None:
        before = content(folder)
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            main(*arguments)
        assert "\n" not in str(caught.value).strip()
        after = content(folder)
        assert before.items() <= after.items()
        more = set(after) - set(before)
        assert not [path for path in more if after[path] is not None or path.name.startswith(".")]

    return check_stage


MNIST = ("dataset: digits}\nbudget: 300", "dataset: mnist}\nbudget: 9999")
MISSING = "is missing: run `dvc repro`, which makes it"


@pytest.mark.parametrize("name", ["L99", "l1", "../L1", "", " L1"])
@pytest.mark.parametrize("main", [train.main, evaluate.main])
def test_a_model_that_there_is_not_is_refused(main, name, refuses):
    write_split()
    refuses(f"params.yaml has no model {name!r} under models; it has L0, L1, L2", main, name)


@pytest.mark.parametrize("part", ["train-images", "train-labels", "t10k-images", "t10k-labels"])
def test_split_without_a_file(part, refuses):
    write_raw()
    (path,) = split.RAW.glob(f"{part}*")
    path.unlink()
    refuses(f"{path} is missing: run `dvc repro download`, which makes it", split.main)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t10k-images-idx3", truncated, "t10k-images-idx3-ubyte: an idx file of shape [7, 8, 8]"),
        ("t10k-images-idx3", b"", "t10k-images-idx3-ubyte: an idx file of bytes starts with"),
        ("t10k-labels-idx1", b"<html>", "t10k-labels-idx1-ubyte: an idx file of bytes starts"),
        ("t10k-labels-idx1", lambda w: w[:-1] + b"\xff", "labels must lie in [0, 10), got 255"),
        (
            "t10k-labels-idx1",
            download.idx_header((3,)) + bytes(3),
            "images must be (N, height, width) and labels (N,), N of at least 1, got (7, 8, 8) and",
        ),
        (
            "t10k-images-idx3",
            download.idx_header((7, 8, 7)) + bytes(7 * 8 * 7),
            "an image must have 64 pixels, got 56",
        ),
    ],
)
def test_split_of_damaged_files(name, data, message, refuses):
    write_raw()
    damage(split.RAW / f"{name}-ubyte", data)
    refuses(f"{split.RAW}/t10k-*: {message}", split.main)


def test_split_of_another_data_set(refuses):
    write_raw()
    change_params(*MNIST)
    refuses(f"{split.RAW}/train-*: an image must have 784 pixels, got 64", split.main)


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize(
    ("part", "data", "message"),
    [("train", None, MISSING), ("validation", truncated, "is damaged (")],
)
def test_train_on_damaged_files(part, data, message, refuses):
    write_split()
    path = train.SPLIT / f"{part}.safetensors"
    damage(path, data)
    refuses(f"{path} {message}", train.main, "L1")


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            MNIST,
            "train.safetensors must hold images of 784 pixels, one for each label, got (24, 64)",
        ),
        (
            ("batch_size: 8", "batch_size: 25"),
            "batch_size must be in [1, 24], the number of images, got 25",
        ),
        pytest.param(
            ("device: cpu", "device: cuda"),
            "train.device is cuda, but torch finds no such device: set it to cpu",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device"),
        ),
    ],
)
def test_train_by_parameters_that_cannot_be(change, message, refuses):
    write_split()
    change_params(*change)
    refuses(message, train.main, "L1")


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ("L0: 1\nL1: 1.0e+30\n", "the loss is not finite in epoch 1: lower the learning rate"),
        ("L0: 1\n", "learning_rates.yaml has no learning rate of L1: add `L1: ...`, a number"),
        ("L1: [1\n", "learning_rates.yaml is not valid YAML: "),
    ],
)
def test_train_by_learning_rates_that_cannot_be(rates, message, refuses):
    write_split()
    parameters.LEARNING_RATES.write_text(rates, encoding="utf-8")
    refuses(message, train.main, "L1")


def test_check_asks_for_a_learning_rate_of_each_model(refuses):
    check.main()
    parameters.LEARNING_RATES.write_text("L0: 1\nL1: 1\n", encoding="utf-8")
    refuses("learning_rates.yaml has no learning rate of L2", check.main)


@pytest.mark.parametrize(
    ("path", "data", "message"),
    [
        (evaluate.TEST, None, MISSING),
        (evaluate.TEST, truncated, "is damaged ("),
        (MODELS / "L1/seed-1.safetensors", None, MISSING),
        (MODELS / "L1/seed-1.safetensors", truncated, "is damaged ("),
        (
            MODELS / "L1/seed-1.safetensors",
            lambda whole: whole.replace(b"mean", b"meam"),
            "",
        ),
        (MODELS / "L1/history.csv", None, MISSING),
    ],
)
def test_evaluate_on_damaged_files(path, data, message, refuses):
    write_split()
    write_model("L1")
    damage(path, data)
    refuses(f"{path} {message}", evaluate.main, "L1")


@pytest.mark.parametrize(
    ("path", "data", "message"), [("test", None, MISSING), ("train", truncated, "is damaged (")]
)
def test_diagnose_on_damaged_files(path, data, message, refuses):
    write_split()
    write_models()
    damage(f"data/split/{path}.safetensors", data)
    refuses(f"data/split/{path}.safetensors {message}", diagnose.main)


def test_diagnose_without_a_network(refuses):
    write_split()
    write_models()
    damage(MODELS / "L2/seed-1.safetensors", None)
    refuses(f"{MODELS}/L2/seed-1.safetensors {MISSING}", diagnose.main)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("width: 4", "width: 5"), "seed-3.safetensors does not hold a perceptron of sizes [64, 5"),
        (("[3, 1]", "[3, 1, 2]"), f"{MODELS}/L1/seed-2.safetensors {MISSING}"),
        (MNIST, "test.safetensors must hold images of 784 pixels"),
    ],
)
def test_evaluate_by_parameters_that_the_weights_are_not_of(change, message, refuses):
    write_split()
    write_model("L1")
    change_params(*change)
    refuses(message, evaluate.main, "L1")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, MISSING),
        (b"{}", "lacks depth, width, parameters"),
        (b'{"depth": 1}', "lacks width, parameters"),
        (lambda whole: whole.replace(b"test_accuracies", b"others"), "lacks test_accuracies: run"),
    ],
)
def test_aggregate_of_damaged_metrics(data, message, refuses):
    write_metrics()
    damage(METRICS / "L1.json", data)
    refuses(f"{METRICS}/L1.json {message}", aggregate.main)


def test_aggregate_of_metrics_of_different_seeds(refuses):
    write_metrics()
    for name, accuracies in {"L1": [0.9], "L2": [0.9, 0.8]}.items():
        path = METRICS / f"{name}.json"
        changes = {"test_accuracies": accuracies, "on_budget": True}
        files.write_json(path, files.read_json(path) | changes)
    refuses("over the same seeds, but there are 1 of L1, 2 of L2", aggregate.main)


def write_diagnosis():
    write_split()
    write_models()
    diagnose.main()


def write_evaluated():
    write_split()
    write_model("L1")


# How to write what a stage reads, and the columns that it names of each table.
READERS = [
    (write_evaluated, (evaluate.main, "L1"), {MODELS / "L1/history.csv": evaluate.HISTORY}),
    (
        write_tables,
        (plot.main,),
        {plot.TABLE: plot.TABLE_COLUMNS, plot.CURVES / "L2.csv": plot.CURVE_COLUMNS},
    ),
    (
        write_diagnosis,
        (plot_diagnostics.main,),
        {diagnose.OUT / f"{name}.csv": each for name, each in plot_diagnostics.COLUMNS.items()},
    ),
]


@pytest.mark.parametrize(("write", "call", "tables"), READERS)
def test_a_table_that_is_missing_or_lacks_a_column_is_named(write, call, tables, refuses):
    write()
    for path, columns in tables.items():
        whole = path.read_bytes()
        path.unlink()
        refuses(f"{path} {MISSING}", *call)
        path.write_bytes(whole)
        files.write_csv(path, pd.read_csv(path).drop(columns=columns[-1]))
        refuses(f"{path} must have rows and the columns {', '.join(columns)}, got", *call)
        path.write_bytes(whole)


@pytest.mark.parametrize(("write", "call", "tables"), READERS)
def test_a_stage_names_all_columns_that_it_reads(write, call, tables):
    """Beside those of a confusion matrix, which depend on the classes."""
    write()
    for path, columns in tables.items():
        table = pd.read_csv(path)
        files.write_csv(path, table[[c for c in table if c in columns or c.isdecimal()]])
    main, *arguments = call
    main(*arguments)


STAGES = [
    (check.main, []),
    (download.main, []),
    (split.main, []),
    (train.main, ["L1"]),
    (tune.main, ["L1"]),
    (choose.main, []),
    (evaluate.main, ["L1"]),
    (aggregate.main, []),
    (plot.main, []),
]


@pytest.mark.parametrize(("main", "arguments"), STAGES)
def test_every_stage_says_all_faults_of_the_parameters_before_any_work(main, arguments, folder):
    faulty = PARAMS.replace("budget: 300", "bugdet: 300").replace("epochs: 2", "epochs: 0")
    parameters.PARAMETERS.write_text(faulty, encoding="utf-8")
    with pytest.raises(ValueError, match="params") as caught:
        main(*arguments)
    assert [line.split(": ")[:2] for line in str(caught.value).splitlines()] == [
        ["params.yaml", "budget"],
        ["params.yaml", "train.epochs"],
        ["params.yaml", "bugdet"],
    ]
    assert {path.name for path in folder.iterdir()} == {"params.yaml", "learning_rates.yaml"}


def test_the_command_itself_prints_one_line_and_no_traceback(folder):
    before = content(folder)
    done = subprocess.run(
        [sys.executable, "-m", "stages.train", "L99"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "error: params.yaml has no model 'L99' under models; it has L0, L1, L2\n"
    )
    assert content(folder) == before
