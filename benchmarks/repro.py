"""Runs `dvc repro` and writes what each stage took: seconds, memory, imports, a training's floor.

Run it in a folder without results, such as one of `python -m tools demo --no-run`; what is up to
date takes no time.

python -m benchmarks.repro
"""

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread
from timeit import repeat
from typing import Annotated, Any

import pandas as pd
import psutil
import typer

from benchmarks import timing
from isoparam.budget import layer_sizes
from isoparam.images.datasets import sizes_of
from isoparam.images.files import load_images
from isoparam.network import bits
from pipeline import commands, parameters
from pipeline.schema import Parameters
from stages.train import SPLIT

RESULT = timing.RESULTS / "repro.csv"
RUNNING = re.compile(r"Running stage '(.+)'")
# How often to look which processes there are. Times of commands are no finer than that.
SECONDS = 0.2
# Stages without a product of matrices.
NO_TORCH = {"check", "download", "aggregate", "plot", "plot_diagnostics", "plot_sampled"}
START, AGAIN = "(start)", "(again)"


def kind_of(stage: str) -> str:
    """What a stage's time goes to."""
    name = stage.partition("@")[0]
    if name in {"train", "sampled", "instance"}:
        return "training"
    return "drawing" if name.startswith("plot") else "other"


class Watch:
    """Notes what the processes below another one do, and which stage it is then.

    Attributes:
        rows: for each stage, command_s, peak_mib and torch, whether a process had it.
    """

    def __init__(self, root: int) -> None:
        """Watch the processes below `root` until `stop`."""
        self.stage = START
        self.rows: dict[str, dict[str, Any]] = {}
        self._root, self._done = root, Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watch."""
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._done.wait(SECONDS):
            now = time.monotonic()
            with contextlib.suppress(psutil.Error, OSError):
                self._look(now - last)  # on a busy machine more than the wait
            last = now

    def _look(self, elapsed_seconds: float) -> None:
        stage, children = self.stage, psutil.Process(self._root).children(recursive=True)
        if not children:
            return
        row = self.rows.setdefault(stage, {"command_s": 0.0, "peak_mib": 0.0, "torch": False})
        row["command_s"] += elapsed_seconds
        for child in children:
            row["peak_mib"] = max(row["peak_mib"], timing.peak_mebibytes(child.pid))
            if not row["torch"]:
                maps = Path(f"/proc/{child.pid}/maps")
                row["torch"] = maps.exists() and "libtorch" in maps.read_text(encoding="utf-8")


DVC_REPRO = [sys.executable, "-m", "dvc", "repro"]


def repro(command: list[str] = DVC_REPRO) -> pd.DataFrame:
    """Run it, with a row for each stage that it ran, and one for what came before the first."""
    # This interpreter is the `python` of the stages.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    begin = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PATH": path}
    ) as process:
        watch = Watch(process.pid)
        starts = {START: begin}
        for line in process.stdout or ():
            sys.stdout.write(line)
            sys.stdout.flush()
            match = RUNNING.match(line)
            if match:
                watch.stage = match[1]
                starts[match[1]] = time.monotonic()
    end = time.monotonic()
    watch.stop()
    if process.returncode:
        raise typer.Exit(process.returncode)
    times = [*starts.values(), end]
    return pd.DataFrame(
        [
            {"stage": stage, "seconds": times[index + 1] - times[index]}
            | watch.rows.get(stage, {"command_s": 0.0, "peak_mib": 0.0, "torch": False})
            for index, stage in enumerate(starts)
        ]
    )


def import_seconds(stage: str, *, torch: bool) -> float:
    """Seconds of Python's start and of what a stage imports: the second time, from the cache."""
    modules = [f"stages.{stage.partition('@')[0]}"] + ["torch"] * torch
    command = [sys.executable, "-c", f"import {', '.join(modules)}"]
    for _ in range(2):
        begin = time.monotonic()
        subprocess.run(command, check=True)
    return time.monotonic() - begin


def floor_seconds(params: Parameters, stages: list[str]) -> dict[str, float]:
    """Seconds of one core in which the matrix products alone of each training are done."""
    # It sets variables that the run would inherit.
    from benchmarks import training  # noqa: PLC0415

    bits.use_one_thread()
    shape, size = sizes_of(params.data.dataset, params.data.own), params.train.batch_size
    images = len(load_images(SPLIT / "train.safetensors", *shape).images)
    found = {}
    for stage in stages:
        model = params.models[stage.removeprefix("train@")]
        sizes = layer_sizes(model.depth, model.width or 0, *shape)
        problem = training.Problem(*training.random_images(size, "cpu"), sizes, size)
        epoch = training.floor_step(problem, images // size)
        seconds = min(repeat(epoch, number=1, repeat=3))
        found[stage] = seconds * params.train.epochs * len(params.seeds)
    return found


def parts(table: pd.DataFrame) -> dict[str, float]:
    """Seconds of a run by what they go to."""
    run = table[table["stage"] != AGAIN]
    commands = (run["command_s"] - run["import_s"]).clip(lower=0)
    kinds = run["stage"].map(kind_of)
    imports = run["import_s"].sum()
    by_kind = {kind: commands[kinds == kind].sum() for kind in ("training", "drawing", "other")}
    total = run["seconds"].sum()
    return by_kind | {"imports": imports, "DVC": total - imports - sum(by_kind.values())}


def report(table: pd.DataFrame, conditions: str) -> str:
    """What the documentation says of a run, in Markdown."""
    lines = [f"{conditions}.", "", "| part | seconds |", "| --- | ---: |"]
    lines += [f"| {part} | {seconds:.1f} |" for part, seconds in parts(table).items()]
    # Not in the record of the first run, nor of one that trains nothing.
    if "floor_s" in table and table["floor_s"].notna().any():
        trained = table.dropna(subset="floor_s")
        core_seconds = ((trained["command_s"] - trained["import_s"]) * trained["cores"]).sum()
        ratio = core_seconds / trained["floor_s"].sum()
        floor = "the matrix products alone, on one core"
        lines += ["", f"Seconds by cores of the stages `train` are {ratio:.2f} times {floor}."]
    lines += [
        "",
        "| stage | seconds | of them the command | its imports | peak memory, MiB | torch |",
        "| --- | ---: | ---: | ---: | ---: | :---: |",
    ]
    for row in table.to_dict("records"):
        times = " | ".join(f"{row[name]:.1f}" for name in ("seconds", "command_s", "import_s"))
        has = "yes" if row["torch"] else ""
        lines.append(f"| {row['stage']} | {times} | {row['peak_mib']:.0f} | {has} |")
    return "\n".join(lines) + "\n"


def main(
    out: Annotated[Path, typer.Option(help="the CSV file to write, and .md beside it")] = RESULT,
    *,
    make: Annotated[bool, typer.Option("--make", help="run `make`, set-up included")] = False,
) -> None:
    """Run `dvc repro` twice; write the times of the first run's stages and of the second run."""
    before = timing.load()
    command = ["make"] if make else DVC_REPRO
    table = repro(command)
    again = repro(command)
    if len(again) > 1:
        raise ValueError(f"the second run ran {', '.join(again['stage'][1:])}: nothing is written")
    table = pd.concat([table, again.assign(stage=AGAIN)], ignore_index=True)
    table["import_s"] = [
        0.0 if stage in {START, AGAIN} else import_seconds(stage, torch=torch)
        for stage, torch in zip(table["stage"], table["torch"], strict=True)
    ]
    params = parameters.read_params()
    trained = [stage for stage in table["stage"] if stage.startswith("train@")]
    table["floor_s"] = table["stage"].map(floor_seconds(params, trained))
    table["cores"] = commands.available_cores()
    table["dataset"] = params.data.dataset
    conditions = (
        f"`{'make' if make else 'dvc repro'}` of {params.data.dataset} with {len(params.seeds)} "
        f"seeds on {commands.available_cores()} cores; {timing.processor_name()}; DVC "
        f"{timing.version('dvc')}; load average {before:.1f} before; "
        f"`{timing.command('benchmarks.repro')}`"
    )
    timing.record(out, table, lambda recorded: report(recorded, conditions))


if __name__ == "__main__":
    typer.run(main)
