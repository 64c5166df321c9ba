"""Verdicts of `make verify`, and the command on the study of small digits."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DIGITS, ROOT, Project, make_project
from ruamel.yaml import YAML

from pipeline import files
from tools import demo, verify
from tools.verify import DIFFERENT, EQUAL, IDENTICAL, UNTOLD, Finding

HASHES = {"L0": "aa", "L1": "bb"}
HERE = {"torch": "2.1", "sizes": {}, "hashes": HASHES}


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([IDENTICAL, IDENTICAL], IDENTICAL),
        ([IDENTICAL, EQUAL], EQUAL),
        ([EQUAL, DIFFERENT], DIFFERENT),
        ([DIFFERENT, IDENTICAL], DIFFERENT),
        ([UNTOLD, EQUAL], EQUAL),
        ([IDENTICAL, UNTOLD], IDENTICAL),
        ([UNTOLD, UNTOLD], UNTOLD),
    ],
)
def test_the_worst_that_can_be_told_decides(verdicts, expected):
    assert verify.worst([Finding(verdict, "") for verdict in verdicts]) == expected


@pytest.mark.parametrize(
    ("promised", "changes", "expected", "text"),
    [
        (True, {}, IDENTICAL, "2 short strict trainings"),
        (False, {"torch": "2.2"}, IDENTICAL, "2 short strict trainings"),
        (True, {"hashes": {"L0": "aa", "L1": "cc"}}, DIFFERENT, r"1 of 2 .*\(L1\)"),
        (True, {"hashes": {"L0": "aa"}}, DIFFERENT, r"1 of 2 .*\(L1\)"),
        (False, {"hashes": {}}, UNTOLD, "for x86-64 with AVX2 alone"),
        (True, {"hashes": {}, "torch": "2.2"}, UNTOLD, "torch is 2.2 here, 2.1 in the record"),
    ],
)
def test_a_fingerprint_must_be_the_same_where_that_is_promised(promised, changes, expected, text):
    finding = verify.compare_fingerprints(promised=promised, recorded=HERE, found=HERE | changes)
    assert finding.verdict == expected
    assert re.search(text, finding.text)


@pytest.mark.parametrize(
    ("recorded", "found", "expected", "text"),
    [
        ([0.9, 0.92], [0.9, 0.92], EQUAL, "2 of 2 seeds"),
        ([0.90, 0.91, 0.92], [0.91, 0.91, 0.93], EQUAL, "1 of 3 seeds"),
        # Half the interval of each is 0.0248: they overlap up to a distance of twice that.
        ([0.90, 0.91, 0.92], [0.949, 0.959, 0.969], EQUAL, "0 of 3 seeds"),
        ([0.90, 0.91, 0.92], [0.95, 0.96, 0.97], DIFFERENT, "0 of 3 seeds"),
        ([0.95, 0.96, 0.97], [0.90, 0.91, 0.92], DIFFERENT, "91.00 ± 2.48 % here, 96.00"),
        ([0.9, 0.91], [0.9, 0.91, 0.92], EQUAL, "recorded"),
        ([0.9], [0.9], DIFFERENT, "with one seed there is no interval"),
    ],
)
def test_accuracies_are_equal_if_their_intervals_overlap(recorded, found, expected, text):
    finding = verify.compare_accuracies(recorded, found)
    assert finding.verdict == expected
    assert text in finding.text


def test_reasons_are_what_bits_may_depend_on():
    here = verify.environment()
    assert verify.differences(here, here) == []
    other = here | {
        "processor": "Z80",
        "cores": 1000,
        "packages": here["packages"] | {"torch": "0.1", "matplotlib": "0.1"},
    }
    assert verify.differences(other, here) == [
        f"torch is {here['packages']['torch']} here, 0.1 in the record",
        f"processor is {here['processor']} here, Z80 in the record",
    ]


def test_the_recorded_environment_is_complete():
    recorded = files.read_json(ROOT / verify.ENVIRONMENT)
    assert set(recorded) == set(verify.environment())
    assert set(recorded["packages"]) == set(verify.PACKAGES)
    assert verify.differences(recorded, recorded) == []


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tools", "verify", *arguments],
        cwd=folder,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """Small digits with a recorded run of L1."""
    project = make_project(
        tmp_path_factory.mktemp("verify") / "project", DIGITS, demo.LEARNING_RATE
    )
    project.run("dvc", "repro", "evaluate@L1")
    project.commit("digits")
    return project


@pytest.fixture
def clone(project, tmp_path) -> Project:
    """With the record and no data."""
    project.run("git", "clone", "--quiet", ".", str(tmp_path / "clone"))
    return Project(tmp_path / "clone")


def test_the_same_machine_gives_the_same_bits_and_nothing_changes(project):
    everything = ("dvc.lock", "metrics", "plots", "models", "data", "record", "params.yaml")
    before = project.content(*everything)
    output = project.run("python", "-m", "tools", "verify", ISOPARAM_WORKERS="2")
    assert "L1: identical: " in output
    assert output.endswith("verdict: identical\n")
    assert "possible reason" not in output
    assert project.content(*everything) == before
    assert project.run("git", "status", "--porcelain") == ""


def edit_lock(clone, path, change):
    """Change an output of a stage in dvc.lock."""
    yaml = YAML()
    lock = yaml.load(clone.folder / "dvc.lock")
    for stage in lock["stages"].values():
        for out in stage["outs"]:
            if out["path"] == path:
                change(out)
    yaml.dump(lock, clone.folder / "dvc.lock")


def test_other_bits_are_equal_within_the_interval(clone):
    """As on another processor: the weights are others, the accuracies about the same."""
    edit_lock(clone, "models/L1", lambda out: out.update(md5="0" * 32 + ".dir"))
    rates = clone.folder / "learning_rates.yaml"
    rates.write_text(rates.read_text().replace("L1: 0.02", "L1: 0.021"))
    code, output = run(clone.folder)
    assert code == 0, output
    assert "L1: equal within the interval: " in output
    assert "seeds have the recorded test accuracy" in output
    assert "possible reason: learning_rates.yaml changed since the recorded run" in output
    assert output.endswith("verdict: equal within the interval\n")
    assert not (clone.folder / "data/split/train.safetensors").exists()
    assert not (clone.folder / "models/L1").exists()


def test_other_accuracies_and_hashes_are_different(clone):
    metrics = clone.folder / "metrics/L1.json"
    content = json.loads(metrics.read_text())
    content["test_accuracies"] = [0.11, 0.1, 0.1]
    metrics.write_text(json.dumps(content))
    code, output = run(clone.folder)
    assert code == 1
    assert "error: metrics/L1.json is not the one of dvc.lock: run `dvc repro`" in output
    edit_lock(clone, "metrics/L1.json", lambda out: out.update(md5=files.md5_of(metrics)))
    record = clone.folder / "record/fingerprint.json"
    content = json.loads(record.read_text())
    content["hashes"]["L2"] = content["hashes"]["L1"]
    record.write_text(json.dumps(content))
    code, output = run(clone.folder)
    assert code == 1
    assert "1 of 9 hashes are not the recorded ones (L2)" in output
    assert "L1: different: " in output
    assert output.endswith("verdict: different\n")


def test_what_cannot_be_trained_is_told_apart(clone):
    params = clone.folder / "params.yaml"
    params.write_text(params.read_text().replace("dataset: digits", "dataset: mnist"))
    yaml = YAML()
    document = yaml.load(params)
    document["data"] |= {"local": None, "mirrors": []}
    yaml.dump(document, params)
    _, output = run(clone.folder)
    assert "L1: not comparable: it was not trained: the stage download failed" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda f: (f / "dvc.lock").unlink(), "error: dvc.lock has no run of L1 to compare with"),
        (lambda f: (f / "record/fingerprint.json").unlink(), "fingerprint.json is missing"),
        (lambda f: (f / "record/fingerprint.json").write_text("{}"), "missing or damaged"),
        (lambda f: (f / "metrics/L1.json").unlink(), "metrics/L1.json is missing"),
    ],
)
def test_a_missing_record_is_one_sentence(clone, break_it, sentence):
    break_it(clone.folder)
    code, output = run(clone.folder)
    assert code == 1
    assert sentence in output
    assert "Traceback" not in output


def test_an_unknown_model_is_one_sentence(clone):
    code, output = run(clone.folder, "L99")
    assert code == 1
    assert "params.yaml has no model 'L99'" in output
