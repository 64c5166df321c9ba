"""`make verify`: compares a run on this machine with the recorded one. It is no stage of DVC.

One model is trained from nothing, with all seeds, in a temporary folder: nothing in the project
changes. It is trained in strict mode, which gives the same bits on all x86-64 processors with AVX2:
the record has them too, since it was made with the settings of strict mode. `make accept`, in
tools/accept.py, is for changes of the code.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from isoparam.network import bits
from isoparam.results.statistics import estimate
from pipeline import commands, files, parameters
from tools.environment import ENVIRONMENT, differences, environment

ROOT = Path(__file__).parents[1]

IDENTICAL, EQUAL, DIFFERENT = "identical", "equal within the interval", "different"
NOT_COMPARABLE = "not comparable"


def main(
    name: Annotated[
        str | None,
        typer.Argument(
            help="The model to train, such as L3; by default the one with the fewest hidden "
            "layers, at least one.",
            show_default=False,
        ),
    ] = None,
    *,
    record_environment: Annotated[
        bool,
        typer.Option(
            "--record-environment",
            help=f"Do not verify; write {ENVIRONMENT} for the machine of a recorded run.",
        ),
    ] = False,
) -> None:
    """Train one model from nothing and compare it with the record."""
    if record_environment:
        files.write_json(ENVIRONMENT, environment())
        return
    models = parameters.read_params().models
    name = name or min(models, key=lambda n: (models[n].depth == 0, models[n].depth))
    parameters.find_model(models, name)
    recorded = recorded_outputs(f"train@{name}", f"evaluate@{name}")
    metrics = f"metrics/depths/{name}.json"
    if not matches(Path(), {metrics: recorded[metrics]}):
        raise ValueError(f"{metrics} differs from that of {files.LOCK}: run `dvc repro`")
    with TemporaryDirectory(prefix="isoparam-") as temporary:
        folder = Path(temporary)
        try:
            prepare(folder)
            train(folder, name, ROOT, **bits.STRICT)
        except ValueError as error:
            verdict, text = NOT_COMPARABLE, f"it was not trained: {error}"
        else:
            accuracies = [files.read_json(f / metrics)["test_accuracies"] for f in (Path(), folder)]
            verdict, text = compare_accuracies(*accuracies)
            if matches(folder, recorded):
                verdict, text = IDENTICAL, f"{text}, weights, histories and metrics to the last bit"
    print(f"{name}: {text}")
    if verdict != IDENTICAL:
        for reason in changes(name) + differences(files.read_json(ENVIRONMENT), environment()):
            print(f"possible reason: {reason}")
    print(f"verdict: {verdict}")
    if verdict in {DIFFERENT, NOT_COMPARABLE}:
        sys.exit(1)


def recorded_outputs(*stages: str) -> dict[str, str]:
    """MD5 by path of what stages wrote, by dvc.lock.

    Raises:
        ValueError: if dvc.lock has no run of them.
    """
    lock = YAML(typ="safe").load(files.LOCK)["stages"] if files.LOCK.exists() else {}
    if missing := [stage for stage in stages if stage not in lock]:
        raise ValueError(
            f"{files.LOCK} has no run of {missing[0]} to compare with: run `dvc repro`"
        )
    return {out["path"]: out["md5"] for stage in stages for out in lock[stage]["outs"]}


def matches(folder: Path, recorded: dict[str, str]) -> bool:
    """Whether files and folders are those of dvc.lock, byte for byte."""
    return all(files.md5_of(folder / path) == md5 for path, md5 in recorded.items())


def prepare(folder: Path, code: Path = ROOT, *, anew: bool = False) -> None:
    """Provide what a training reads: parameters and the split.

    Args:
        folder: an empty one, to train in.
        code: the project whose parameters and stages are used.
        anew: whether to make the split even if the recorded one is available.

    Raises:
        ValueError: if the split cannot be made, or would not be the recorded one.
    """
    for path in (parameters.PARAMETERS, parameters.LEARNING_RATES):
        shutil.copy(code / path, folder)
    recorded = recorded_outputs("split")
    if not anew and matches(Path(), recorded):
        (folder / "data").mkdir()
        (folder / "data/split").symlink_to(Path("data/split").resolve())
        return
    call(folder, code, "download")
    call(folder, code, "split")
    if not matches(folder, recorded):
        raise ValueError(f"the split would not be that of {files.LOCK}")


def train(folder: Path, name: str, code: Path, **settings: str) -> None:
    """Train and evaluate one model in a prepared folder, with settings of the environment."""
    call(folder, code, "train", name, **settings)
    call(folder, code, "evaluate", name, **settings)


def call(folder: Path, code: Path, stage: str, *arguments: str, **settings: str) -> None:
    """Run a stage of a project in another folder, which finds data as if it were in this one."""
    command = sys.executable, "-m", f"stages.{stage}", *arguments
    places = {"PYTHONPATH": str(code), "DVC_ROOT": str(Path.cwd())}
    variables = os.environ | places | settings
    if subprocess.run(command, cwd=folder, env=variables, check=False).returncode:
        raise ValueError(f"the stage {stage} failed")


def compare_accuracies(recorded: Sequence[float], found: Sequence[float]) -> tuple[str, str]:
    """A verdict, equal if the 95 % intervals of the means overlap, and its text.

    Args:
        recorded: test accuracies of all seeds, in [0, 1].
        found: those of the training here.
    """
    (there, _, low, high), (here, _, lo, hi) = estimate(recorded), estimate(found)
    same = sum(a == b for a, b in zip(recorded, found, strict=False))
    text = (
        f"{100 * here:.2f} % here, {100 * there:.2f} % recorded, {same} of {len(found)} seeds alike"
    )
    if lo is None or hi is None or low is None or high is None:
        return DIFFERENT, f"{text}; with one seed there is no interval"
    return (EQUAL if lo <= high and low <= hi else DIFFERENT), text


def changes(name: str) -> list[str]:
    """Code and parameters that are no longer those of the recorded run."""
    stage = f"train@{name}"
    found = json.loads(commands.dvc("status", "--json", stage)).get(stage, [])
    deps = of_kind({stage: found}, "changed deps")
    return [f"{path} changed since the recorded run" for path, _ in deps if path[:5] != "data/"]


def of_kind(changes: dict[str, Any], kind: str) -> list[tuple[str, Any]]:
    """What of `dvc status` changed and how; a changed command is a word instead of a mapping."""
    mappings = [
        each if isinstance(each, dict) else {"changed deps": {stage: {each: {}}}}
        for stage, listed in changes.items()
        for each in listed
    ]
    return [pair for mapping in mappings for pair in mapping.get(kind, {}).items()]
