"""What the benchmarks share: steps timed in turn, some in processes of their own."""

import contextlib
import importlib.metadata
import math
import multiprocessing
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch
from cycler import cycler

from tools import environment

RESULTS = Path(__file__).parent / "results"

# Okabe and Ito's colours suit any colour vision; lines differ in marker and dash too.
LINES = cycler(color=["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"] * 2)
LINES += cycler(marker=list("sD^vPX") * 2) + cycler(linestyle=["-"] * 6 + ["--"] * 6)
OUR_LINE = {"color": "#222222", "marker": "o", "linestyle": "-", "linewidth": 2.5, "zorder": 3}

Step = Callable[[], object]
# Milliseconds of a step: those that pass, and those of processor time.
Timer = Callable[[], tuple[float, float]]


def timer(
    step: Step,
    synchronize: Callable[[], object] = lambda: None,
    others: Callable[[], float] = lambda: 0.0,
) -> Timer:
    """A timer of a step in this process.

    Args:
        step: what to time.
        synchronize: called before and after; it waits for what the step has started.
        others: processor seconds of the step's other processes until now.
    """

    def timed() -> tuple[float, float]:
        synchronize()
        beside = others()
        wall, processor = time.perf_counter(), time.process_time()
        step()
        synchronize()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        return 1000 * wall, 1000 * (processor + others() - beside)

    return timed


class Process:
    """Steps in a process of its own, which does nothing between them.

    Args:
        factory: a module's function that makes a step.
        environment: variables of the process beside those of this one.
    """

    def __init__(
        self, factory: Callable[..., Step], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the process, which has no step yet."""
        self._connection, there = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve, args=(there, factory))
        with mock.patch.dict(os.environ, environment or {}):
            self._process.start()
        there.close()

    def build(self, *arguments: Any) -> None:
        """Have it make another step, by the factory with these arguments."""
        self._connection.send(arguments)
        self._connection.recv()

    def start(self) -> None:
        """Have it make its step."""
        self._connection.send(None)

    def result(self) -> tuple[float, float]:
        """Wait for the step's end, for its times as of `Timer`."""
        return self._connection.recv()

    def timed(self) -> tuple[float, float]:
        """A step from start to end: a `Timer`."""
        self.start()
        return self.result()

    def peak_mebibytes(self) -> float:
        """The most memory that the process ever had; NaN where there is no telling."""
        return peak_mebibytes(self._process.pid)

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join()


def _serve(connection: Connection, factory: Callable[..., Step]) -> None:
    timed: Timer | None = None
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            arguments = connection.recv()
            if arguments is None:
                connection.send(timed())
            else:
                timed = None  # before the next one is laid out
                timed = timer(factory(*arguments))
                connection.send(True)


@contextlib.contextmanager
def process(
    factory: Callable[..., Step], environment: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """A `Process` that ends with the block."""
    started = Process(factory, environment)
    try:
        yield started
    finally:
        started.close()


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """One core for this process and those that it starts within the block, where Linux can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def peak_mebibytes(pid: int) -> float:
    """The most memory that a process ever had, resident; NaN where there is no telling."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return math.nan


def measure(timers: Mapping[str, Timer], rounds: int, seconds: float) -> pd.DataFrame:
    """Time all contestants in turn, round by round: what disturbs the machine disturbs them all.

    After two rounds a contestant that has used up its seconds sits out.
    """
    wall: dict[str, list[float]] = {name: [] for name in timers}
    processor: dict[str, list[float]] = {name: [] for name in timers}
    for turn in range(rounds):
        for name, timed in timers.items():
            if turn < 2 or sum(wall[name]) < 1000 * seconds:
                for times, ms in zip((wall, processor), timed(), strict=True):
                    times[name].append(ms)
    return pd.DataFrame(
        {
            "contestant": list(timers),
            "rounds": [len(times) for times in wall.values()],
            "best_ms": [min(times) for times in wall.values()],
            "median_ms": [pd.Series(times).median() for times in wall.values()],
            "processor_ms": [min(times) for times in processor.values()],
        }
    )


def version(module: str) -> str:
    """Version of the package that a module comes from."""
    package = importlib.metadata.packages_distributions()[module][0]
    return importlib.metadata.version(package)


def processor_name() -> str:
    """What the processor calls itself."""
    return environment.processor()["processor"] or platform.machine()


def device_name(device: str) -> str:
    """What the graphics card or the processor calls itself."""
    return torch.cuda.get_device_name() if device == "cuda" else processor_name()


def machine(device: str) -> str:
    """What the figures were measured on."""
    name = device_name(device)
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}, PyTorch {torch.__version__}"


def load() -> float:
    """Load average of the last minute; NaN where there is none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan


def command(module: str) -> str:
    """The command line of this run."""
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def record(out: Path, table: pd.DataFrame, report: Callable[[pd.DataFrame], str]) -> None:
    """Write a table as CSV, and beside it, and to the terminal, what the report says of that file.

    Args:
        out: the CSV file.
        table: its rows.
        report: the report in Markdown, of the table as it is read back.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out, index=False, float_format="%.3f")
    text = report(pd.read_csv(out))
    print(text)
    out.with_suffix(".md").write_text(text, encoding="utf-8")
