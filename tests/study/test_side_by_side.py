"""Stages and experiments side by side on one machine, by the lines of docs/scale.md."""

import re
import shutil
import sys
import time

import psutil
import pytest
from conftest import ROOT, Project
from ruamel.yaml import YAML

DOCUMENT = (ROOT / "docs/scale.md").read_text(encoding="utf-8")


def documented(heading):
    """The commands in the first console block below a heading, in which a line may go on."""
    [section] = re.findall(rf"^## {heading}$(.+?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    block = re.search(r"```console\n(.+?)```", section, re.DOTALL)[1]
    return re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)


def test_models_trained_side_by_side_are_those_of_a_plain_run(few, tmp_path):
    folder = tmp_path / "study"
    few.run("git", "clone", "--quiet", str(few.folder), str(folder))
    project = Project(folder)
    commands = documented("Side by side on one machine")
    assert len(commands) == 3
    for command in commands:
        project.run("sh", "-c", f"set -e; {command}")
    results = ("metrics", "plots", "models", "data")
    assert project.content(*results) == few.content(*results)
    # Its entries stand in the order in which the stages ended.
    ours, theirs = (YAML(typ="safe").load(each.folder / "dvc.lock") for each in (project, few))
    assert ours == theirs


def workers_of(folder):
    """The processes that DVC leaves to work on a queue, also when it is empty."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(folder)) and "dvc" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:  # it ended meanwhile, or is not ours
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="psutil tells others' folders on Linux")
def test_queued_experiments_run_and_leave_nothing_behind(few, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(few.folder, folder, symlinks=True)
    project = Project(folder)
    project.commit("run")
    before = project.content("dvc.lock", "metrics", "params.yaml", "learning_rates.yaml")
    longer, slower, start, _, show, apply = documented("Experiments in a queue")
    try:
        for command in (longer, slower, start):
            project.run("sh", "-c", command)
        end = time.monotonic() + 300
        while re.search("Queued|Running", state := project.run("dvc", "queue", "status")):
            assert time.monotonic() < end, state
            time.sleep(0.5)
        assert len(re.findall("Success", state)) == 2, state
    finally:
        project.run("dvc", "queue", "stop", "--kill")
        _, alive = psutil.wait_procs(workers_of(folder), timeout=60)
        for process in alive:
            process.kill()
    assert not alive
    assert project.content("dvc.lock", "metrics", "params.yaml", "learning_rates.yaml") == before
    shown = [line.split("|")[1:-1] for line in project.run("sh", "-c", show).splitlines()]
    rows = {row[0].strip(" ├└─"): [cell.strip() for cell in row[1:]] for row in shown if row}
    names = {re.sub(r"\w+ \[(\w+)\]", r"\1", row): row for row in rows}
    assert rows["Experiment"] == [f"metrics/depths/L{i}.json:test_accuracy" for i in (1, 2)] + [
        "train.epochs",
        "L1",
    ]
    main, ours, theirs = (rows[names[name]] for name in ("main", "longer", "slower"))
    assert ours[0] != main[0] != theirs[0]
    assert ours[1] != main[1] == theirs[1]
    assert [main[2:], ours[2:], theirs[2:]] == [["3", "0.02"], ["20", "0.02"], ["3", "0.01"]]
    project.run("sh", "-c", apply)
    assert "epochs: 20" in (folder / "params.yaml").read_text(encoding="utf-8")
