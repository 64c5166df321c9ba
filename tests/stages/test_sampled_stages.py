"""The linear classifier on sampled classes, and the stages of the sampled softmax on digits."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any, Never

import pandas as pd
import pytest
import torch
from conftest import ROOT, slow
from ruamel.yaml import YAML

from isoparam.sampled_softmax import log_weights
from isoparam.sampled_study.linear import other_classes, train_linear
from isoparam.sampled_study.recipes import LinearRecipe
from pipeline import parameters, processes, trainings
from stages import instance, sampled
from tools import demo

RUNS = {
    "full": {"weighting": "full", "learning_rate": 0.1},
    "importance_1": {"weighting": "importance", "samples": 1, "learning_rate": 0.1},
    "importance_9": {"weighting": "importance", "samples": 9, "learning_rate": 0.1},
    "stated_9": {"weighting": "stated", "samples": 9, "learning_rate": 0.1},
}
INSTANCE_RUNS = {
    "full": {"weighting": "full", "learning_rate": 0.1, "epochs": 2},
    "importance": {"weighting": "importance", "samples": 2000, "learning_rate": 0.1, "epochs": 4},
    "none": {
        "weighting": "none",
        "samples": 64,
        "learning_rate": 0.1,
        "epochs": 2,
        "images": "zipf",
    },
}


def examples(count=400):
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(10, (count,), generator=generator)
    means = torch.randn(10, 20, generator=generator)
    return means[labels] + torch.randn(count, 20, generator=generator), labels


def train(weighting, samples=None, state=None, on_state=lambda _: None, **changes: Any):
    x, labels = examples()
    recipe = LinearRecipe(
        epochs=3,
        batch_size=32,
        learning_rate=0.3,
        warmup=0.1,
        weighting=weighting,
        samples=samples,
    )
    recipe = replace(recipe, **changes)
    options = {"classes": 10, "seed": 0, "state": state, "on_state": on_state}
    return train_linear(x, labels, (x, labels), recipe, **options)


@pytest.mark.parametrize("samples", [1, 2, 5, 9])
def test_each_other_class_is_drawn_equally_often_and_the_label_never(samples):
    target = torch.arange(10).repeat(1000)
    draw = other_classes(samples, target, 10, torch.Generator().manual_seed(0))
    drawn = draw.log_expected_counts.isfinite()  # (B, C)
    assert (drawn.sum(1) == samples).all()
    assert not drawn.gather(1, target[:, None]).any()
    shares = drawn.view(1000, 10, 10).double().mean(0)[~torch.eye(10, dtype=torch.bool)]
    # Each of 90 shares over 1,000 draws has a deviation below 0.016: five of them.
    assert (shares - samples / 9).abs().max() < 0.08


@pytest.mark.parametrize(
    ("weighting", "expected"), [("importance", lambda k: 9 / k), ("stated", lambda k: 1 / (9 * k))]
)
@pytest.mark.parametrize("samples", [1, 5, 9])
def test_the_weights_are_those_of_the_formula(weighting, expected, samples):
    draw = other_classes(samples, torch.tensor([4, 0]), 10)
    weights = log_weights(draw, weighting)[0].exp()
    drawn = draw.log_expected_counts.isfinite()
    assert torch.allclose(weights[drawn], torch.full_like(weights[drawn], expected(samples)))
    assert (weights[~drawn] == 0).all()


def test_importance_with_all_others_is_the_full_softmax():
    (full,), by_full = train("full")
    (sampled,), by_sampled = train("importance", 9)
    for one, other in zip(full, sampled, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert by_sampled[-1].loss == pytest.approx(by_full[-1].loss, abs=1e-5)


def test_training_learns_and_gives_the_same_bits_again():
    first, second = (train("importance", 2) for _ in range(2))
    assert first[1] == second[1]
    assert torch.equal(first[0][0][0], second[0][0][0])
    assert first[1][-1].accuracy > 0.9


@pytest.mark.parametrize(("weighting", "samples"), [("full", None), ("importance", 2)])
def test_a_training_resumes_bit_identically_after_each_epoch(weighting, samples):
    states = []
    whole = train(weighting, samples, on_state=lambda state: states.append(deepcopy(state)))
    assert [len(state["history"]) for state in states] == [1, 2, 3]
    for state in states:
        (((weight, bias),), history) = train(weighting, samples, state)
        assert history == whole[1]
        assert torch.equal(weight, whole[0][0][0])
        assert torch.equal(bias, whole[0][0][1])


@pytest.mark.parametrize("samples", [0, 10])
def test_samples_out_of_range_are_an_error(samples):
    with pytest.raises(ValueError, match=f"leave 1 to 9 others to sample, got samples {samples}"):
        train("importance", samples)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor(1), r"target must be int64 of shape \(B,\), got torch.int64 of shape \(\)"),
        (torch.tensor([1.0]), "target must be int64 .* got torch.float32"),
        (torch.tensor([3, 10]), r"target must be in \[0, 10\), got 10"),
    ],
)
def test_bad_targets_are_an_error(target, message):
    with pytest.raises(ValueError, match=message):
        other_classes(2, target, 10)


def test_a_batch_larger_than_the_set_is_an_error():
    with pytest.raises(ValueError, match="batch_size must be at most 400, the number of images"):
        train("full", batch_size=401)


def stage(folder, name, workers="1", options=()):
    return subprocess.run(
        [sys.executable, "-m", f"stages.{name}", *options],
        cwd=folder,
        env=os.environ | {"ISOPARAM_WORKERS": workers},
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.fixture
@slow
def run() -> Callable[..., str]:
    """Runs stages, each in a process, and returns what the last of them prints."""

    def run(folder, *names: str, workers="1", options=()) -> str:
        for name in names:
            done = stage(folder, name, workers, options)
            assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def content(folder):
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def edit(path, changes):
    yaml = YAML()
    document = yaml.load(path)
    for section, values in changes.items():
        if isinstance(values, dict):
            document[section].update(values)
        else:
            document[section] = values
    yaml.dump(document, path)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with few, short runs, and the split of the digits."""
    folder = tmp_path_factory.mktemp("sampled") / "project"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        demo.copy(folder)
    edit(
        folder / "params.yaml",
        {
            "data": {"dataset": "digits"},
            "budget": 9610,
            "models": {"L0": {"depth": 0}},
            "seeds": [0, 1],
            "sampled": {"epochs": 2, "runs": RUNS},
            "instance": {"hidden": 64, "features": 32, "runs": INSTANCE_RUNS},
        },
    )
    for name in ("download", "split"):
        assert not stage(folder, name).returncode
    return folder


def test_the_stages_give_the_same_bytes_with_any_number_of_workers(project, run):
    trained = []
    for workers in ("1", "3"):
        run(project, "sampled", "instance", workers=workers)
        trained.append(content(project / "models"))
    assert trained[0] == trained[1]
    run(project, "evaluate_sampled", "plot_sampled")
    files = content(project)
    assert "models/sampled/importance_1/seed-1.safetensors" in files
    for name in ("sampled", "instance"):
        assert files[f"plots/{name}.png"].startswith(b"\x89PNG")

    sampled = json.loads(files["metrics/sampled.json"])
    assert list(sampled) == list(RUNS)
    for metrics in sampled.values():
        assert (
            metrics["test_accuracy_lo"] <= metrics["test_accuracy"] <= metrics["test_accuracy_hi"]
        )
        assert metrics["test_accuracy"] > 0.5
    full, nine = sampled["full"], sampled["importance_9"]
    assert nine["test_loss"] == pytest.approx(full["test_loss"], abs=1e-4)

    instance = json.loads(files["metrics/instance.json"])
    rows = list(csv.DictReader(files["plots/instance.csv"].decode().splitlines()))
    assert [float(row["loss"]) for row in rows if row["run"] == "importance"][-1] == (
        instance["importance"]["test_loss"]
    )


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("main", [sampled.main, instance.main], ids=["sampled", "instance"])
def test_a_stage_that_was_killed_resumes_to_the_same_bytes(project, main, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr(trainings, "PART_SECONDS", 0.0)
    shutil.rmtree("models", ignore_errors=True)
    main(workers=None)
    undisturbed = content(project / "models")
    assert not list(trainings.CHECKPOINTS.glob("*"))
    shutil.rmtree("models")

    def killed(work, jobs, **_: Any) -> Never:
        """Each job is killed as its second epoch ends."""
        for job in jobs:
            texts = []

            def report(text, texts=texts) -> None:
                texts.append(text)
                if len(texts) == 2:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                work(job, report)
            assert trainings._epochs_done(job.checkpoint) == 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(processes, "run_all", killed)
        with pytest.raises(KeyboardInterrupt):
            main(workers=None)

    reports, run_all = [], processes.run_all

    def resumed(work, jobs, **options: Any) -> list[Any]:
        return run_all(work, jobs, **options | {"advance": reports.append})

    monkeypatch.setattr(processes, "run_all", resumed)
    main(workers=None)
    assert content(project / "models") == undisturbed
    assert not list(trainings.CHECKPOINTS.glob("*"))
    epochs = sum(run["epochs"] for run in INSTANCE_RUNS.values())
    done, jobs = (epochs, len(INSTANCE_RUNS)) if main is instance.main else (16, 8)
    assert len(reports) == done - jobs


@pytest.mark.usefixtures("one_process")
def test_a_rate_at_which_a_trial_diverges_is_a_result(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    monkeypatch.setattr(sampled, "RATES", (0.1, 3e38))
    sampled.main(tune=True)
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2 * len(RUNS)
    assert {rate for _, rate, loss in rows if loss == "nan"} == {"3e+38"}


def test_tuning_prints_figures_on_views_that_are_not_reported(project, run):
    def tuning(*options: str) -> pd.DataFrame:
        return pd.read_csv(io.StringIO(run(project, "instance", options=["--tune", *options])))

    run(project, "instance")
    history = (project / "models/instance/history.csv").read_bytes()
    rates = ["--rate", "0.1", "--rate", "0.2", "--class-rate", "40", "--class-rate", "1e30"]
    table = tuning("--only", "full", *rates)
    assert table.columns.tolist() == [
        "run", "epochs", "class_rate", "learning_rate", "loss", "accuracy"
    ]  # fmt: skip
    assert table[["class_rate", "learning_rate"]].to_numpy().tolist() == [
        [40, 0.1], [40, 0.2], [1e30, 0.1], [1e30, 0.2]
    ]  # fmt: skip
    assert table["loss"].isna().tolist() == [False, False, True, True]  # too high is no error
    reported = pd.read_csv(io.BytesIO(history)).query("run == 'full'")["loss"].iloc[-1]
    assert table["loss"][0] == pytest.approx(reported, abs=1)
    assert table["loss"][0] != pytest.approx(reported, abs=1e-4)
    assert (project / "models/instance/history.csv").read_bytes() == history
    assert len(tuning("--only", "none")) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"tune": True, "only": ["full", "typo"]},
            r"^params\.yaml has no run 'typo' under instance\.runs; it has full, importance_1024_s",
        ),
        ({"only": ["full"]}, "^--only, --rate and --class-rate go with --tune: "),
        ({"rate": [0.1]}, "^--only, --rate and --class-rate go with --tune: "),
        ({"class_rate": [40.0]}, "^--only, --rate and --class-rate go with --tune: "),
        ({"tune": True, "rate": [0.1, -0.1]}, r"must be above 0 and finite, got -0\.1$"),
        ({"tune": True, "class_rate": [float("nan")]}, "must be above 0 and finite, got nan$"),
    ],
)
def test_options_of_the_tuning_that_make_no_sense_train_nothing(options, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(processes, "run_all", lambda *_, **__: pytest.fail("it trains"))
    with pytest.raises(ValueError, match=message):
        instance.main(**options)


def test_the_benchmark_trains_as_the_stage_does(project, run, python, tmp_path):
    run(project, "instance")
    out = tmp_path / "instance.csv"
    arguments = ("importance", "full=4", "--out", str(out))
    python("-m", "benchmarks.instance", *arguments, folder=project)
    short, longer = pd.read_csv(out).to_dict("records")
    last = (
        pd.read_csv(project / "models/instance/history.csv").query("run == 'importance'").iloc[-1]
    )
    assert (short["run"], short["epochs"]) == ("importance", 4)
    assert (short["test_loss"], short["test_accuracy"]) == (last["loss"], last["accuracy"])
    assert (longer["run"], longer["epochs"]) == ("full", 4)
    assert longer["processor_s"] > 0


def test_the_learning_rates_are_the_best_of_the_recorded_tuning(monkeypatch):
    monkeypatch.chdir(ROOT)
    params = parameters.read_params().instance
    recorded = pd.read_csv(ROOT / "benchmarks/results/instance_tuning.csv")
    for name, run in params.runs.items():
        rows = recorded[
            (recorded["run"] == name)
            & (recorded["epochs"] == run.epochs)
            & (recorded["class_rate"] == params.class_rate)
        ]
        assert sorted(rows["learning_rate"]) == instance.RATES
        ranked = rows.sort_values(["accuracy", "loss"], ascending=[False, True])
        assert ranked["learning_rate"].iloc[0] == run.learning_rate


def test_the_recorded_trainings_reach_what_was_asked_for(monkeypatch):
    monkeypatch.chdir(ROOT)
    recorded = pd.read_csv(ROOT / "benchmarks/results/instance.csv")
    table = recorded[recorded["run"] == "importance_1024"].set_index("epochs")
    default = parameters.read_params().instance.runs["importance_1024"].epochs
    assert table["test_accuracy"][default] >= 0.80
    assert table["test_accuracy"].max() >= 0.95


def test_an_error_in_a_worker_is_one_sentence(project, tmp_path):
    broken = tmp_path / "project"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        demo.copy(broken)
    for name in ("data", "models"):
        shutil.rmtree(broken / name, ignore_errors=True)
    (broken / "params.yaml").write_bytes((project / "params.yaml").read_bytes())
    for name in ("instance", "plot_sampled"):
        done = stage(broken, name)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert "is missing: run `dvc repro`" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (broken / "models").exists() or not list((broken / "models").iterdir())


def test_plotting_does_not_import_torch():
    code = "import sys, stages.plot_sampled; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
