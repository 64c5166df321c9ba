"""Temporary names: two processes may write one file at once, and the dead leave nothing."""

import os
import subprocess
import sys
from pathlib import Path
from socket import gethostname

import pytest

from pipeline import files

ROOT = Path(__file__).parents[2]

# Begins to write a file and a folder, says so, and waits for a line before it has done.
WRITER = """
import sys
from pathlib import Path
from pipeline import files

with files.replacing(Path(sys.argv[1], "file")) as file:
    with files.replacing(Path(sys.argv[1], "folder")) as folder:
        folder.mkdir()
        for path in (file, folder / "file"):
            path.write_text("another's")
        print("begun", flush=True)
        input()
"""


@pytest.fixture
def writer(tmp_path):
    """Another process that is about to write the same."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begun\n"
        yield process
        process.kill()


def write(folder):
    with files.replacing(folder / "file") as partial:
        partial.write_text("ours")
    with files.replacing(folder / "folder") as partial:
        partial.mkdir()
        (partial / "file").write_text("ours")


def content(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_two_processes_may_write_the_same_at_once(writer, tmp_path):
    write(tmp_path)
    assert content(tmp_path).items() >= {"file": "ours", "folder/file": "ours"}.items()
    writer.communicate("\n", timeout=60)
    assert writer.returncode == 0
    assert content(tmp_path) == {"file": "another's", "folder/file": "another's"}


def test_what_a_dead_process_left_is_removed_by_the_next(writer, tmp_path):
    writer.kill()
    writer.wait()
    assert len(list(tmp_path.iterdir())) == 2
    # Of a host whose processes nobody here can see, and of this process's number in another life.
    elsewhere = tmp_path / f".file.elsewhere.{writer.pid}.partial"
    for path in (elsewhere, tmp_path / f".file.{gethostname()}.{os.getpid()}.partial"):
        path.touch()
    write(tmp_path)
    assert content(tmp_path) == {"file": "ours", "folder/file": "ours", elsewhere.name: ""}
