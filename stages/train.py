"""Stage train@MODEL: all seeds of one model, each a single-threaded process of its own on a CPU.

torch is imported by the processes that train, not by the one that waits for them.
"""

import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import pandas as pd
import typer

from isoparam.budget import layer_sizes
from isoparam.parameters import SHAPES
from stages import support

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

SPLIT = Path("data/split")
OUT = Path("models")
COLUMNS = ("seed", "epoch", "train_loss", "validation_loss", "validation_accuracy")


# What a process gets from its parent at the start: where to report each epoch.
_worker: dict[str, "SimpleQueue[str | None]"] = {}


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
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            envvar="ISOPARAM_WORKERS",
            help="Processes side by side, as many as there are cores unless said otherwise; "
            "results do not depend on it.",
        ),
    ] = None,
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
            rows = _run_all(jobs, min(workers or support.available_cores(), len(jobs)), advance)
        history = pd.DataFrame(sorted(rows), columns=COLUMNS)
        support.write_csv(partial / "history.csv", history)


def _run_all(jobs: list[Job], workers: int, advance: Any) -> list[tuple[float, ...]]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["isoparam.files", "isoparam.training"])
    epochs: SimpleQueue[str | None] = context.SimpleQueue()
    listener = Thread(target=lambda: [advance(text) for text in iter(epochs.get, None)])
    listener.start()
    try:
        with ProcessPoolExecutor(workers, context, _start_worker, (epochs,)) as pool:
            futures = [pool.submit(_train, job) for job in jobs]
            try:
                return [row for future in as_completed(futures) for row in future.result()]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenProcessPool:
        raise ValueError("a training process was killed; was there enough memory?") from None
    finally:
        epochs.put(None)
        listener.join()


def _start_worker(epochs: "SimpleQueue[str | None]") -> None:
    import torch

    _worker["epochs"] = epochs
    support.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback beside the parent's message
    torch.set_num_threads(1)


def _train(job: Job) -> list[tuple[float, ...]]:
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
        on_epoch=lambda epoch: _worker["epochs"].put(
            f"validation accuracy {max(epoch.validation_accuracy):.4f}"
        ),
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
