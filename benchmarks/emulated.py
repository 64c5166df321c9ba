"""Do the fingerprint's trainings give the same bits on other processors? They are emulated.

    python benchmarks/emulated.py

It needs qemu-x86_64 (Debian's package qemu-user), takes minutes and writes results/emulated.csv,
and to results/strict_cost.csv what a step takes with strict mode and without.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from time import process_time

import pandas as pd
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from isoparam.network import bits  # noqa: E402
from isoparam.network.training import Trainer  # noqa: E402
from pipeline import files  # noqa: E402
from tools import fingerprint  # noqa: E402

RESULTS = ROOT / "benchmarks/results"
# Each kind of layer; the fingerprint itself is of all depths.
MODELS = ["L0", "L1", "L8"]

# Without AVX-512, one of Intel and one of AMD.
HERE, HASWELL, EPYC = "this one", "Haswell", "EPYC"
STRICT, DEFAULT = "strict mode", "default mode"


def runs() -> list[tuple[str, str, dict[str, str]]]:
    """Processor, name of the settings, and settings of each run; strict mode here first."""
    without = [
        (
            HERE,
            f"strict mode without {name}",
            {k: v for k, v in bits.STRICT.items() if k != name},
        )
        for name in bits.STRICT
    ]
    return [
        (HERE, STRICT, bits.STRICT),
        (HERE, DEFAULT, {}),
        *without,
        (HASWELL, STRICT, bits.STRICT),
        (EPYC, STRICT, bits.STRICT),
        (HASWELL, DEFAULT, {}),
        (EPYC, DEFAULT, {}),
    ]


def python(code: str, processor: str, settings: dict[str, str]) -> list[str]:
    """The words that a piece of code prints on a processor, with these settings alone."""
    emulator = []
    if processor != HERE:
        found = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
        if not found:
            sys.exit("error: there is no qemu-x86_64: install Debian's package qemu-user")
        emulator = [found, "-cpu", processor]
    inherited = {key: value for key, value in os.environ.items() if key not in bits.STRICT}
    done = subprocess.run(
        [*emulator, sys.executable, "-c", code],
        cwd=ROOT,
        env=inherited | settings | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "benchmarks"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout.split()


def compare() -> None:
    """Write the hashes of all runs."""
    rows = []
    for processor, name, settings in runs():
        code = (
            "from stages import fingerprint as f; sizes = f.read_record()['sizes']; "
            f"print(*(f.fingerprint(sizes[name]) for name in {MODELS}))"
        )
        for model, digest in zip(MODELS, python(code, processor, settings), strict=True):
            rows.append((processor, name, model, digest))
        print(processor, name, flush=True)
    table = pd.DataFrame(rows, columns=["processor", "settings", "model", "hash"])
    files.write_csv(RESULTS / "emulated.csv", table)


def measure() -> None:
    """Write the processor time of a step in both modes, the median of three turns each."""
    code = "import emulated; emulated.time()"
    rows = []
    for _ in range(3):
        for name, settings in ((DEFAULT, {}), (STRICT, bits.STRICT)):
            times = python(code, HERE, settings)
            rows += [(name, model, float(t)) for model, t in zip(MODELS, times, strict=True)]
    table = pd.DataFrame(rows, columns=["settings", "model", "milliseconds"])
    table = table.groupby(["model", "settings"], sort=True)["milliseconds"].median().reset_index()
    files.write_csv(RESULTS / "strict_cost.csv", table)


def time() -> None:
    """Print the milliseconds of processor time of a step of each model."""
    torch.set_num_threads(1)
    for model in MODELS:
        sizes = fingerprint.read_record()["sizes"][model]
        trainer = Trainer(sizes, [0], momentum=0.9, weight_decay=0.00025)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, 128, sizes[0], generator=generator)
        labels = torch.randint(sizes[-1], (1, 128), generator=generator)
        for step in range(60):
            if step == 10:
                start = process_time()
            trainer.step(x, labels, 0.01)
        print(1000 * (process_time() - start) / 50)


if __name__ == "__main__":
    measure()
    compare()
