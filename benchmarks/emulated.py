"""Do short strict trainings give the same bits on other processors? They are emulated.

    python benchmarks/emulated.py

It needs qemu-x86_64 (Debian's package qemu-user), takes minutes and writes results/emulated.csv,
and to results/strict_cost.csv what a step takes with strict mode and without.
"""

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from time import process_time

import pandas as pd
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from isoparam.budget import layer_sizes  # noqa: E402
from isoparam.images.datasets import DATASETS  # noqa: E402
from isoparam.images.mnist import normalise, pixel_statistics  # noqa: E402
from isoparam.network import bits  # noqa: E402
from isoparam.network.recipe import Recipe  # noqa: E402
from isoparam.network.replicas import Replicas  # noqa: E402
from isoparam.network.training import Training  # noqa: E402
from pipeline import files, parameters  # noqa: E402
from tools.findings import markdown  # noqa: E402

RESULTS = ROOT / "benchmarks/results"
# Each kind of layer.
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


def python(call: str, processor: str, settings: dict[str, str]) -> list[str]:
    """The words that a function of this file prints on a processor, with these settings alone."""
    emulator = []
    if processor != HERE:
        found = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
        if not found:
            sys.exit("error: there is no qemu-x86_64: install Debian's package qemu-user")
        emulator = [found, "-cpu", processor]
    inherited = {key: value for key, value in os.environ.items() if key not in bits.STRICT}
    done = subprocess.run(
        [*emulator, sys.executable, "-c", f"import emulated; emulated.{call}()"],
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
        hashes = python("train", processor, settings)
        rows += [(processor, name, model, h) for model, h in zip(MODELS, hashes, strict=True)]
        print(processor, name, flush=True)
    table = pd.DataFrame(rows, columns=["processor", "settings", "model", "hash"])
    files.write_csv(RESULTS / "emulated.csv", table)
    files.write(RESULTS / "emulated.md", report_hashes(table) + "\n")


def measure() -> None:
    """Write the processor time of a step in both modes, the median of three turns each."""
    rows = []
    for _ in range(3):
        for name, settings in ((DEFAULT, {}), (STRICT, bits.STRICT)):
            times = python("time", HERE, settings)
            rows += [(name, model, float(t)) for model, t in zip(MODELS, times, strict=True)]
    table = pd.DataFrame(rows, columns=["settings", "model", "milliseconds"])
    table = table.groupby(["model", "settings"], sort=True)["milliseconds"].median().reset_index()
    files.write_csv(RESULTS / "strict_cost.csv", table)
    files.write(RESULTS / "strict_cost.md", report_times(table) + "\n")


def report_hashes(table: pd.DataFrame) -> str:
    """What the documentation shows of the hashes, in Markdown."""
    hashes = table.groupby(["processor", "settings"], sort=False)["hash"].agg(list)
    return markdown(
        f"processor | settings | {' | '.join(table['model'].unique())} | "
        ":as strict mode on the first:",
        (
            f"{' | '.join(place)} | {' | '.join(f'`{digest[:8]}`' for digest in found)} | "
            f"{'yes' if found == hashes.iloc[0] else 'no'}"
            for place, found in hashes.items()
        ),
    )


def report_times(table: pd.DataFrame) -> str:
    """What it shows of the processor times."""
    times = table.pivot_table("milliseconds", "model", "settings")
    return markdown(
        " | default, ms: | strict, ms: | ratio:",
        (
            f"{model} | {default:.2f} | {strict:.2f} | {strict / default:.2f}"
            for model, default, strict in times[["default mode", "strict mode"]].itertuples()
        ),
    )


def recipe(name: str) -> Recipe:
    """The recipe of a short training of a model of the study."""
    params = parameters.read_params()
    model = params.models[name]
    return Recipe(
        sizes=tuple(layer_sizes(model.depth, model.width or 0, *DATASETS[params.data.dataset][:2])),
        epochs=2,
        batch_size=128,
        learning_rate=0.1,
        warmup=0.3,
        momentum=0.9,
        weight_decay=0.00025,
    )


def train() -> None:
    """Print the hash of weights, momenta and losses of each model after six steps.

    Validation is one whole batch of the products' usual shape.
    """
    torch.set_num_threads(1)
    count, held_out = 384, 1000
    for name in MODELS:
        short = recipe(name)
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(
            256, (count + held_out, short.sizes[0]), generator=generator, dtype=torch.uint8
        )
        labels = torch.randint(short.sizes[-1], (len(images),), generator=generator)
        x = normalise(images, *pixel_statistics(images[:count]))
        validation = x[count:], labels[count:]
        training = Training(x[:count], labels[:count], validation, short, [0])
        while not training.done:
            training.run_epoch()
        state = training.state()
        parts = [state[part].numpy().tobytes() for part in ("weights", "velocity", "history")]
        print(sha256(b"".join(parts)).hexdigest())


def time() -> None:
    """Print the milliseconds of processor time of a step of each model."""
    torch.set_num_threads(1)
    for name in MODELS:
        short = recipe(name)
        replicas = Replicas(short, [0])
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, 128, short.sizes[0], generator=generator)
        labels = torch.randint(short.sizes[-1], (1, 128), generator=generator)
        for step in range(60):
            if step == 10:
                start = process_time()
            replicas.step(x, labels, 0.01)
        print(1000 * (process_time() - start) / 50)


if __name__ == "__main__":
    measure()
    compare()
