"""Verdicts of `make verify`, and the command on a study of small digits."""

import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, Project, slow
from ruamel.yaml import YAML

from pipeline import files
from tools import environment, verify
from tools.verify import DIFFERENT, EQUAL


@pytest.mark.parametrize(
    ("recorded", "found", "expected", "text"),
    [
        ([0.9, 0.92], [0.9, 0.92], EQUAL, "2 of 2 seeds"),
        ([0.90, 0.91, 0.92], [0.91, 0.91, 0.93], EQUAL, "1 of 3 seeds"),
        # Half the interval of each is 0.0248: they overlap up to a distance of twice that.
        ([0.90, 0.91, 0.92], [0.949, 0.959, 0.969], EQUAL, "0 of 3 seeds"),
        ([0.90, 0.91, 0.92], [0.95, 0.96, 0.97], DIFFERENT, "0 of 3 seeds"),
        ([0.95, 0.96, 0.97], [0.90, 0.91, 0.92], DIFFERENT, "91.00 % here, 96.00 % recorded"),
        ([0.9, 0.91], [0.9, 0.91, 0.92], EQUAL, "2 of 3 seeds"),
        ([0.9], [0.9], DIFFERENT, "with one seed there is no interval"),
    ],
)
def test_accuracies_are_equal_if_their_intervals_overlap(recorded, found, expected, text):
    verdict, said = verify.compare_accuracies(recorded, found)
    assert verdict == expected
    assert text in said


def test_reasons_are_what_bits_may_depend_on():
    here = environment.environment()
    assert environment.differences(here, here) == []
    other = here | {
        "processor": "Z80",
        "cores": 1000,
        "packages": here["packages"] | {"torch": "0.1", "matplotlib": "0.1"},
    }
    assert environment.differences(other, here) == [
        f"torch is {here['packages']['torch']} here, 0.1 in the record",
        f"processor is {here['processor']} here, Z80 in the record",
    ]


def test_the_recorded_environment_is_complete():
    recorded = files.read_json(ROOT / environment.ENVIRONMENT)
    assert set(recorded) == set(environment.environment())
    assert set(recorded["packages"]) == set(environment.PACKAGES)
    assert environment.differences(recorded, recorded) == []


@pytest.fixture
@slow
def study(digits, tmp_path) -> Project:
    """A copy of a finished study, with the environment of this machine as that of the record."""
    shutil.copytree(digits.folder, tmp_path / "study", symlinks=True)
    here = environment.environment()
    files.write_json(tmp_path / "study" / environment.ENVIRONMENT, here)
    return Project(tmp_path / "study")


def test_the_environment_is_recorded_by_a_command(study):
    (study.folder / environment.ENVIRONMENT).unlink()
    study.run("python", "-m", "tools", "verify", "--record-environment")
    assert files.read_json(study.folder / environment.ENVIRONMENT) == environment.environment()


def run(study: Project, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tools", "verify", *arguments],
        cwd=study.folder,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout


def edit_lock(study, path, md5):
    """Change the hash of an output in dvc.lock."""
    yaml = YAML()
    lock = yaml.load(study.folder / "dvc.lock")
    for stage in lock["stages"].values():
        for out in stage.get("outs", []):
            if out["path"] == path:
                out["md5"] = md5
    yaml.dump(lock, study.folder / "dvc.lock")


def test_the_same_machine_gives_the_same_bits_and_nothing_changes(study):
    before = study.content(".")
    code, output = run(study)
    assert code == 0, output
    assert "\nL1: " in output
    assert "3 of 3 seeds alike, weights, histories and metrics to the last bit\n" in output
    assert output.endswith("verdict: identical\n")
    assert "possible reason" not in output
    assert {name: c for name, c in study.content(".").items() if "__pycache__" not in name} == {
        name: c for name, c in before.items() if "__pycache__" not in name
    }


def test_other_bits_are_equal_within_the_interval(study):
    """As on another processor: the weights are others, the accuracies about the same."""
    edit_lock(study, "models/depths/L2", "0" * 32 + ".dir")
    rates = study.folder / "learning_rates.yaml"
    rates.write_text(rates.read_text().replace("L2: 0.02", "L2: 0.021"))
    recorded = files.read_json(study.folder / environment.ENVIRONMENT)
    recorded["processor"] = "Z80"
    files.write_json(study.folder / environment.ENVIRONMENT, recorded)
    shutil.rmtree(study.folder / "data")
    shutil.rmtree(study.folder / "models")
    code, output = run(study, "L2")
    assert code == 0, output
    assert "\nL2: " in output
    assert "possible reason: learning_rates.yaml changed since the recorded run\n" in output
    assert f"possible reason: processor is {environment.processor()['processor']} here" in output
    assert output.endswith("verdict: equal within the interval\n")
    assert not (study.folder / "data").exists()
    assert not (study.folder / "models").exists()


def test_other_accuracies_are_different(study):
    path = "metrics/depths/L1.json"
    metrics = files.read_json(study.folder / path)
    # Few seeds have a wide interval, so none that a network can have is different for sure.
    files.write_json(study.folder / path, metrics | {"test_accuracies": [9.0] * 3})
    code, output = run(study)
    assert code == 1
    assert f"error: {path} differs from that of dvc.lock: run `dvc repro`" in output
    edit_lock(study, path, files.md5_of(study.folder / path))
    code, output = run(study)
    assert code == 1
    assert output.endswith("verdict: different\n")


@pytest.mark.parametrize("failing", ["download", "split"])
def test_without_its_data_it_is_not_comparable(study, failing, monkeypatch):
    monkeypatch.delenv("ISOPARAM_DATA", raising=False)
    shutil.rmtree(study.folder / "data")
    if failing == "download":
        yaml = YAML()
        document = yaml.load(study.folder / "params.yaml")
        document["data"] |= {"dataset": "mnist", "local": None, "mirrors": []}
        yaml.dump(document, study.folder / "params.yaml")
    else:
        edit_lock(study, "data/split/test.safetensors", "0" * 32)
    code, output = run(study)
    assert code == 1
    reason = {"download": "the stage download failed", "split": "the split would not be that of"}
    assert f"L1: it was not trained: {reason[failing]}" in output
    assert output.endswith("verdict: not comparable\n")
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("dvc.lock", "error: dvc.lock has no run of train@L1 to compare with: run `dvc repro`"),
        ("metrics/depths/L1.json", "error: metrics/depths/L1.json differs from that of dvc.lock"),
    ],
)
def test_a_missing_record_is_one_sentence(study, missing, sentence):
    (study.folder / missing).unlink()
    code, output = run(study)
    assert code == 1
    assert sentence in output
    assert "Traceback" not in output


def test_an_unknown_model_is_one_sentence(study):
    code, output = run(study, "L99")
    assert code == 1
    assert "params.yaml has no model 'L99'" in output
