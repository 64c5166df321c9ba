"""Commands: help, one sentence for an error, progress; when one ends with its parent."""

import importlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise

import psutil
import pytest
from conftest import ROOT

from pipeline import commands

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel does this")
STAGES = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")

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
    for name in ("DVC_STAGE", "MAKELEVEL"):
        monkeypatch.delenv(name, raising=False)


def start_by_a_shell_that_leaves(folder):
    """The process of the command, and the shell's has ended."""
    script = '"$@" & while ! [ -e begun ]; do sleep 0.02; done'
    command = ["sh", "-c", script, "sh", "nohup", sys.executable, "-c", COMMAND]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return psutil.Process(int((folder / "begun").read_text()))


@LINUX
@pytest.mark.usefixtures("by_hand")
def test_a_command_outlives_the_shell_that_started_it(tmp_path):
    start_by_a_shell_that_leaves(tmp_path)
    (tmp_path / "left").touch()
    wait_for((tmp_path / "done").exists)


@LINUX
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


@LINUX
@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize(("name", "value"), [("DVC_STAGE", "train@L3"), ("MAKELEVEL", "1")])
def test_under_dvc_and_make_a_command_ends_with_its_parent(name, value, tmp_path, monkeypatch):
    monkeypatch.setenv(name, value)
    command = start_by_a_shell_that_leaves(tmp_path)
    command.wait(60)
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize("total", [1, 2, 9, 10, 11, 25, 1_000])
def test_a_log_gets_a_line_for_each_tenth_at_most(total, capsys, monkeypatch):
    # A terminal is what rich takes them for.
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    with commands.progress("work", total, "items") as advance:
        for number in range(1, total + 1):
            advance(f"item {number}")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert len(lines) == min(total, 10)
    assert lines[-1] == f"work {total}/{total} items item {total}"
    assert all(re.fullmatch(rf"work \d+/{total} items item \d+", line) for line in lines)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a function as a command; its exit code, its output and its errors."""
    monkeypatch.setattr(commands, "die_with_parent", lambda: None)

    def command(main: Callable[..., None], *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        with pytest.raises(SystemExit) as caught:
            commands.run(main)
        return caught.value.code, *capsys.readouterr()

    return command


@pytest.mark.parametrize("name", STAGES)
def test_each_stage_explains_itself(name, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    main = importlib.import_module(f"stages.{name}").main
    code, out, err = run(main, "--help")
    plain = re.sub(r"\x1b\[[\d;]*m", "", out)
    assert (code, err) == (0, "")
    assert "Usage: " in plain
    assert main.__doc__.split("\n")[0] in re.sub(r"\s+", " ", plain)


@pytest.mark.parametrize("columns", [40, 60, 80, 100])
def test_an_explanation_fills_its_lines(columns, run, monkeypatch):
    def main() -> None:
        """Do it.

        This is a paragraph of two lines, of which the first is longer than some terminals are
        wide, so that it is broken; and a third one, with which
        the paragraph ends.
        """

    # rich and typer ask different ones.
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERMINAL_WIDTH", str(columns))
    _, out, _ = run(main, "--help")
    lines = [line.strip() for line in re.sub(r"\x1b\[[\d;]*m", "", out).splitlines()]
    lines = lines[lines.index("Do it.") + 2 :]
    lines = lines[: lines.index("")]
    assert lines[-1].endswith("ends.")
    for line, following in pairwise(lines):
        assert len(line) + 1 + len(following.split()[0]) > columns - 2


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (ValueError("one fault"), "error: one fault\n"),
        (ValueError("one fault\nanother"), "error: one fault\nanother\n"),
        (FileNotFoundError(2, "No such file", "name"), "error: name: No such file\n"),
    ],
)
def test_a_command_prints_the_sentence_and_fails(error, printed, run):
    def main() -> None:
        raise error

    assert run(main) == (1, "", printed)


def test_a_command_that_ends_well_says_nothing(run):
    assert run(lambda: None) == (0, "", "")


def test_a_mistake_in_the_code_is_not_taken_for_one_of_the_user(monkeypatch):
    def main() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(commands, "die_with_parent", lambda: None)
    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(ZeroDivisionError):
        commands.run(main)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["L1", "--workers", "0"], "--workers"), (["L1", "L2"], "L2"), ([], "NAME"), (["--x"], "--x")],
)
def test_arguments_that_are_none_are_refused(arguments, message, run):
    code, out, err = run(importlib.import_module("stages.train").main, *arguments)
    assert (code, out) == (2, "")
    assert message.lower() in err.lower()
    assert "Traceback" not in err


@pytest.mark.parametrize("module", ["tools.predict", "tools.findings", "pipeline.files"])
def test_a_module_that_is_no_command_says_so(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "photo.jpg"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {module} is no command: `python -m tools` lists the commands\n"
