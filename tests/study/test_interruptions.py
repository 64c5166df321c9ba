"""A study on digits, killed again and again at random moments: in the end nothing is lost.

`make` alone resumes after each kill, no process is left behind, and the results are those of
the undisturbed run to the byte. `make` is `tools mend` and `dvc repro`.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import Project

# What all processes of the run get: the last as from a terminal.
GROUP = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
WAYS = ["kill the stage", "kill dvc", *GROUP]
KILLS = 2 * len(WAYS)
# Long enough for most stages to end now and then, so that the kills fall on many of them.
LONGEST_SECONDS = 5.0


def of_the_project(folder):
    """The processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # it ended meanwhile, or is not ours
            continue
    return found


def stage_of(dvc):
    """The process of the stage that runs now, the newest child of a child's shell; or dvc."""
    children = psutil.Process(dvc.pid).children(recursive=True)
    stages = [process for process in children if "stages." in " ".join(process.cmdline())]
    return stages[0] if stages else psutil.Process(dvc.pid)


def end(dvc, how):
    """End a running `dvc repro` in one of the ways in which runs end before their time."""
    try:
        if how == "kill the stage":
            stage_of(dvc).kill()
        elif how == "kill dvc":
            dvc.kill()
        else:
            os.killpg(dvc.pid, GROUP[how])
    except (psutil.NoSuchProcess, ProcessLookupError):  # it was done already
        pass


def stop(dvc, how):
    """End it, again if it was between two processes; what it printed."""
    for _ in range(6):
        end(dvc, how)
        try:
            return dvc.communicate(timeout=10)[0]
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(f"dvc or a stage still runs after: {how}")


@pytest.mark.skipif(sys.platform != "linux", reason="psutil tells others' folders on Linux")
def test_a_study_that_is_killed_at_random_moments_ends_as_if_undisturbed(few, tmp_path):
    chance = random.Random(0)  # noqa: S311 (moments, not secrets)
    folder = tmp_path / "killed"
    few.run("git", "clone", "--quiet", str(few.folder), str(folder))
    project = Project(folder)
    # Small trainings are done before their first checkpoint: here each epoch leaves one.
    code = folder / "pipeline/trainings.py"
    text = code.read_text(encoding="utf-8")
    assert "PART_SECONDS = 2.0" in text
    code.write_text(text.replace("PART_SECONDS = 2.0", "PART_SECONDS = 0.0"), encoding="utf-8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    kills, output = 0, ""
    while True:
        project.run("python", "-m", "tools", "mend")  # as `make` does before `dvc repro`
        dvc = subprocess.Popen(
            # A background job ignores Ctrl-C, and so does all that it starts.
            ["env", "--default-signal=INT", "dvc", "repro"],
            cwd=folder,
            env=os.environ | {"PATH": path},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            seconds = chance.uniform(0.2, LONGEST_SECONDS) if kills < KILLS else 600
            output, _ = dvc.communicate(timeout=seconds)
            assert dvc.returncode == 0, output
            break
        except subprocess.TimeoutExpired:
            output = stop(dvc, WAYS[kills % len(WAYS)])
            kills += 1
        deadline = time.monotonic() + 30
        while left := of_the_project(folder):
            assert time.monotonic() < deadline, [process.cmdline() for process in left]
            time.sleep(0.1)
        assert "Unable to acquire lock" not in output
        assert "is busy" not in output
    assert kills >= len(WAYS), "the study was done before it could be disturbed"
    recorded = ("metrics", "plots", "models", "data")
    undisturbed, disturbed = few.content(*recorded), project.content(*recorded)
    assert set(disturbed) == set(undisturbed)
    assert [name for name in disturbed if disturbed[name] != undisturbed[name]] == []
    assert not list((folder / ".checkpoints").glob("*"))
