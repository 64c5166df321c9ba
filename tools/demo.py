"""The study on scikit-learn's digits in a copy of the project, with two branches to compare.

It needs no network and takes some minutes.
"""

import os
import shutil
import subprocess
import sys
import time
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import files, parameters
from tools import setup, widths

# Few and small images need a small network and more epochs.
CHANGES: dict[tuple[str, ...], Any] = {
    ("data", "dataset"): "digits",
    ("budget",): 9610,  # one hidden layer of 128
    ("seeds",): [0, 1, 2],
    ("train", "epochs"): 20,
    ("train", "batch_size"): 32,
}
LEARNING_RATE = 0.02

# The branch to compare with `main` has this network, which is off the budget.
BRANCH, WIDER = "wider", ("L2", 200)

# This file is written at the end: later changes are the user's.
FINISHED = Path(".git/finished")
IDENTITY = "demo@localhost"

# In a hook, git names the repository of the project by these variables.
REPOSITORY = "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"

README = """# A study to play with

This is a copy of isoparam, with a git history of its own, in which the study ran on 1,797 digits of
8 by 8 pixels. All results are on one page: report/index.html. The commands below assume

```console
$ cd {folder}
$ . {activate}
```

**Compare two branches.** On `wider` the network {model} has {width} units a layer, more than the
budget allows. Both branches are committed; the page is dvc_plots/index.html and needs no network.

```console
$ dvc plots diff main {branch}
$ dvc metrics diff main {branch}
$ git switch {branch} && dvc checkout    # back: git switch main && dvc checkout
```

**Change something.** Edit params.yaml, such as the width of L3, and see what it affects. Only L3 is
trained again, and the figure is drawn again.

```console
$ dvc status
$ dvc repro
$ dvc metrics diff
```

**Try many things.** DVC records each run as an experiment; nothing is committed.

```console
$ dvc exp run --set-param train.epochs=40 --name longer
$ dvc exp show --only-changed
```

`make demo` in the project replaces this folder, unless it has changes or commits of yours.
"""


def main(
    folder: Annotated[
        Path, typer.Argument(help="Where the copy goes; an earlier demo there is replaced.")
    ] = Path("demo"),
    *,
    run: Annotated[bool, typer.Option(help="Run the pipeline in the copy.")] = True,
) -> None:
    """Copy the project to FOLDER, switch it to the digits and run `dvc repro` there.

    Results are committed in two branches, `main` and `wider`, and are on a page,
    report/index.html in FOLDER. A demo with changes or commits of yours is not replaced.
    """
    for name in REPOSITORY:
        os.environ.pop(name, None)
    setup.require_repository()
    if folder.exists():
        _check_replaceable(folder)
        shutil.rmtree(folder)
    make(folder, CHANGES, LEARNING_RATE)
    if run:
        begin = time.monotonic()
        print(f"The study on small digits, in {folder}, and then a branch to compare it with.")
        run_study(folder)
        print(f"\n{folder} is ready after {(time.monotonic() - begin) / 60:.1f} minutes.")
        print(f"Open {folder / 'report/index.html'}, one page with all results.")
        dvc = Path(sys.prefix, "bin/dvc").absolute()
        print(f"Compare two branches: cd {folder} && {dvc} plots diff main {BRANCH}")
        print(f"{folder / 'README.md'} says what else to try.")


def _check_replaceable(folder: Path) -> None:
    """Refuse a folder that is no demo, or that the user changed since it was made."""
    if not (folder / ".demo").exists():
        raise ValueError(f"{folder} exists and is not an earlier demo: name another folder")
    if not (folder / FINISHED).exists():
        return
    changes, authors = (
        subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True).stdout
        for arguments in (("status", "--porcelain"), ("log", "--all", "--format=%ae"))
    )
    if changes or set(authors.decode().split()) != {IDENTITY}:
        raise ValueError(
            f"{folder} has changes or commits of yours: name another folder, as in "
            f"`python -m tools demo {folder}2`, or remove it first"
        )


def run_study(folder: Path) -> None:
    """Run the pipeline in the copy, commit its results in two branches, and make the page."""
    from tools import environment, plots_page, report, repro

    activate = Path(sys.prefix, "bin/activate").absolute()
    with chdir(folder):
        repro.run()
        files.write_json(environment.ENVIRONMENT, environment.environment())
        model, width = WIDER
        names = {"folder": Path.cwd(), "activate": activate, "model": model, "width": width}
        files.write(Path("README.md"), README.format(branch=BRANCH, **names))
        commit(Path(), "The study on digits")
        call(Path(), "git", "switch", "--quiet", "--create", BRANCH)
        with parameters.edited_params() as document:
            document["models"][model]["width"] = width
        repro.run()
        commit(Path(), f"{model} of {width} units")
        call(Path(), "git", "switch", "--quiet", "main")
        call(Path(), sys.executable, "-m", "dvc", "checkout", "--quiet")
        plots_page.main()
        report.main()
        FINISHED.touch()


def make(folder: Path, changes: dict[tuple[str, ...], Any], learning_rate: float) -> None:
    """Copy the project, change its parameters, fit the widths to the budget, and commit it."""
    copy(folder)
    edit(folder, changes, learning_rate)
    with chdir(folder), redirect_stdout(StringIO()):  # its table is no news
        widths.main(write=True)
    call(folder, "git", "init", "--quiet", "--initial-branch=main")
    commit(folder, "start")


def commit(folder: Path, message: str) -> None:
    """Commit all that is there, whatever the user's settings say of signatures and hooks."""
    identity = "-c", "user.name=demo", "-c", f"user.email={IDENTITY}"
    plain = "-c", "commit.gpgsign=false", "-c", f"core.hooksPath={os.devnull}"
    call(folder, "git", "add", "--all")
    call(folder, "git", *identity, *plain, "commit", "--quiet", "--message", message)


def copy(folder: Path) -> None:
    """Copy what git tracks or would track, without the record of the study on MNIST."""
    command = "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"
    listed = subprocess.run(command, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        source, target = Path(name), folder / name
        recorded = source.parts[0] in {"metrics", "plots", "tuning"} or source.name == "dvc.lock"
        if source.is_file() and (not recorded or source.name == "dvc.yaml"):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    (folder / ".demo").touch()


def edit(folder: Path, changes: dict[tuple[str, ...], Any], learning_rate: float) -> None:
    """Change values of the params.yaml in a folder, and the learning rate of all models."""
    with parameters.edited_params(folder / parameters.PARAMETERS) as document:
        for (*path, key), value in changes.items():
            section = document
            for part in path:
                section = section[part]
            section[key] = value
        rates = [f"{name}: {learning_rate}\n" for name in document["models"]]
    files.write(folder / parameters.LEARNING_RATES, "".join(rates))


def call(folder: Path, *command: str) -> None:
    """Run a command in the folder, with this interpreter as its `python`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path}, check=True)
