"""Jobs side by side: their order, parts, errors, and nothing left when something ends early."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline import processes

ROOT = Path(__file__).parents[2]  # not from conftest, which each process would import


def run_all(work, jobs, workers=2, advance=lambda _: None):
    return processes.run_all(work, jobs, workers=workers, advance=advance, preload=[__name__])


def double(number, report):
    report(f"{number}")
    return 2 * number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs(workers):
    texts = []
    assert run_all(double, [3, 1, 2], workers, texts.append) == [6, 2, 4]
    assert sorted(texts) == ["1", "2", "3"]


def test_no_job_is_an_error():
    with pytest.raises(ValueError, match=r"^there is nothing to do: the list of jobs is empty$"):
        run_all(double, [])


class OddError(ValueError):
    """An error that cannot be unpickled, as some of libraries."""

    def __init__(self, number, _) -> None:
        super().__init__(f"no {number}")


def fail(number, _):
    raise OddError(number, "what pickle does not know of")


def find_no_file(name, _):
    return Path(name).read_text()


def ask_for_too_much(_, __):
    import torch

    return torch.empty(1 << 60, dtype=torch.uint8)


def ask_python_for_too_much(_, __):
    return bytes(1 << 60)


def stumble(_, __):
    raise LookupError("a mistake in the code")


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (fail, ValueError, "^no 1$"),
        (find_no_file, FileNotFoundError, "No such file"),
        (ask_for_too_much, ValueError, "not enough memory .*: lower the width"),
        (ask_python_for_too_much, ValueError, "not enough memory .*: lower the width"),
        (
            stumble,
            RuntimeError,
            "(?s)Traceback.* in stumble\n.*LookupError: a mistake in the",
        ),
    ],
)
def test_an_error_of_a_job_is_raised_and_a_mistake_in_the_code_keeps_its_traceback(
    work, error, message, tmp_path
):
    with pytest.raises(error, match=message) as caught:
        run_all(work, [str(tmp_path / "none") if work is find_no_file else 1])
    assert caught.type is error


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
    assert run_all(count_down, jobs, workers, texts.append) == ["a", "b", "c"]
    assert sorted(texts) == sorted("abc" * 3)
    if workers == 1:  # parts in turn, so that all jobs end at about the same time
        assert texts == list("abc" * 3)


LONG_SECONDS = 600


def wait_long(path, report):
    path.touch()
    report(f"{os.getpid()}")
    time.sleep(LONG_SECONDS)


def report_for_long(path, report):
    """So much that the pipe is full and the process waits within a report."""
    path.touch()
    until = time.monotonic() + LONG_SECONDS
    while time.monotonic() < until:
        report(f"{os.getpid()}")


def fail_beside_others(path, report):
    """The job `fail` raises an error when another is at work; the others take long."""
    if path.name != "fail":
        wait_long(path, report)
    while not list(path.parent.iterdir()):
        time.sleep(0.01)
    report("fail")
    raise ValueError("no luck")


def workers_left():
    """The children of the fork server, which is a child of this process, as a browser may be."""
    mine = psutil.Process().children()
    return [c for p in mine if "forkserver" in " ".join(p.cmdline()) for c in p.children()]


@pytest.mark.parametrize("work", [wait_long, report_for_long])
@pytest.mark.parametrize("which", [min, max])  # the process that was started first, or last
def test_the_death_of_a_process_is_raised_at_once(work, which, tmp_path):
    pids, killed = set(), []

    def advance(text) -> None:
        pids.add(int(text))
        if len(pids) == 2 and not killed:
            os.kill(which(pids), signal.SIGKILL)
            killed.append(time.monotonic())
        time.sleep(0.01)

    with pytest.raises(ValueError, match=r"^a training process was killed; was there enough mem"):
        run_all(work, [tmp_path / "a", tmp_path / "b"], advance=advance)
    assert time.monotonic() - killed[0] < 5
    assert not workers_left()


@pytest.mark.parametrize("names", [["fail", "a"], ["a", "fail"]])
def test_the_error_of_a_job_is_raised_at_once(names, tmp_path):
    failed = []

    def advance(text) -> None:
        if text == "fail":
            failed.append(time.monotonic())

    with pytest.raises(ValueError, match=r"^no luck$"):
        run_all(fail_beside_others, [tmp_path / name for name in names], advance=advance)
    assert time.monotonic() - failed[0] < 5
    assert not workers_left()


STAGE = f"""
import sys
from pathlib import Path

sys.path.append({str(ROOT)!r})
from pipeline import commands, processes
from tests.pipeline.test_processes import report_for_long, wait_long


def main(work: str, folder: Path) -> None:
    jobs = [folder / "a", folder / "b"]
    processes.run_all(
        globals()[work],
        jobs,
        workers=2,
        advance=lambda _: None,
        preload=["tests.pipeline.test_processes"],
    )


if __name__ == "__main__":
    commands.run(main)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="env does this on Linux")
@pytest.mark.parametrize(
    ("work", "how"),
    [
        (wait_long, signal.SIGKILL),
        (report_for_long, signal.SIGKILL),
        (wait_long, signal.SIGTERM),
        (wait_long, signal.SIGINT),
        (report_for_long, signal.SIGINT),
    ],
)
def test_no_process_outlives_its_stage(tmp_path, work, how):
    script = tmp_path / "stage.py"
    script.write_text(STAGE)
    (folder := tmp_path / "jobs").mkdir()
    stage = subprocess.Popen(
        # A background job ignores Ctrl-C, and so does all that it starts.
        ["env", "--default-signal=INT", sys.executable, script, work.__name__, folder],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while len(list(folder.iterdir())) < 2:
            assert stage.poll() is None, stage.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        family = psutil.Process(stage.pid).children(recursive=True)
        assert len(family) >= 3  # both and the fork server
        if how == signal.SIGINT:  # a terminal sends it to all of them
            os.killpg(stage.pid, how)
        else:
            stage.send_signal(how)
        _, errors = stage.communicate(timeout=30)
    finally:
        stage.kill()
        stage.wait()  # else the warning of it fails another test
    assert stage.returncode != 0
    assert not errors.strip()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
