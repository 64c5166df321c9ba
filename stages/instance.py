"""Stage instance: each training image a class of its own, the full softmax against sampled ones.

torch is imported by the processes that train, not by the one that waits for them.
"""

from itertools import product
from math import nan
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import typer

from isoparam.images.datasets import SHAPES
from isoparam.network import bits
from pipeline import commands, files, parameters, processes

TRAIN = Path("data/split/train.safetensors")
OUT = Path("models/instance")
COLUMNS = ("run", "epoch", "loss", "accuracy")
TUNING = ("run", "epochs", "class_rate", "learning_rate", "loss", "accuracy")
RATES = [0.05, 0.1, 0.2, 0.4]


class Job(NamedTuple):
    """What one process is to do.

    Attributes:
        run: name of the run.
        shape: pixels of an image, and classes of its labels.
        views: arguments of `isoparam.sampled_study.views.Views`.
        count: views to evaluate on.
        held_out: whether on the views to choose by, not on those to report.
        recipe: further arguments of `isoparam.sampled_study.instance.train_instances`.
    """

    run: str
    shape: tuple[int, int]
    views: dict[str, Any]
    count: int
    held_out: bool
    recipe: dict[str, Any]


def main(
    *,
    workers: processes.Workers = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune", help="Write nothing; print each run's figures on held-out views at all rates."
        ),
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="With --tune: this run; may be repeated.")
    ] = None,
    rate: Annotated[
        list[float] | None, typer.Option(help="With --tune: this learning rate; may be repeated.")
    ] = None,
    class_rate: Annotated[
        list[float] | None, typer.Option(help="With --tune: this class_rate; may be repeated.")
    ] = None,
) -> None:
    """Train all runs on data/split/train.safetensors, into models/instance/history.csv."""
    params = parameters.read_params()
    bits.use_instructions(strict=params.train.strict)
    recipe = params.instance.model_dump()
    shape = SHAPES[params.data.dataset]
    runs, count = recipe.pop("runs"), recipe.pop("views")
    views = {"shift": recipe.pop("shift"), "noise": recipe.pop("noise")}
    names = [name for name in runs if not (tune and only) or name in only]
    # Longest first, so that no core waits for the last: a step of the encoder costs about as much
    # as 2,000 sampled classes, and the full softmax as 30,000.
    cost = {
        name: runs[name]["epochs"] * (2_000 + (runs[name]["samples"] or 30_000)) for name in names
    }
    changes: list[dict[str, float]] = [{}]
    if tune:
        changes = [
            {"class_rate": by_class, "learning_rate": by_rate, "evaluations": 1}
            for by_class, by_rate in product(class_rate or [recipe["class_rate"]], rate or RATES)
        ]
    jobs = [
        Job(name, shape, views, count, tune, recipe | runs[name] | change)
        for name in sorted(names, key=lambda name: -cost[name])
        for change in changes
    ]
    with commands.progress("instance", sum(job.recipe["epochs"] for job in jobs)) as advance:
        results = processes.run_all(
            _train,
            jobs,
            workers=workers,
            advance=advance,
            preload=["isoparam.images.files", "isoparam.sampled_study.instance"],
        )
    if tune:
        print(*TUNING, sep=",")
        for job, history in zip(jobs, results, strict=True):
            _, loss, accuracy = history[-1]
            chosen = (job.recipe[name] for name in TUNING[1:4])
            print(job.run, *chosen, f"{loss:.6f}", f"{accuracy:.4f}", sep=",")
        return
    histories = dict(zip((job.run for job in jobs), results, strict=True))
    rows = [(name, *row) for name in runs for row in histories[name]]
    with files.replacing(OUT) as partial:
        partial.mkdir()
        files.write_csv(partial / "history.csv", pd.DataFrame(rows, columns=COLUMNS))


def _train(job: Job, report: processes.Report) -> list[tuple[int, float, float]]:
    from isoparam.images.files import load_images
    from isoparam.network.training import DivergenceError
    from isoparam.sampled_study.instance import Probe, train_instances
    from isoparam.sampled_study.views import Views

    bits.use_one_thread()
    recipe = dict(job.recipe)
    law, seed = recipe.pop("images"), recipe.pop("seed")
    views = Views(load_images(TRAIN, *job.shape).images, **job.views)
    try:
        return train_instances(
            views,
            Probe(views, job.count, law, seed=seed, held_out=job.held_out),
            law=law,
            seed=seed,
            on_epoch=lambda text: report(f"{job.run} {text}"),
            **recipe,
        )
    except DivergenceError:
        if not job.held_out:
            raise
        return [(recipe["epochs"], nan, nan)]  # a rate that is too high is an answer too


if __name__ == "__main__":
    commands.run(main)
