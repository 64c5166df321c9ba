"""`make`: `dvc repro`, with an estimate before it, the time left at each stage, and its claim.

An estimate is what the recorded run took, stage by stage, in proportion to the work that
params.yaml asks for and to what steps of training take on this machine.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import psutil
from rich.console import Console

from isoparam.budget import parameters_of
from pipeline import commands, files, parameters
from pipeline.schema import Parameters
from tools import findings

# The recorded run of the study, and its number of processes and cores.
RECORDED, WORKERS = Path("benchmarks/results/repro.csv"), 2
# What a step of these processes took there, and of what: L4.
STEPS = RECORDED.with_name("training") / "amd-epyc-zen-5/processes.csv"
SIZES, BATCH = (784, *[405] * 4, 10), 128
# The work of the study's trainings, in the units of `work_of`.
WORK = {"train": 51e9, "sampled": 105_300, "instance": 267_936}
# The numbers of training images of the digits and of MNIST.
IMAGES = {"digits": 1_297}
MNIST = 50_000
# In these logs DVC reports which stage begins, is skipped, or comes from the cache.
LOGGERS = ("dvc.stage", "dvc.stage.run", "dvc.stage.cache")
# Stages have taken that long before the estimate of the others is corrected by it.
SURE_SECONDS = 20.0


def main() -> None:
    """Run what is missing of the study, as `dvc repro` does, with the time left."""
    run()
    print()
    Console(highlight=False, markup=False).print(findings.claim().replace("**", ""))
    print("\nThe figure is plots/depth_accuracy.png. Next:")
    print("  make report                       # all results on one page")
    print("  .venv/bin/dvc metrics show        # all numbers")


def run() -> None:
    """Run `dvc repro` in this process, with progress; what it starts ends with it.

    Raises:
        SystemExit: if it fails, which it reports itself.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    # This interpreter is the `python` of the stages.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    from dvc.cli import main as dvc
    from dvc.exceptions import DvcException

    try:
        count, stale = plan()
        progress = Progress(count, estimates(stale))
    except (DvcException, ValueError):  # reported by `dvc repro` or its first stage
        progress = Progress(0, {})
    progress.announce()
    for name in LOGGERS:
        logging.getLogger(name).addFilter(progress)
    try:
        code = dvc(["repro"])
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(progress)
    if code:
        sys.exit(code)


def plan() -> tuple[int, list[str]]:
    """How many stages dvc.yaml has, and those of them that changed or follow from what did."""
    import networkx as nx
    from dvc.repo import Repo

    with Repo() as repo:
        stages = {stage.addressing: stage for stage in repo.stage.load_all("dvc.yaml")}
        stale = set()
        for name in repo.status(targets=["dvc.yaml"]):
            if name in stages:
                later = nx.ancestors(repo.index.graph, stages[name])
                stale |= {name, *(stage.addressing for stage in later)}
    return len(stages), [name for name in stages if name in stale]


class Progress(logging.Filter):
    """Sees the stages that DVC begins, and prints the time left before each.

    Args:
        count: how many stages there are.
        seconds: those that are to run, and an estimate for each; None if it is not known.
    """

    def __init__(self, count: int, seconds: dict[str, float | None]) -> None:
        """Nothing is done yet."""
        super().__init__()
        self._count, self._left = count, dict(seconds)
        self._seen, self._estimated_seconds = 0, 0.0
        self._running, self._begin = "", time.monotonic()

    def announce(self) -> None:
        """Say what will be done."""
        if self._left:
            trained = sum(_kind(name) in WORK for name in self._left)
            estimate = _duration(self._left, 1.0)
            print(
                f"{len(self._left)} of {self._count} stages are to run, {trained} of them train"
                f"{estimate and f': {estimate} on {commands.available_cores()} cores'}. "
                "Whenever it is stopped, the next run resumes.",
                flush=True,
            )

    def filter(self, record: logging.LogRecord) -> bool:
        """Take note of a stage; let all records pass."""
        begins = str(record.msg).startswith("Running stage")
        if self._count and record.args and (begins or str(record.msg).startswith("Stage '%s'")):
            self._next_stage(str(next(iter(record.args))), begins=begins)
        return True

    def _next_stage(self, name: str, *, begins: bool) -> None:
        self._seen += 1
        self._estimated_seconds += self._left.pop(self._running, 0) or 0
        self._running = name
        if not begins:
            self._left.pop(name, None)
            return
        elapsed, correction = time.monotonic() - self._begin, 1.0
        if self._estimated_seconds and elapsed > SURE_SECONDS:
            correction = elapsed / self._estimated_seconds
        left = _duration(self._left, correction)
        print(f"[{self._seen} of {self._count}{left and f', {left} left'}]", flush=True)


def _duration(left: dict[str, float | None], correction: float) -> str:
    """In words, as far as it is known."""
    known = [seconds for seconds in left.values() if seconds is not None]
    seconds = sum(known) * correction
    if len(known) < len(left) or not left:
        return ""
    return f"about {seconds / 60:.0f} min" if seconds > 90 else f"about {seconds:.0f} s"


def estimates(stale: list[str]) -> dict[str, float | None]:
    """Seconds of each stage on this machine, None where no record helps."""
    params = parameters.read_params()
    if params.data.dataset == "own" or params.train.device != "cpu":
        return dict.fromkeys(stale)
    trains = any(_kind(name) in WORK for name in stale)
    slowness = measure_step_seconds() / recorded_step_seconds() if trains else 1.0
    table = files.read_csv(RECORDED, ("stage", "seconds", "command_s", "import_s"))
    return {name: estimate(params, name, slowness, table) for name in stale}


def estimate(params: Parameters, stage: str, slowness: float, recorded: pd.DataFrame) -> float:
    """Seconds of a stage: those that are recorded, its work in proportion to what that is here.

    Start and imports are the same. A step takes `slowness` times as long as where the record is of.
    """
    kind = _kind(stage)
    rows = recorded[recorded["stage"] == stage]
    if rows.empty:  # a model of another name
        rows = recorded[recorded["stage"].map(_kind) == kind].iloc[-1:]
    row: dict[str, Any] = (rows if len(rows) else recorded.tail(1)).to_dict("records")[0]
    work_seconds = max(row["command_s"] - row["import_s"], 0.0)
    images = IMAGES.get(params.data.dataset, MNIST)
    share = images / MNIST
    if kind in WORK:
        share = work_of(params, stage, images) / WORK[kind]
        if kind == "train":  # L0 has another record than the others
            recorded_size = 7_850 if row["stage"] == "train@L0" else 814_090
            share *= 874_090 / (60_000 + recorded_size)
        workers = int(os.environ.get("ISOPARAM_WORKERS") or commands.available_cores())
        share *= WORKERS / workers
    return float(row["seconds"] + work_seconds * (slowness * share - 1))


def work_of(params: Parameters, stage: str, images: int) -> float:
    """Of a stage that trains: its steps, weighted by about what they cost among each other."""
    if stage == "sampled":
        section = params.sampled
        steps = section.epochs * (images // section.batch_size)
        return len(params.seeds) * len(section.runs) * steps
    if stage == "instance":  # an encoder costs as much as 2,000 classes, all classes as 30,000
        share = images / MNIST
        return share * sum(
            run.epochs * (2_000 + (run.samples or 30_000 * share))
            for run in params.instance.runs.values()
        )
    model = parameters.find_model(params.models, stage.partition("@")[2])
    count = parameters_of(model.sizes(params.data))
    train = params.train
    steps = len(params.seeds) * train.epochs * (images // train.batch_size)
    return steps * (60_000 + count * (train.batch_size + 30) / (BATCH + 30))


def recorded_step_seconds() -> float:
    """A step of training where the record comes from, in as many processes as trained there."""
    table = files.read_csv(STEPS, ("contestant", "median_ms")).set_index("contestant")
    return float(table["median_ms"][f"replicas: {WORKERS}"]) / 1000


def measure_step_seconds() -> float:
    """A step of training, a second long in as many processes as will train side by side."""
    code = "from tools.repro import train_for_a_second; print(train_for_a_second())"
    workers = range(commands.available_cores())
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in workers
    ]
    times = [float(process.communicate()[0]) for process in started]
    return sum(times) / len(times)


def train_for_a_second() -> float:
    """The median of a second's steps, in seconds of the processor."""
    import torch

    from isoparam.network import bits
    from isoparam.network.recipe import Recipe
    from isoparam.network.replicas import Replicas

    bits.use_one_thread()
    recipe = Recipe(1, BATCH, 0.1, 0.3, SIZES, momentum=0.9, weight_decay=0.00025)
    replicas, times, end = Replicas(recipe, [0]), [], time.monotonic() + 1
    x, labels = torch.rand(1, BATCH, SIZES[0]), torch.arange(BATCH)[None] % SIZES[-1]
    while time.monotonic() < end:
        begin = time.thread_time()  # without the time of others on this core
        replicas.step(x, labels, 0.1)
        times.append(time.thread_time() - begin)
    return median(times)


def _kind(stage: str) -> str:
    return stage.partition("@")[0]


def _end(number: int, _: Any) -> None:
    """End the stage that runs, and what it started, with this process."""
    for child in psutil.Process().children(recursive=True):
        child.terminate()
    sys.exit(128 + number)
