"""`make`: what it estimates, what it prints at each stage, and what a signal ends."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import ROOT, slow

from pipeline import commands, files, parameters
from tools import findings, repro

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # DVC's


@pytest.fixture
def recorded(monkeypatch):
    """The record, in the project's folder, on two cores as it was made on."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ISOPARAM_WORKERS", "2")
    return files.read_csv(repro.RECORDED, ("stage",)).set_index("stage", drop=False)


def seconds_of(stage, recorded, slowness=1.0, **changes: Any):
    params = parameters.read_params()
    document = params.model_dump() | {name: params.model_dump()[name] for name in changes}
    for name, change in changes.items():
        document[name] = document[name] | change if isinstance(change, dict) else change
    return repro.estimate(type(params).model_validate(document), stage, slowness, recorded)


@pytest.mark.parametrize("stage", ["check", "train@L0", "train@L4", "sampled", "instance", "plot"])
def test_the_recorded_run_is_estimated_by_itself(stage, recorded):
    # Widths are rounded: networks differ from the budget by 0.3 % at most.
    assert seconds_of(stage, recorded) == pytest.approx(recorded["seconds"][stage], rel=0.01)


def test_an_estimate_follows_the_work_and_the_machine(recorded, monkeypatch):
    row = recorded.loc["train@L4"]
    work = row["command_s"] - row["import_s"]
    rest = row["seconds"] - work
    for changes, factor in (
        ({"slowness": 5}, 5),
        ({"seeds": [0, 1]}, 0.2),
        ({"train": {"epochs": 30}}, 2),
    ):
        assert seconds_of("train@L4", recorded, **changes) == pytest.approx(
            rest + factor * work, rel=0.01
        )
    monkeypatch.setenv("ISOPARAM_WORKERS", "8")
    assert seconds_of("train@L4", recorded) == pytest.approx(rest + work / 4, rel=0.01)
    digits = {"data": {"dataset": "digits"}, "budget": 9610}
    for stage in ("train@L4", "sampled", "instance", "diagnose"):
        row = recorded.loc[stage]
        assert seconds_of(stage, recorded, **digits) < row["seconds"] - row["command_s"] * 0.8 + 1
    models = {"L9": {"depth": 9, "width": 272}}
    assert 100 / 4 < seconds_of("train@L9", recorded, models=models) < 200


def test_nothing_is_promised_of_own_data_and_gpus(recorded, monkeypatch):
    del recorded
    params = parameters.read_params()
    for section, change in (("train", {"device": "cuda"}), ("data", {"dataset": "own"})):
        changed = getattr(params, section).model_copy(update=change)
        monkeypatch.setattr(
            parameters,
            "read_params",
            lambda section=section, changed=changed: params.model_copy(update={section: changed}),
        )
        assert repro.estimates(["train@L1", "plot"]) == {"train@L1": None, "plot": None}


def test_a_step_is_measured_where_something_trains(recorded, monkeypatch):
    monkeypatch.setattr(repro, "measure_step_seconds", lambda: 10 * repro.recorded_step_seconds())
    row = recorded.loc["train@L0"]
    work = row["command_s"] - row["import_s"]
    assert repro.estimates(["train@L0", "plot"])["train@L0"] == pytest.approx(
        row["seconds"] + 9 * work, rel=0.01
    )
    monkeypatch.setattr(repro, "measure_step_seconds", lambda: pytest.fail("for nothing"))
    assert repro.estimates(["plot"])["plot"] < 5


def test_a_step_takes_some_time():
    assert 1e-5 < repro.train_for_a_second() < 10


RESUMES = "Whenever it is stopped, the next run resumes."


def records(*events: tuple[str, str]):
    loggers = {"runs": "dvc.stage.run", "skips": "dvc.stage", "is cached": "dvc.stage.cache"}
    messages = {
        "runs": "Running stage '%s':",
        "skips": "Stage '%s' didn't change, skipping",
        "is cached": "Stage '%s' is cached - skipping run, checking out outputs",
    }
    for what, stage in events:
        yield logging.LogRecord(loggers[what], 20, "", 0, messages[what], (stage,), None)


def test_each_stage_has_its_number_and_the_time_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(commands, "available_cores", lambda: 2)
    progress = repro.Progress(5, {"split": 10.0, "train@L1": 100.0, "instance": 500.0, "plot": 4.0})
    progress.announce()
    for record, seconds in zip(
        records(
            ("skips", "check"),
            ("runs", "split"),
            ("runs", "train@L1"),
            ("is cached", "instance"),
            ("runs", "plot"),
        ),
        [0, 10, 200, 0, 0],  # training takes twice as long as estimated
        strict=True,
    ):
        assert progress.filter(record)
        now[0] += seconds
    assert progress.filter(logging.LogRecord("dvc", 20, "", 0, "", None, None))
    assert capsys.readouterr().out.splitlines() == [
        f"4 of 5 stages are to run, 2 of them train: about 10 min on 2 cores. {RESUMES}",
        "[2 of 5, about 10 min left]",
        "[3 of 5, about 10 min left]",
        "[5 of 5, about 8 s left]",
    ]


def test_without_an_estimate_there_are_numbers_alone(capsys):
    progress = repro.Progress(5, {"plot": None})
    progress.announce()
    for record in records(("runs", "plot")):
        progress.filter(record)
    repro.Progress(5, {}).announce()
    assert capsys.readouterr().out.splitlines() == [
        f"1 of 5 stages are to run, 0 of them train. {RESUMES}",
        "[1 of 5]",
    ]


def test_it_ends_with_the_claim_the_figure_and_two_commands(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(repro, "run", lambda: None)
    repro.main()
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(f"{findings.claim().replace('**', '')} The figure is ")
    figure, *commands_ = re.findall(r"plots/\S+png|make report|\.venv/bin/dvc metrics show", said)
    assert Path(figure).is_file()
    assert commands_ == ["make report", ".venv/bin/dvc metrics show"]


@pytest.fixture
@slow
def pipeline(tmp_path, monkeypatch):
    """A small pipeline in which a stage waits."""
    monkeypatch.chdir(tmp_path)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    Path("dvc.yaml").write_text(
        "stages:\n  first: {cmd: touch first, outs: [first]}\n"
        "  second: {cmd: sleep 60, deps: [first]}\n  third: {cmd: exit 3, deps: [first]}\n",
        encoding="utf-8",
    )
    return tmp_path


def test_the_plan_is_what_changed_and_what_follows_from_it(pipeline):
    del pipeline
    assert repro.plan() == (3, ["first", "second", "third"])


RUN = "from tools import repro; repro.run(); print('went well')"


def started(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-c", RUN],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def sleeps(process):
    try:
        return process.name() == "sleep"
    except psutil.NoSuchProcess:  # it has ended meanwhile
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing_behind(number, pipeline):
    with started(pipeline) as process:
        found, deadline = [], time.monotonic() + 60
        while not any(map(sleeps, found)):
            assert time.monotonic() < deadline
            found = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.02)
        # Ctrl-C goes to the whole group.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert psutil.wait_procs(found, timeout=30)[1] == []


def test_a_failure_of_a_stage_is_one_of_the_whole(pipeline):
    (pipeline / "dvc.yaml").write_text("stages: {third: {cmd: exit 3}}\n", encoding="utf-8")
    with started(pipeline) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 255  # that of DVC
    assert "failed to run: exit 3" in out
    assert "went well" not in out
    assert "Traceback" not in out
