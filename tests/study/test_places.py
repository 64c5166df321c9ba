"""Places unlike others: converted line ends, a long name for temporary files, few open files."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from pipeline import commands
from tools import report, setup

# Three processes; a job is a text to report, and gives its length.
RUN = """
import sys
from pipeline import processes
try:
    print(processes.run_all(len_of, ["a", "bc", ""], workers=3, advance=print, preload=[]))
except ValueError as error:
    sys.exit(str(error))
"""


# /dev/shm of a command alone: read-only, and absent from a /dev with four devices.
READ_ONLY = 'mount -t tmpfs -o ro none /dev/shm; exec "$@"'
ABSENT = """
mkdir dev
for name in null zero random urandom; do touch dev/$name; mount --bind /dev/$name dev/$name; done
mount --bind dev /dev
exec "$@"
"""


def run_in(folder, temporary, wrapper=()):
    """Run jobs with 64 open files at most; the exit code and what is printed."""
    (folder / "jobs.py").write_text("def len_of(text, report):\n    return len(text)\n", "utf-8")
    code = f"from jobs import len_of\n{RUN}"
    done = subprocess.run(
        [*wrapper, "bash", "-c", 'ulimit -n 64; exec "$@"', "bash", sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"},
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_64_open_files_are_enough_for_three_processes(tmp_path):
    assert run_in(tmp_path, "/tmp") == (0, "[1, 2, 0]\n")  # noqa: S108


def test_a_folder_for_temporary_files_with_a_long_name_is_named(tmp_path):
    long = tmp_path / ("long" * 30)
    long.mkdir()
    code, told = run_in(tmp_path, long)
    assert code == 1
    assert told == (
        f"the folder for temporary files, {long}, has too long a name for a socket in it: set "
        "TMPDIR to one of at most 70 characters, such as /tmp\n"
    )


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs a namespace of mounts")
@pytest.mark.parametrize(("script", "there"), [(READ_ONLY, "drwx"), (ABSENT, "")])
def test_no_shared_memory_is_needed(tmp_path, script, there):
    wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"]
    look = [*wrapper, "sh", "-c", "ls -ld /dev/shm; ! touch /dev/shm/file"]
    (tmp_path / "look").mkdir()
    looked = subprocess.run(
        look, cwd=tmp_path / "look", capture_output=True, text=True, check=False
    )
    if looked.returncode:
        pytest.skip("needs the right to mount")
    assert looked.stdout[:4] == there
    assert run_in(tmp_path, tmp_path, wrapper) == (0, "[1, 2, 0]\n")


def test_a_clone_has_the_same_bytes_where_git_converts_line_ends(tmp_path):
    """Stages depend on them, and a script does not start with CRLF."""
    clone = tmp_path / "clone"
    command = ["git", "clone", "--quiet", "--config", "core.autocrlf=true", str(ROOT), str(clone)]
    subprocess.run(command, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "--eol"], cwd=clone, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert len(listed) > 200
    assert [line for line in listed if "w/crlf" in line or "w/mixed" in line] == []


@pytest.mark.parametrize(
    ("command", "path", "message"),
    [
        (["git", "log"], os.environ["PATH"], "`git log` failed: fatal: not a git repository"),
        (["git", "log"], "", "git is not installed"),
    ],
)
def test_a_command_that_needs_git_says_so_in_one_sentence(
    tmp_path, monkeypatch, capsys, command, path, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("LC_ALL", "C")

    def app() -> None:
        subprocess.run(command, check=True, capture_output=True, text=True)

    with pytest.raises(SystemExit):
        commands.run_application(app)
    told = capsys.readouterr().err
    assert told.startswith(f"error: {message}")
    assert told.count("\n") == 1


def test_the_page_is_made_without_git(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert report.commit() == "not in git"
    monkeypatch.setenv("PATH", "")
    assert report.commit() == "not in git, which is not installed"


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize("command", ["stages.evaluate L1", "tools export L1 L1.onnx"])
@pytest.mark.parametrize("kilobytes", [300_000, 1_200_000])
def test_too_little_memory_is_one_sentence(command, kilobytes):
    line = f"ulimit -v {kilobytes}; exec {sys.executable} -m {command}"
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"error: there is not enough memory \(.*\): lower .*\n", done.stderr)


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="only root gives it away")
def test_a_clone_of_another_user_says_what_to_do(tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    subprocess.run(["git", "init", "--quiet", str(clone)], check=True)
    for path in (clone, clone / ".git"):
        os.chown(path, 12345, 12345)
    monkeypatch.chdir(clone)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):  # which may trust all folders
        monkeypatch.setenv(name, os.devnull)
    with pytest.raises(SystemExit, match=r"^error: this folder is another user's, .*safe\.dir.*$"):
        setup.require_repository()
    assert report.commit() == "in git of another user, which is not read"
