"""Jobs side by side: their order, parts, errors, and nothing left when the stage is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from pipeline import processes


def double(number, report):
    report(f"{number}")
    return 2 * number


def fail(number, report):
    report(f"{number}")
    raise ValueError(f"no {number}")


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs(workers):
    texts = []
    results = processes.run_all(
        double, [3, 1, 2], workers=workers, advance=texts.append, preload=[]
    )
    assert results == [6, 2, 4]
    assert sorted(texts) == ["1", "2", "3"]


def test_an_error_of_a_job_is_raised():
    with pytest.raises(ValueError, match="no 1"):
        processes.run_all(fail, [1], workers=1, advance=lambda _: None, preload=[])


def ask_for_too_much(_, report):
    import torch

    return report("") or torch.empty(1 << 60, dtype=torch.uint8)


def stumble(_, report):
    raise RuntimeError(report("") or "a mistake in the code")


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (ask_for_too_much, ValueError, "not enough memory .*: lower the width"),
        (stumble, RuntimeError, "a mistake in the code"),
    ],
)
def test_too_little_memory_is_told_and_mistakes_in_the_code_are_not_taken_for_it(
    work, error, message
):
    with pytest.raises(error, match=message):
        processes.run_all(work, [1], workers=1, advance=lambda _: None, preload=[])


def count_down(path, report):
    """Three parts, which share a file."""
    left = int(path.read_text()) - 1
    path.write_text(str(left))
    report(path.name)
    return None if left else path.name


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_in_parts_is_called_until_it_has_a_result(tmp_path, workers):
    jobs = [tmp_path / name for name in ("a", "b", "c")]
    for job in jobs:
        job.write_text("3")
    texts = []
    results = processes.run_all(count_down, jobs, workers=workers, advance=texts.append, preload=[])
    assert results == ["a", "b", "c"]
    assert sorted(texts) == sorted("abc" * 3)
    if workers == 1:  # parts in turn, so that all jobs end at about the same time
        assert texts == list("abc" * 3)


def wait_for_ever(path, _):
    Path(f"{path}.{os.getpid()}").touch()
    time.sleep(600)


def report_for_ever(path, report):
    """So much that the pipe is full and the process waits within a report, where it is ended."""
    Path(f"{path}.{os.getpid()}").touch()
    while True:
        report("x" * 1000)


def slowly(_):
    time.sleep(0.03)


@pytest.mark.skipif(sys.platform != "linux", reason="env does this on Linux")
@pytest.mark.parametrize(
    ("work", "how"),
    [
        ("wait_for_ever", signal.SIGKILL),
        ("wait_for_ever", signal.SIGTERM),
        ("wait_for_ever", signal.SIGINT),
        ("report_for_ever", signal.SIGINT),
        ("report_for_ever", "kill the first worker"),
    ],
)
def test_no_process_outlives_its_stage(tmp_path, work, how):
    code = (
        "import test_processes as t; "
        f"t.processes.run_all(t.{work}, [r'{tmp_path}/x', r'{tmp_path}/y'], workers=2, "
        "advance=t.slowly, preload=[])"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    stage = subprocess.Popen(
        # A background job ignores Ctrl-C, and so does all that it starts.
        ["env", "--default-signal=INT", sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2:
            assert stage.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1 if work == "report_for_ever" else 0)
        family = psutil.Process(stage.pid).children(recursive=True)
        assert len(family) >= 2
        if how == "kill the first worker":
            os.kill(min(int(path.suffix[1:]) for path in tmp_path.iterdir()), signal.SIGKILL)
        else:
            stage.send_signal(how)
        if how == signal.SIGINT:  # a terminal sends it to all of them
            for process in family:
                process.send_signal(how)
        assert stage.wait(30) != 0
    finally:
        stage.kill()
        stage.wait()  # else the warning of it fails another test
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
