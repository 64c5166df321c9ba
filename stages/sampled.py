"""Stage sampled: a linear classifier trained on sampled classes, each run with each seed.

torch is imported by the processes that train, not by the one that waits for them.
"""

from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import typer

from isoparam.images.datasets import sizes_of
from isoparam.network import bits
from isoparam.sampled_study.recipes import LinearRecipe
from pipeline import commands, files, parameters, processes, trainings

SPLIT = Path("data/split")
OUT = Path("models/sampled")
COLUMNS = ("run", "seed", "epoch", "validation_loss", "validation_accuracy")
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
PRELOAD = ("isoparam.images.files", "isoparam.sampled_study.linear")


class Job(NamedTuple):
    """What one process is to do."""

    run: str
    seed: int
    sizes: tuple[int, int]  # pixels of an image, and classes
    recipe: LinearRecipe
    folder: Path | None  # where the weights go; None of a trial, which has none and may diverge


def main(
    *,
    workers: processes.Workers = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune", help="Write nothing; print each run's validation loss at several rates."
        ),
    ] = False,
) -> None:
    """Train all runs on data/split, into models/sampled."""
    params = parameters.read_params()
    bits.use_instructions(strict=params.train.strict)
    common, seeds = params.sampled.model_dump(exclude={"runs"}), params.seeds
    sizes = sizes_of(params.data.dataset, params.data.own)
    recipes = {
        name: LinearRecipe(**common, **run.model_dump())
        for name, run in params.sampled.runs.items()
    }
    # Longest first: a step's cost grows with the classes that it samples.
    names = sorted(recipes, key=lambda name: -(recipes[name].samples or 0))
    if tune:
        rates, seeds = RATES, seeds[:1]
        jobs = [
            Job(name, seeds[0], sizes, replace(recipes[name], learning_rate=rate), None)
            for name in names
            for rate in rates
        ]
        found = trainings.run_jobs("sampled", _train, jobs, workers, PRELOAD)
        for job, rows in zip(jobs, found, strict=True):
            print(f"{job.run}\t{job.recipe.learning_rate}\t{rows[-1][-2]:.4f}")
        return
    with files.replacing(OUT) as partial:
        for name in names:
            (partial / name).mkdir(parents=True)
        bare = [Job(name, seed, sizes, recipes[name], None) for name in names for seed in seeds]
        kept = trainings.checkpoints("sampled", bare, SPLIT)
        jobs = [job._replace(folder=partial) for job in bare]
        found = trainings.run_jobs("sampled", _train, jobs, workers, PRELOAD, kept)
        history = pd.DataFrame(sorted(row for rows in found for row in rows), columns=COLUMNS)
        files.write_csv(partial / "history.csv", history)
    trainings.forget("sampled")


def _train(part: trainings.Part[Job], report: processes.Report) -> list[tuple[Any, ...]]:
    from isoparam.images.files import load_training_data
    from isoparam.network.files import save_perceptron
    from isoparam.network.training import DivergenceError
    from isoparam.sampled_study.linear import train_linear

    bits.use_one_thread()
    job = part.job
    data = load_training_data(SPLIT, *job.sizes)
    try:
        layers, history = train_linear(
            *data.train,
            data.validation,
            job.recipe,
            classes=job.sizes[1],
            seed=job.seed,
            on_epoch=lambda epoch: report(f"{job.run} validation accuracy {epoch.accuracy:.4f}"),
            state=trainings.resume(part.checkpoint),
            on_state=trainings.keep(part.checkpoint),
        )
    except DivergenceError:
        if job.folder:
            raise
        return [(job.run, job.seed, job.recipe.epochs, nan, nan)]  # too high a rate is a result too
    if job.folder:
        save_perceptron(
            job.folder / job.run / f"seed-{job.seed}.safetensors",
            layers,
            {"seed": job.seed, "sizes": list(job.sizes)} | data.statistics,
        )
    return [(job.run, job.seed, *epoch) for epoch in history]


if __name__ == "__main__":
    commands.run(main)
