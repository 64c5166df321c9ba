"""What DVC itself costs as pipelines grow: trivial stages, and a remote in a folder.

python -m benchmarks.scale
"""

import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from benchmarks import timing

RESULT = timing.RESULTS / "scale.csv"

# Stages that train, and how many of them are in one dvc.yaml: DVC writes dvc.lock anew after each
# stage, so that a run's cost grows about with the square of the latter.
SIZES = [(10, 10), (100, 100), (300, 300), (1000, 100)]

# A dvc.yaml in a folder of its own, and the one above, which depends on all models.
PART = """\
stages:
  train:
    foreach: ${models}
    do:
      cmd: mkdir -p models && echo $DVC_STAGE > models/${key}
      deps: [../data]
      params: ['models.${key}']
      outs: ['models/${key}']
"""
ALL = """\
stages:
  gather:
    cmd: cat */models/* > table
    deps: [{}]
    outs: [table]
"""

# The report extrapolates to this number of models.
MANY = 100_000

# The measured steps, in order: the folder and the command.
TASK, TASK_PUSH = "a task: one stage in a clone", "a task: its push"
HEAD = "the head: all stages in a clone"
TARGET = "part0/dvc.yaml:train@m0"
STEPS = {
    "first run": ("project", ["repro"]),
    "run again": ("project", ["repro"]),
    "push": ("project", ["push", "--run-cache"]),
    TASK: ("task", ["repro", "--pull", TARGET]),
    TASK_PUSH: ("task", ["push", "--run-cache", "--with-deps", TARGET]),
    HEAD: ("head", ["repro", "--pull"]),
}


def make(parent: Path, stages: int, in_one: int) -> None:
    """Make a project and two clones, all with the same remote.

    Args:
        parent: the folder for the project, the clones and the remote.
        stages: how many stages train.
        in_one: how many of them are in one dvc.yaml.
    """
    folder = parent / "project"
    folder.mkdir()
    deps = []
    for number in range(0, stages, in_one):
        part = folder / f"part{number // in_one}"
        part.mkdir()
        names = [f"m{index}" for index in range(number, min(number + in_one, stages))]
        deps += [f"{part.name}/models/{name}" for name in names]
        lines = [f"  {name}: {{depth: {index}}}\n" for index, name in enumerate(names)]
        (part / "params.yaml").write_text("".join(["models:\n", *lines]), encoding="utf-8")
        (part / "dvc.yaml").write_text(PART, encoding="utf-8")
    (folder / "dvc.yaml").write_text(ALL.format(", ".join(deps)), encoding="utf-8")
    (folder / "data").write_text("data\n", encoding="utf-8")
    identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
    for command in (
        ["git", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "config", "core.analytics", "false"],
        [sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "r", str(parent / "remote")],
        ["git", "add", "--all"],
        ["git", *identity, "commit", "--quiet", "--message", "made up"],
        ["git", "clone", "--quiet", ".", "../task"],
        ["git", "clone", "--quiet", ".", "../head"],
    ):
        subprocess.run(command, cwd=folder, check=True)


def measure(command: Sequence[str], folder: Path) -> float:
    """Seconds of processors that a DVC command takes, with all that it starts."""
    process = subprocess.Popen([sys.executable, "-m", "dvc", *command, "--quiet"], cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise typer.Exit(process.returncode)
    return usage.ru_utime + usage.ru_stime


def measure_all(stages: int, in_one: int) -> pd.DataFrame:
    """A row for each step with so many stages, and so many of them in one dvc.yaml."""
    parent = Path(tempfile.mkdtemp(prefix="scale"))
    try:
        make(parent, stages, in_one)
        rows = []
        for step, (folder, command) in STEPS.items():
            row: dict[str, Any] = {"stages": stages, "in_one": in_one, "step": step}
            rows.append(row | {"processor_s": measure(command, parent / folder)})
            typer.echo(rows[-1], err=True)
        first, again = (
            {path.relative_to(parent / name): path.read_bytes() for path in locks}
            for name in ("project", "head")
            for locks in [(parent / name).rglob("dvc.lock")]
        )
        if first != again:
            raise ValueError("the head's dvc.lock is not that of the first run")
        files = sum(path.is_file() for path in (parent / "remote").rglob("*"))
        size = sum(len(lock) for lock in first.values())
        return pd.DataFrame(rows).assign(lock_bytes=size, remote_files=files)
    finally:
        shutil.rmtree(parent)


def report(table: pd.DataFrame, conditions: str) -> str:
    """What the documentation says of it, in Markdown."""
    times = table.pivot_table(index="step", columns=["stages", "in_one"], values="processor_s").loc[
        list(STEPS)
    ]
    sizes = table.groupby(["stages", "in_one"])[["lock_bytes", "remote_files"]].first()
    heads = [f"{stages:,}, {in_one} in a file" for stages, in_one in times]
    lines = [
        f"{conditions}.",
        "",
        f"| stages | command | {' | '.join(heads)} |",
        "| --- | --- |" + " ---: |" * len(heads),
    ]
    for step, row in times.iterrows():
        command = f"dvc {' '.join(STEPS[str(step)][1])}"
        lines.append(f"| {step}, s | `{command}` | {' | '.join(f'{s:.1f}' for s in row)} |")
    kilobytes = (f"{size / 1e3:.1f}" for size in sizes["lock_bytes"])
    files = (f"{count:,}" for count in sizes["remote_files"])
    lines.append(f"| size of all `dvc.lock`, kB | | {' | '.join(kilobytes)} |")
    lines.append(f"| files at the remote | | {' | '.join(files)} |")
    return "\n".join([*lines, "", *forecast(table)]).rstrip() + "\n"


def forecast(table: pd.DataFrame) -> list[str]:
    """What so many models would cost, extrapolated from the sizes measured; none if too few."""
    seconds = {
        (stages, in_one, step): value
        for stages, in_one, step, value in table[
            ["stages", "in_one", "step", "processor_s"]
        ].itertuples(index=False)
    }
    small, large, apart = SIZES[1:]
    if not all((*size, HEAD) in seconds for size in (small, large, apart)):
        return []
    growth = math.log(seconds[*large, HEAD] / seconds[*small, HEAD], large[0] / small[0])
    together = seconds[*large, HEAD] * (MANY / large[0]) ** growth
    task = {size: seconds[*size, TASK] + seconds[*size, TASK_PUSH] for size in (small, apart)}
    each = (task[apart] - task[small]) / (apart[0] - small[0])
    one_of_many = task[small] + each * (MANY - small[0])
    studies = MANY // small[0]
    days, hours = task[small] * MANY / 86400, seconds[*small, HEAD] * studies / 3600
    all_days = one_of_many * MANY / 86400
    one = (
        f"- **One dvc.yaml.** The head takes {together / 86400:,.0f} days: from {small[0]} to "
        f"{large[0]} stages, its time grows as their number to the power of {growth:.1f}."
    )
    one_project = (
        f"- **One project, {small[1]} stages in a file.** Each task reads every dvc.yaml and every "
        f"record at the remote: {one_of_many:,.0f} seconds, {all_days:,.0f} days for all tasks."
    )
    many = (
        f"- **{studies:,} studies of {small[0]}, each with its own remote.** Tasks take {days:.1f} "
        f"days beside the training and heads {hours:.1f} hours, all of which can run in parallel."
    )
    return [f"Extrapolated to {MANY:,} models:", "", one, one_project, many]


def main(
    size: Annotated[
        list[str] | None, typer.Option(help="such as 1000/100: stages, and how many in a file")
    ] = None,
    out: Annotated[Path, typer.Option(help="the CSV file to write, and .md beside it")] = RESULT,
) -> None:
    """Measure DVC on pipelines of trivial stages."""
    before = timing.load()
    sizes = [tuple(map(int, text.split("/"))) for text in size or []] or SIZES
    table = pd.concat([measure_all(*numbers) for numbers in sizes], ignore_index=True)
    conditions = (
        f"Processor seconds; {timing.processor_name()}; DVC {timing.version('dvc')}; load "
        f"average {before:.1f} before; `{timing.command('benchmarks.scale')}`"
    )
    timing.record(out, table, lambda recorded: report(recorded, conditions))


if __name__ == "__main__":
    typer.run(main)
