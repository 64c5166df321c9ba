"""The study on scikit-learn's digits, in a copy of the project: no network, a minute or two."""

import os
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import files, parameters
from tools import widths

# Small images and few of them want a small network and more epochs.
CHANGES: dict[tuple[str, ...], Any] = {
    ("data", "dataset"): "digits",
    ("budget",): 9610,  # one hidden layer of 128
    ("seeds",): [0, 1, 2],
    ("train", "epochs"): 20,
    ("train", "batch_size"): 32,
}
LEARNING_RATE = 0.02


def main(
    folder: Annotated[
        Path, typer.Argument(help="Where the copy goes; replaced if it exists.")
    ] = Path("demo"),
    *,
    run: Annotated[bool, typer.Option(help="Run the pipeline in the copy.")] = True,
) -> None:
    """Copy the project to FOLDER, switch it to the digits and run `dvc repro` there.

    All results are then on a page, report/index.html in FOLDER.
    """
    if folder.exists() and not (folder / ".demo").exists():
        raise ValueError(f"{folder} exists and is no earlier demo: name another folder")
    if folder.exists():
        shutil.rmtree(folder)
    make(folder, CHANGES, LEARNING_RATE)
    if run:
        from tools import environment, report

        call(folder, sys.executable, "-m", "dvc", "repro")
        with chdir(folder):
            files.write_json(environment.ENVIRONMENT, environment.environment())
            report.main()
        print(f"All of it is on one page, {folder / 'report/index.html'}.")


def make(folder: Path, changes: dict[tuple[str, ...], Any], learning_rate: float) -> None:
    """Copy the project, change its parameters, fit the widths to the budget, and commit it."""
    copy(folder)
    edit(folder, changes, learning_rate)
    with chdir(folder):
        widths.main(write=True)
    for command in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all"),
        ("-c", "user.name=demo", "-c", "user.email=demo@localhost", "commit", "-qm", "start"),
    ):
        call(folder, "git", *command)


def copy(folder: Path) -> None:
    """Copy what git tracks or would track, without the record of the study on MNIST."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    )
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
    try:
        subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path}, check=True)
    except subprocess.CalledProcessError as error:
        raise ValueError(f"`{' '.join(command)}` failed in {folder}") from error
