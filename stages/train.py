"""Stage train@MODEL: all seeds of one model, each a single-threaded process of its own on a CPU.

torch is imported by the processes that train, not by the one that waits for them.
"""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import typer

from isoparam.budget import layer_sizes
from isoparam.parameters import SHAPES
from stages import processes, support

SPLIT = Path("data/split")
OUT = Path("models")
COLUMNS = ("seed", "epoch", "train_loss", "validation_loss", "validation_accuracy")


class Job(NamedTuple):
    """What one process is to do.

    Attributes:
        sizes: sizes of all layers, input and output included.
        seeds: the replicas to train as one batch.
        device: where to train them.
        recipe: further arguments of `isoparam.training.train`.
        folder: where to write the weights.
    """

    sizes: list[int]
    seeds: list[int]
    device: str
    recipe: dict[str, Any]
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
    with support.replacing(OUT / name) as partial:
        partial.mkdir()
        groups = [[seed] for seed in seeds] if device == "cpu" else [seeds]
        jobs = [Job(sizes, group, device, recipe, partial) for group in groups]
        with support.progress(f"train {name}", len(jobs) * recipe["epochs"]) as advance:
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


def _train(job: Job, report: processes.Report) -> list[tuple[float, ...]]:
    import torch

    from isoparam.files import load_images, save_perceptron
    from isoparam.mnist import normalise, pixel_statistics
    from isoparam.training import train

    if job.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device is cuda, but torch finds no such device: set it to cpu")
    shape = job.sizes[0], job.sizes[-1]
    images, held_out = (
        load_images(SPLIT / f"{part}.safetensors", *shape) for part in ("train", "validation")
    )
    mean, deviation = pixel_statistics(images.images)
    (x, labels), validation = (
        (
            normalise(part.images, mean, deviation).to(job.device),
            part.labels.long().to(job.device),
        )
        for part in (images, held_out)
    )
    layers, history = train(
        x,
        labels,
        validation,
        sizes=job.sizes,
        seeds=job.seeds,
        on_epoch=lambda epoch: report(f"validation accuracy {max(epoch.validation_accuracy):.4f}"),
        **job.recipe,
    )
    for replica, seed in enumerate(job.seeds):
        save_perceptron(
            job.folder / f"seed-{seed}.safetensors",
            [(w[replica, None].cpu(), b[replica, None].cpu()) for w, b in layers],
            {"seed": seed, "sizes": job.sizes, "mean": mean, "deviation": deviation},
        )
    return [
        (
            seed,
            epoch.epoch,
            epoch.train_loss[replica],
            epoch.validation_loss[replica],
            epoch.validation_accuracy[replica],
        )
        for epoch in history
        for replica, seed in enumerate(job.seeds)
    ]


if __name__ == "__main__":
    support.run(main)
