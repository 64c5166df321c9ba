"""Trainings side by side, each of which stops and goes on by states in .checkpoints.

So the processes share the work evenly, and a run that was killed loses seconds. torch is imported
by the processes that train, not by the one that waits for them.
"""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError, safe_open

from stages import processes, support

if TYPE_CHECKING:
    from isoparam.training import Training

SPLIT = Path("data/split")
CHECKPOINTS = Path(".checkpoints")

# How long a process trains before it leaves a checkpoint, at the end of the epoch.
PART_SECONDS = 2.0


class Job(NamedTuple):
    """What to train.

    Attributes:
        name: of the model.
        sizes: sizes of all layers, input and output included.
        seeds: the replicas to train as one batch.
        device: where to train them.
        recipe: further arguments of `isoparam.training.Training`.
        folder: where to write the weights; None for a trial, whose weights nobody needs and which
            may diverge.
    """

    name: str
    sizes: list[int]
    seeds: list[int]
    device: str
    recipe: dict[str, Any]
    folder: Path | None


class Row(NamedTuple):
    """One line of a history: loss and accuracy as of `isoparam.training.Epoch`, for one seed."""

    seed: int
    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float


class _Part(NamedTuple):
    job: Job
    checkpoint: Path
    seconds: float


def jobs(
    name: str, sizes: list[int], seeds: Sequence[int], recipe: dict[str, Any], folder: Path | None
) -> list[Job]:
    """The jobs for these seeds: on a CPU each is a process, on a GPU all are one batch.

    Args:
        name: of the model.
        sizes: sizes of all layers, input and output included.
        seeds: the replicas.
        recipe: the parameters `train` of params.yaml, and learning_rate.
        folder: as of `Job`.
    """
    recipe = dict(recipe)
    del recipe["strict"]  # the stage sees to it
    device = recipe.pop("device")
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    groups = [[seed] for seed in seeds] if device == "cpu" else [list(seeds)]
    return [Job(name, sizes, group, device, recipe, folder) for group in groups]


def run(description: str, jobs: Sequence[Job], workers: int | None) -> list[list[Row]]:
    """Train all jobs.

    Args:
        description: of the bar that shows the progress.
        jobs: all of one model.
        workers: processes side by side; as many as there are cores if None.

    Returns:
        The history of each job, sorted; of a trial that diverged, its epochs until then.

    Raises:
        ValueError: if data is missing or damaged, or a job that is no trial diverges.
    """
    data = _digest_of_data_and_code()
    parts = [_Part(job, _checkpoint(job, data), PART_SECONDS) for job in jobs]
    with support.progress(description, sum(job.recipe["epochs"] for job in jobs)) as advance:
        for _ in range(sum(_epochs_done(part.checkpoint) for part in parts)):
            advance("done before")
        return processes.run_all(
            _train,
            parts,
            workers=workers,
            advance=advance,
            preload=["isoparam.files", "isoparam.training"],
        )


def forget(name: str) -> None:
    """Remove the checkpoints of a model, when its results are written."""
    shutil.rmtree(CHECKPOINTS / name, ignore_errors=True)


def _train(part: _Part, report: processes.Report) -> list[Row] | None:
    """Train on for a while; the history if that was the end, None if not."""
    import torch

    from isoparam.files import load_training_data, save_perceptron, save_state
    from isoparam.training import DivergenceError, Training

    job = part.job
    if job.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device is cuda, but torch finds no such device: set it to cpu")
    data = load_training_data(SPLIT, job.sizes[0], job.sizes[-1])
    (x, labels), (held_out, their_labels) = data.train, data.validation
    training = Training(
        x.to(job.device),
        labels.to(job.device),
        (held_out.to(job.device), their_labels.to(job.device)),
        sizes=job.sizes,
        seeds=job.seeds,
        **job.recipe,
    )
    _resume(training, part.checkpoint)
    start = time.monotonic()
    while not training.done:
        try:
            epoch = training.run_epoch()
        except DivergenceError:
            if job.folder:
                raise
            break
        report(f"validation accuracy {max(epoch.validation_accuracy):.4f}")
        if not training.done and time.monotonic() - start > part.seconds:
            with support.replacing(part.checkpoint) as partial:
                save_state(partial, training.state())
            return None
    if job.folder:
        for replica, seed in enumerate(job.seeds):
            save_perceptron(
                job.folder / f"seed-{seed}.safetensors",
                [(w[replica, None].cpu(), b[replica, None].cpu()) for w, b in training.layers],
                {"seed": seed, "sizes": job.sizes} | data.statistics,
            )
    return [
        Row(
            seed,
            epoch.epoch,
            epoch.train_loss[replica],
            epoch.validation_loss[replica],
            epoch.validation_accuracy[replica],
        )
        for replica, seed in enumerate(job.seeds)
        for epoch in training.history
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


def _checkpoint(job: Job, data: str) -> Path:
    """Where a job that is not done is kept: named by a hash of all that it depends on."""
    everything = [job.sizes, job.seeds, job.device, job.recipe, data, version("torch")]
    digest = sha256(json.dumps(everything).encode()).hexdigest()
    return CHECKPOINTS / job.name / digest[:32]


def _digest_of_data_and_code() -> str:
    root = Path(__file__).parents[1]
    code = sorted([*root.glob("isoparam/*.py"), *root.glob("stages/*.py")])
    digest = sha256()
    for path in (SPLIT / "train.safetensors", SPLIT / "validation.safetensors", *code):
        if path.is_file():  # what is missing is told by whoever reads it
            digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()
