"""A command ends with its parent under DVC, and outlives it elsewhere."""

import subprocess
import sys
import threading
import time

import psutil
import pytest
from conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel does this")

# Says that it has begun, and ends well when its parent has left.
COMMAND = f"""
import os
import sys
import time
from pathlib import Path

sys.path.append({str(ROOT)!r})
from pipeline import commands

commands.die_with_parent()
Path("begun.tmp").write_text(f"{{os.getpid()}}")
Path("begun.tmp").rename("begun")
while not Path("left").exists():
    time.sleep(0.01)
Path("done").touch()
"""


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def by_hand(monkeypatch):
    monkeypatch.delenv("DVC_STAGE", raising=False)


def start_by_a_shell_that_leaves(folder):
    """The process of the command, and the shell's has ended."""
    script = '"$@" & while ! [ -e begun ]; do sleep 0.02; done'
    command = ["sh", "-c", script, "sh", "nohup", sys.executable, "-c", COMMAND]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return psutil.Process(int((folder / "begun").read_text()))


@pytest.mark.usefixtures("by_hand")
def test_a_command_outlives_the_shell_that_started_it(tmp_path):
    start_by_a_shell_that_leaves(tmp_path)
    (tmp_path / "left").touch()
    wait_for((tmp_path / "done").exists)


@pytest.mark.usefixtures("by_hand")
def test_a_command_outlives_the_thread_that_started_it(tmp_path):
    started = []

    def start() -> None:
        started.append(subprocess.Popen([sys.executable, "-c", COMMAND], cwd=tmp_path))
        wait_for((tmp_path / "begun").exists)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    (tmp_path / "left").touch()
    assert started[0].wait(60) == 0


def test_under_dvc_a_command_ends_with_its_parent(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "train@L3")
    command = start_by_a_shell_that_leaves(tmp_path)
    command.wait(60)
    assert not (tmp_path / "done").exists()
