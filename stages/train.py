"""Stage train@MODEL: all seeds of one model, each a single-threaded process of its own on a CPU.

Training stops and goes on by states in .checkpoints, so that the processes share the work evenly
and a run that was killed loses seconds. torch is imported by the processes that train, not by the
one that waits for them.
"""

import json
import shutil
import sys
import time
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import pandas as pd
import typer
from safetensors import SafetensorError, safe_open

from isoparam.budget import layer_sizes
from isoparam.parameters import SHAPES
from stages import processes, support

if TYPE_CHECKING:
    from isoparam.training import Training

SPLIT = Path("data/split")
OUT = Path("models")
CHECKPOINTS = Path(".checkpoints")
COLUMNS = ("seed", "epoch", "train_loss", "validation_loss", "validation_accuracy")

# How long a process trains before it leaves a checkpoint, at the end of the epoch.
PART_SECONDS = 2.0


class Job(NamedTuple):
    """What one process is to do.

    Attributes:
        sizes: sizes of all layers, input and output included.
        seeds: the replicas to train as one batch.
        device: where to train them.
        recipe: further arguments of `isoparam.training.Training`.
        part_seconds: how long to train before the training is left to go on later.
        checkpoint: where it is kept meanwhile.
        folder: where to write the weights.
    """

    sizes: list[int]
    seeds: list[int]
    device: str
    recipe: dict[str, Any]
    part_seconds: float
    checkpoint: Path
    folder: Path


def main(
    name: Annotated[str, typer.Argument(help="A model of params.yaml, such as L3.")],
    *,
    workers: processes.Workers = None,
) -> None:
    """Train all seeds of one model on data/split, into models/NAME."""
    params = support.read_params()
    model = support.find_model(params.models, name)
    sizes = layer_sizes(model.depth, model.width or 0, *SHAPES[params.data.dataset])
    recipe = params.train.model_dump() | {"learning_rate": model.learning_rate}
    device, seeds = recipe.pop("device"), params.seeds
    checkpoints = CHECKPOINTS / name / _key(sizes, device, recipe)
    with support.replacing(OUT / name) as partial:
        partial.mkdir()
        groups = [[seed] for seed in seeds] if device == "cpu" else [seeds]
        jobs = [
            Job(
                sizes,
                group,
                device,
                recipe,
                PART_SECONDS,
                checkpoints / f"seed-{group[0]}",
                partial,
            )
            for group in groups
        ]
        with support.progress(f"train {name}", len(jobs) * recipe["epochs"]) as advance:
            for _ in range(sum(_epochs_done(job.checkpoint) for job in jobs)):
                advance("done before")
            results = processes.run_all(
                _train,
                jobs,
                workers=workers,
                advance=advance,
                preload=["isoparam.files", "isoparam.training"],
            )
        rows = sorted(row for rows in results for row in rows)
        history = pd.DataFrame(rows, columns=COLUMNS)
        support.write_csv(partial / "history.csv", history)
    shutil.rmtree(CHECKPOINTS / name, ignore_errors=True)


def _key(*arguments: object) -> str:
    """A hash of all that a training depends on: arguments, data, code, torch."""
    digest = sha256(json.dumps([*arguments, version("torch")]).encode())
    root = Path(__file__).parents[1]
    code = [*root.glob("isoparam/*.py"), *root.glob("stages/*.py")]
    for path in (SPLIT / "train.safetensors", SPLIT / "validation.safetensors", *sorted(code)):
        if path.is_file():  # what is missing is told by whoever reads it
            digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _train(job: Job, report: processes.Report) -> list[tuple[float, ...]] | None:
    """Train on for a while; the history if that was the end, None if not."""
    import torch

    from isoparam.files import load_training_data, save_perceptron, save_state
    from isoparam.training import Training

    if job.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device is cuda, but torch finds no such device: set it to cpu")
    data = load_training_data(SPLIT, job.sizes[0], job.sizes[-1])
    (x, labels), validation = (
        tuple(tensor.to(job.device) for tensor in part) for part in (data.train, data.validation)
    )
    training = Training(x, labels, validation, sizes=job.sizes, seeds=job.seeds, **job.recipe)
    _resume(training, job.checkpoint)
    start = time.monotonic()
    while not training.done:
        epoch = training.run_epoch()
        report(f"validation accuracy {max(epoch.validation_accuracy):.4f}")
        if not training.done and time.monotonic() - start > job.part_seconds:
            with support.replacing(job.checkpoint) as partial:
                save_state(partial, training.state())
            return None
    for replica, seed in enumerate(job.seeds):
        save_perceptron(
            job.folder / f"seed-{seed}.safetensors",
            [(w[replica, None].cpu(), b[replica, None].cpu()) for w, b in training.layers],
            {"seed": seed, "sizes": job.sizes} | data.statistics,
        )
    return [
        (
            seed,
            epoch.epoch,
            epoch.train_loss[replica],
            epoch.validation_loss[replica],
            epoch.validation_accuracy[replica],
        )
        for epoch in training.history
        for replica, seed in enumerate(job.seeds)
    ]


def _resume(training: "Training", checkpoint: Path) -> None:
    from isoparam.files import load_state

    if not checkpoint.exists():
        return
    try:
        training.restore(load_state(checkpoint))
    except ValueError as error:
        print(f"starting again from the first epoch: {error}", file=sys.stderr)


def _epochs_done(checkpoint: Path) -> int:
    try:
        with safe_open(checkpoint, framework="np") as file:
            return file.get_slice("history").get_shape()[0]
    except (OSError, SafetensorError):
        return 0


if __name__ == "__main__":
    support.run(main)
