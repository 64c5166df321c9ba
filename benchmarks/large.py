"""Studies on digits that are larger than this one in depths, seeds or parameters: time and memory.

python -m benchmarks.large
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from benchmarks import timing
from benchmarks.repro import repro
from pipeline import commands
from tools import demo
from tools.findings import markdown

RESULT = timing.RESULTS / "large.csv"

FEW = {("seeds",): [0, 1], ("train", "epochs"): 2}


def models(depths: range) -> dict[str, dict[str, int]]:
    """Sections of params.yaml, whose widths follow from the budget."""
    return {f"L{depth}": {"depth": depth, "width": 1} for depth in depths}


CASES: dict[str, dict[tuple[str, ...], Any]] = {
    "60 depths, 1 to 60": {("models",): models(range(1, 61))},
    "200 seeds": {("seeds",): list(range(200))},
    "100 million parameters, 1 seed, 1 epoch": {
        ("budget",): 100_000_000,
        ("models",): models(range(1, 3)),
        ("seeds",): [0],
        ("train", "epochs"): 1,
    },
}
# Stages that compare and draw.
DRAWING = ("aggregate", "plot", "diagnose", "plot_diagnostics")


def measure(changes: dict[tuple[str, ...], Any]) -> dict[str, float]:
    """Run one study and make its page, in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "study"
        demo.make(folder, demo.CHANGES | FEW | changes, demo.LEARNING_RATE)
        with contextlib.chdir(folder):
            stages = repro()
            begin = time.monotonic()
            subprocess.run([sys.executable, "-m", "tools", "report"], check=True)
            report = time.monotonic() - begin
            size = Path("report/index.html").stat().st_size
    seconds = stages.set_index("stage")["seconds"]
    return {
        "stages": len(stages) - 1,
        "total_s": seconds.sum(),
        "drawing_s": max(seconds[name] for name in DRAWING),
        "report_s": report,
        "report_mb": size / 1e6,
        "peak_mib": stages["peak_mib"].max(),
    }


def report(table: pd.DataFrame, conditions: str) -> str:
    """What the documentation says of them, in Markdown."""
    rows = markdown(
        "study | stages: | all, s: | slowest of aggregate, diagnose and figures, s: | "
        "report page, s: | report page, MB: | peak memory of a process, MiB:",
        (
            f"{m.study} | {m.stages} | {m.total_s:.0f} | {m.drawing_s:.0f} | {m.report_s:.0f} | "
            f"{m.report_mb:.1f} | {m.peak_mib:,.0f}"
            for m in table.itertuples()
        ),
    )
    return f"{conditions}.\n\n{rows}\n"


def main(
    out: Annotated[Path, typer.Option(help="the CSV file to write, and .md beside it")] = RESULT,
) -> None:
    """Run the studies; write their times and their memory."""
    before = timing.load()
    rows = [{"study": name} | measure(CASES[name]) for name in CASES]
    conditions = (
        f"Digits, 2 seeds and 2 epochs unless said otherwise, {commands.available_cores()} cores; "
        f"{timing.processor_name()}; load average {before:.1f} before; "
        f"`{timing.command('benchmarks.large')}`"
    )
    timing.record(out, pd.DataFrame(rows), lambda recorded: report(recorded, conditions))


if __name__ == "__main__":
    typer.run(main)
