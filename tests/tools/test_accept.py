"""`make accept`: what it records, and all that it refuses to record."""

import os
import shutil
import subprocess
import sys
from typing import Never

import pytest
from conftest import Project
from ruamel.yaml import YAML

from tools import accept, guard, verify

MLP = "isoparam/network/mlp.py"

# The calls of the guard.
GUARDED: list[bool] = []


@pytest.fixture
def study(few, tmp_path, monkeypatch) -> Project:
    """A copy of a finished study that is committed, where tools work as if they were of there.

    The guard takes minutes and has tests of its own: here it finds all to be identical.
    """
    shutil.copytree(few.folder, tmp_path / "study", symlinks=True)
    project = Project(tmp_path / "study")
    shutil.rmtree(project.folder / "tuning")  # it was never run
    project.commit("record")
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(verify, "ROOT", project.folder)
    monkeypatch.setattr(guard, "not_comparable", lambda _: None)
    monkeypatch.setattr(guard, "figures_not_comparable", lambda _: None)
    monkeypatch.setattr(guard, "main", lambda *, record: GUARDED.append(record))
    GUARDED.clear()
    return project


@pytest.fixture
def docstring(study) -> Project:
    """With a change that changes no number."""
    edit(study, MLP, '"""', '"""A new word. ')
    return study


def edit(study, name, old, new):
    path = study.folder / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def refused(study, match):
    """It must fail and leave the record as it is."""
    before = study.content("dvc.lock", "metrics", "plots")
    with pytest.raises(ValueError, match=match):
        accept.main()
    assert study.content("dvc.lock", "metrics", "plots") == before


def test_nothing_is_accepted_where_nothing_changed(study, capsys):
    edit(study, "pipeline/processes.py", '"""', '"""A new word. ')
    accept.main()
    assert capsys.readouterr().out.startswith("There is nothing to accept: ")


def test_code_that_changes_no_number_is_recorded(docstring, capsys):
    results = docstring.content("metrics", "plots", "models", "data")
    accept.main()
    output = capsys.readouterr().out
    assert GUARDED == [False]
    assert "trainings: identical: models/depths/L1, metrics/depths/L1.json, " in output
    assert "models/depths/L2" in output
    docstring.run("dvc", "status", "--quiet")  # it fails where anything is stale
    assert docstring.content("metrics", "plots", "models", "data") == results
    assert docstring.run("git", "diff", "--name-only").split() == ["dvc.lock", MLP]
    # Before that is committed, no commit has the code of dvc.lock.
    edit(docstring, MLP, "A new word.", "Another word.")
    refused(docstring, r"mlp\.py|isoparam/network of commit .* is not that of dvc\.lock")


def test_code_that_changes_a_number_is_refused(study):
    edit(study, "isoparam/network/replicas.py", "momentum=self", "momentum=1e-7 + self")
    refused(study, "the current code gives other bytes than the recorded code: models/depths/L1, ")


def test_what_the_guard_refuses_is_refused(docstring, monkeypatch):
    def fail(*, record) -> Never:
        raise ValueError(f"the study on digits gives other outputs {record}")

    monkeypatch.setattr(guard, "main", fail)
    monkeypatch.setattr(verify, "train", None)
    refused(docstring, "the study on digits gives other outputs False")


@pytest.mark.parametrize("which", ["not_comparable", "figures_not_comparable"])
def test_where_the_guard_says_nothing_nothing_is_accepted(docstring, monkeypatch, which):
    monkeypatch.setattr(guard, which, lambda _: "this is a toaster")
    refused(docstring, "nothing can be accepted here, .*: this is a toaster")


def break_models(study):
    shutil.rmtree(study.folder / "models/depths/L2")


def break_metrics(study):
    edit(study, "metrics/depths/L2.json", "0.", "1.")


def change_parameter(study):
    edit(study, "learning_rates.yaml", "0.02", "0.03")


def change_command(study):
    edit(study, "dvc.yaml", "python -m stages.aggregate", "python -B -m stages.aggregate")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            break_models,
            "models/depths/L2 is deleted, and accepting needs the recorded results: run",
        ),
        (break_metrics, "metrics/depths/L2.json is modified, and accepting needs"),
        (
            change_parameter,
            r"learning_rates\.yaml: L1 changed, which is not code: run `mak",
        ),
        (change_command, "aggregate: changed command changed, which is not code"),
    ],
)
def test_more_than_code_is_refused_before_the_minutes(docstring, monkeypatch, change, match):
    monkeypatch.setattr(guard, "main", None)
    change(docstring)
    refused(docstring, match)


def test_the_command_says_in_one_sentence_what_is_missing(docstring):
    break_models(docstring)
    done = subprocess.run(
        [sys.executable, "-m", "tools", "accept"],
        env=os.environ,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "error: models/depths/L2 is deleted, and accepting needs" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_record_that_no_commit_has_the_code_of_is_refused(docstring):
    yaml = YAML()
    lock = yaml.load(docstring.folder / "dvc.lock")
    for dep in lock["stages"]["split"]["deps"]:
        if dep["path"] == "stages/split.py":
            dep["md5"] = "0" * 32
    yaml.dump(lock, docstring.folder / "dvc.lock")
    docstring.commit("a lock without its code")
    with pytest.raises(ValueError, match=r"stages/split\.py of commit .* is not that of dvc\.lock"):
        accept.main()
