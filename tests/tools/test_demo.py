"""The demo: what is committed, on which branches, and what of the user's it never replaces."""

import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, Project, slow

from isoparam.network import bits
from tools import demo, environment, plots_page, report, repro

PARAMS = "params.yaml"
PLAYED = Path("demo", PARAMS)


def git(*arguments: str, folder: Path = Path("demo")) -> list[str]:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()


@pytest.fixture
def mother(tmp_path, monkeypatch):
    """A small project, its commands without the stages, in whose folder the test works."""
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet", folder=tmp_path)
    for name in ("params.yaml", "learning_rates.yaml", ".gitignore"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/summary.json").write_text("of MNIST")
    # As in a hook, and with settings that would stop commits.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / ".git/index"))
    (tmp_path / "gitconfig").write_text(
        "[commit]\n gpgsign = true\n[core]\n hooksPath = /nowhere\n[gpg]\n program = false\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))

    def run() -> None:
        Path("metrics").mkdir(exist_ok=True)
        Path("metrics/summary.json").write_text(Path("params.yaml").read_text().upper())

    calls = demo.call
    monkeypatch.setattr(repro, "run", run)
    monkeypatch.setattr(report, "main", lambda: Path("report").mkdir())
    monkeypatch.setattr(plots_page, "main", lambda: None)
    monkeypatch.setattr(environment, "environment", lambda: {"machine": "of the demo"})
    monkeypatch.setattr(
        demo, "call", lambda folder, *command: "dvc" in command or calls(folder, *command)
    )
    return tmp_path


def test_results_are_committed_in_two_branches_and_the_project_is_left_alone(mother, capsys):
    before = sorted(mother.rglob("*"))
    demo.main()
    after = sorted(path for path in mother.rglob("*") if mother / "demo" not in path.parents)
    assert [path for path in after if path not in before] == [mother / "demo"]
    assert sorted(git("log", "--all", "--format=%D: %s")) == [
        ": start",
        "HEAD -> main: The study on digits",
        "wider: L2 of 200 units",
    ]
    assert git("status", "--porcelain") == []
    assert git("diff", "--name-only", "main~", "main", "--", "metrics") == ["metrics/summary.json"]
    (changed,) = [
        line for line in git("diff", "-U0", "main", "wider", "--", PARAMS) if line.startswith("+  ")
    ]
    assert changed == "+  L2: {depth: 2, width: 200}"
    out = capsys.readouterr().out
    assert "Open demo/report/index.html, one page with all results." in out
    assert f"cd demo && {Path(sys.prefix, 'bin/dvc').absolute()} plots diff main wider" in out
    text = Path("demo/README.md").read_text()
    assert "$ dvc plots diff main wider" in text
    assert f"$ cd {mother / 'demo'}\n" in text


def test_what_is_not_its_own_is_never_replaced(mother):
    demo.main()
    demo.main()  # one that was left alone is made anew
    PLAYED.write_text(PLAYED.read_text() + "# mine\n")
    with pytest.raises(ValueError, match=r"^demo has changes or commits of yours: name another"):
        demo.main()
    assert PLAYED.read_text().endswith("# mine\n")
    options = ("-c", "user.name=me", "-c", "user.email=me@localhost", "-c", "commit.gpgsign=false")
    git("switch", "--quiet", "--create", "mine")
    git(*options, "commit", "--quiet", "--all", "--message", "mine")
    git("switch", "--quiet", "main")
    with pytest.raises(ValueError, match=r"^demo has changes or commits of yours: "):
        demo.main()
    assert git("log", "-1", "--format=%s", "mine") == ["mine"]
    (mother / "photos").mkdir()
    with pytest.raises(ValueError, match=r"^photos exists and is not an earlier demo"):
        demo.main(Path("photos"))
    demo.main(Path("another"))


def test_one_that_was_interrupted_is_made_anew(mother, monkeypatch):
    del mother
    run = repro.run
    monkeypatch.setattr(repro, "run", lambda: sys.exit(143))
    with pytest.raises(SystemExit):
        demo.main()
    monkeypatch.setattr(repro, "run", run)
    PLAYED.write_text("half-written")
    demo.main()
    assert git("status", "--porcelain") == []


def test_from_a_zip_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(
        SystemExit, match=r"^error: this folder is not a git repository, .* `git init`"
    ):
        demo.main()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
@slow
def played(digits, tmp_path) -> Project:
    """The demo after its first run, which is that of the tests."""
    project = Project(tmp_path / "demo")
    shutil.copytree(digits.folder, project.folder, symlinks=True)
    project.run(
        "python", "-c", "from tools import demo; demo.run_study(demo.Path())", **bits.STRICT
    )
    return project


def test_its_branches_are_compared_offline_as_its_readme_says(played):
    text = (played.folder / "README.md").read_text(encoding="utf-8")
    commands = [line[2:].partition("  #")[0] for line in text.splitlines() if line.startswith("$ ")]
    for command in commands[2:5]:  # the first two go there
        played.run("sh", "-c", command)
    played.run("git", "switch", "--quiet", "main")
    played.run("dvc", "checkout")
    page = (played.folder / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert '"rev": "main"' in page
    titles = re.findall(r"([\w ]+) \(mean, 95 % interval\)", page)
    assert titles[0] == "Accuracy against depth"
    assert len(set(titles)) > 1
    assert '"rev": "wider"' in page
    assert "<script src" not in page
    assert "L2" in played.run("dvc", "metrics", "diff", "main", "wider")
    assert "Data and pipelines are up to date" in played.run("dvc", "repro")
    assert (played.folder / "report/index.html").exists()
    assert played.run("git", "status", "--porcelain") == ""


def stages_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes of a stage that runs below another one."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):  # it ended meanwhile
            found += [child] if any("stages." in part for part in child.cmdline()) else []
    return found


@pytest.fixture
@slow
def begun(tmp_path):
    """A demo whose first stages run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tools", "demo", str(tmp_path / "demo")],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield process
    process.kill()
    process.wait()


def test_a_signal_ends_the_demo_and_its_stage(begun):
    deadline = time.monotonic() + 600
    while not (found := stages_of(begun)):
        assert begun.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    begun.send_signal(signal.SIGTERM)
    assert begun.wait(60) == 128 + signal.SIGTERM
    assert psutil.wait_procs(found, timeout=30)[1] == []
