"""`make` makes or mends .venv, whatever is wrong in it. A stub for uv installs next to nothing."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from tools import setup

# Makes a real environment of the standard library, and puts a `dvc` into it instead of packages.
UV = f"""#!/bin/sh
echo "$1" >> uv.log
for last; do :; done
[ $1 = venv ] && exec {sys.executable} -I -m venv --without-pip "$last"
[ -e slow ] && exec sleep 60
for each in .venv/lib/python*; do mkdir -p "$each/site-packages/dvc-3.dist-info"; done
printf '#!/bin/sh\\nexec "%s" "%s"\\n' "$PWD/.venv/bin/python" "$PWD/dvc.py" > .venv/bin/dvc
chmod +x .venv/bin/dvc
"""
DVC = "import os, subprocess; subprocess.run(['sh', '-c', 'command -v python; env'], check=True)"
# In the place of the tools: what they find in the environment.
TOOLS = "import os; open('tools.log', 'w').write(' '.join(n for n in os.environ if 'PYTHON' in n))"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with a Makefile, and a path with a stub for uv; it is made the working folder."""
    folder, stubs = tmp_path / "a project", tmp_path / "stubs"
    (folder / "tools").mkdir(parents=True)
    stubs.mkdir()
    for name in ("Makefile", "tools/setup.py"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "requirements.lock").write_text("dvc==3\n")
    (folder / "dvc.py").write_text(DVC)
    (folder / "tools/__main__.py").write_text(TOOLS)
    (stubs / "uv").write_text(UV)
    (stubs / "uv").chmod(0o755)
    (stubs / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{stubs}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for name in ("MAKEFLAGS", "MAKELEVEL", "PYTHON"):  # of the make that runs the tests
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    return folder


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], check=False, capture_output=True, text=True)


def set_up(*, says: str, calls: list[str]) -> None:
    """Make it, with a reason and calls of uv; a second time nothing is done or said."""
    Path("uv.log").unlink(missing_ok=True)
    done = make(".venv/ready")
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert Path("uv.log").read_text().split() == calls
    again = make(".venv/ready")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert Path("uv.log").read_text().split() == calls
    assert subprocess.run([".venv/bin/dvc"], check=False, capture_output=True).returncode == 0


def move(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    os.chdir(folder.with_name("moved"))


def lose_python(_: Path) -> None:
    for link in Path(".venv/bin").glob("python*"):
        link.unlink()
        link.symlink_to("/nowhere/python3")


def keep_only_ready(_: Path) -> None:
    text = Path(".venv/ready").read_bytes()
    shutil.rmtree(".venv")
    Path(".venv").mkdir()
    Path(".venv/ready").write_bytes(text)


def change_python(_: Path) -> None:
    path = Path(".venv/ready")
    path.write_text(path.read_text().replace('"python": "3 ', '"python": "2 '))


def link_to_nothing(folder: Path) -> None:
    shutil.rmtree(".venv")
    Path(".venv").symlink_to(folder.parent / "large disk/venv")


DAMAGES = {
    ".venv is missing": lambda _: shutil.rmtree(".venv"),
    ".venv is from another folder": move,
    "the Python in .venv does not start": lose_python,
    "the Python in .venv does not start:": keep_only_ready,
    "the Python of .venv has changed": change_python,
    ".venv lacks bin/dvc": lambda _: Path(".venv/bin/dvc").unlink(),
    ".venv is unfinished": lambda _: Path(".venv/unfinished").touch(),
    ".venv is missing:": link_to_nothing,
}


@pytest.mark.usefixtures("project")
def test_what_is_broken_is_made_anew_however_it_broke():
    set_up(says=".venv is missing: setting it up", calls=["venv", "pip"])
    for says, damage in DAMAGES.items():
        damage(Path.cwd())
        set_up(says=says, calls=["venv", "pip"])


def test_what_is_whole_is_kept_where_the_lock_changed_or_hands_made_it(project):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], check=True)
    kept = Path(".venv/kept")
    kept.touch()
    says = ".venv is not what requirements.lock lists: setting it up"
    set_up(says=says, calls=["pip"])
    Path("requirements.lock").write_text("dvc==4\n")
    set_up(says=says, calls=["pip"])
    (package,) = Path(".venv").glob("lib/python*/site-packages/dvc-3.dist-info")
    package.rename(package.with_name("dvc-2.dist-info"))  # a package was exchanged by hand
    Path(".venv/bin/dvc").unlink()
    set_up(says=says, calls=["pip"])
    assert kept.exists()
    move(project)  # a link from elsewhere to the same environment breaks none
    Path(".venv").rename("../venv")
    Path(".venv").symlink_to("../venv")
    set_up(says=".venv is from another folder", calls=["venv", "pip"])
    assert Path(".venv").is_symlink()
    assert not kept.exists()


@pytest.mark.usefixtures("project")
def test_another_python_that_is_named_replaces_the_one_there(monkeypatch):
    set_up(says=".venv is missing", calls=["venv", "pip"])
    assert make(".venv/ready", "PYTHON=python3").stdout == ""  # it is the same
    assert setup.find_fault(asked=True) is None
    monkeypatch.setattr(sys, "version", "3.99.0")
    assert setup.find_fault(asked=False) is None
    assert setup.find_fault(asked=True) == f".venv has another Python than {sys.executable}"


@pytest.mark.usefixtures("project")
def test_what_cannot_be_mended_is_said_and_stays():
    done = make(".venv/ready", "PYTHON=python-that-is-none")
    assert done.returncode == 2
    assert "error: there is no python-that-is-none: name a Python as in" in done.stderr
    Path(".venv").write_text("of another program")
    done = make(".venv/ready")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: .venv is a file, and a folder of this name is needed: move it"
    )
    assert Path(".venv").read_text() == "of another program"


@pytest.mark.usefixtures("project")
def test_an_old_python_is_refused_only_where_it_would_be_used(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    with pytest.raises(SystemExit, match=r"^error: \.venv is missing, and isoparam needs Python 3"):
        setup.main()
    assert not Path(".venv").exists()
    set_up(says=".venv is missing", calls=["venv", "pip"])
    setup.main()


def test_variables_for_other_pythons_do_not_leak_in(project, monkeypatch):
    (project.parent / "json.py").write_text("raise SystemExit('the wrong module')")
    for name, value in {
        "PYTHONPATH": str(project.parent),
        "PYTHONHOME": "/nowhere",
        "PYTHONSAFEPATH": "1",
        "PYTHONWARNINGS": "error",
    }.items():
        monkeypatch.setenv(name, value)
    done = make(".venv/ready")
    assert done.returncode == 0, done.stderr
    assert Path("tools.log").read_text() == ""


def test_dvc_by_its_full_path_finds_the_python_of_its_stages(project, monkeypatch):
    set_up(says=".venv is missing", calls=["venv", "pip"])
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.chdir("/")
    out = subprocess.run([project / ".venv/bin/dvc"], check=True, capture_output=True).stdout
    python, *environment = out.decode().splitlines()
    assert python == str(project / ".venv/bin/python")
    assert not {line.partition("=")[0] for line in environment} & {"PYTHONSAFEPATH", "PYTHONPATH"}


def test_a_shell_with_a_safe_path_finds_the_tools(project, monkeypatch):
    """Where .venv is activated, `python -m tools` is the documented way."""
    set_up(says=".venv is missing", calls=["venv", "pip"])
    (project / "mine.py").write_text("print('found')")
    python = [project / ".venv/bin/python"]
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    assert subprocess.check_output([*python, "-m", "mine"]) == b"found\n"
    assert subprocess.run(
        [*python, "-I", "-m", "mine"], check=False, capture_output=True
    ).returncode


@pytest.mark.usefixtures("project")
def test_what_comes_from_a_zip_says_what_to_do_before_it_downloads_anything():
    for goal in ("demo", "test", "verify", "accept"):
        done = make(goal)
        assert done.returncode == 2
        assert done.stderr.startswith("error: this folder is not a git repository, and git ")
        assert "run `git init` here\n" in done.stderr
    assert not Path(".venv").exists()
    subprocess.run(["git", "init", "--quiet"], check=True)
    assert make("repository").returncode == 0


def sleeping_below(pid):
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it may have ended meanwhile
            if child.name() == "sleep":
                yield child


@pytest.mark.usefixtures("project")
def test_a_signal_ends_all_and_the_next_set_up_begins_anew():
    Path("slow").touch()
    with subprocess.Popen(["make", ".venv/ready"], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (left := [*sleeping_below(process.pid)]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
    assert psutil.wait_procs(left, timeout=30)[1] == []
    assert not Path(".venv/ready").exists()
    Path("slow").unlink()
    set_up(says=".venv is unfinished", calls=["venv", "pip"])


def test_pip_says_how_far_it_is_and_its_failure_is_one(project, monkeypatch, capsys):
    pip = project / "pip"
    pip.write_text(
        "#!/bin/sh\necho Collecting dvc\necho '  Downloading dvc'\necho Collecting torch\n"
        "echo Installing collected packages: dvc, torch\nexit $(cat status)\n"
    )
    pip.chmod(0o755)
    Path("status").write_text("0")
    monkeypatch.setattr(setup, "PYTHON", pip)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    setup.install()
    assert capsys.readouterr().out == "\r2 packages are here, and are installed now\n"
    Path("status").write_text("1")
    monkeypatch.setattr(setup, "ask", lambda _: "")
    with pytest.raises(subprocess.CalledProcessError):
        setup.install()
