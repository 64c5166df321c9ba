"""Stage grid@MODEL of tuning/dvc.yaml: one model at each learning rate of params.yaml."""

from pathlib import Path

import pandas as pd

from isoparam.budget import layer_sizes
from isoparam.images.datasets import sizes_of
from isoparam.network import bits
from isoparam.network.recipe import Recipe, jobs_of
from pipeline import commands, files, parameters, processes, trainings

SPLIT = Path("data/split")
OUT = Path("tuning")
COLUMNS = ("learning_rate", "seed", "validation_loss", "validation_accuracy")


def main(name: commands.ModelName, *, workers: processes.Workers = None) -> None:
    """Train one model at each learning rate of tuning in params.yaml, into tuning/NAME.csv.

    A training that diverges has no loss and no accuracy there.
    """
    params = parameters.read_params()
    bits.use_instructions(strict=params.train.strict)
    model = parameters.find_model(params.models, name)
    sizes = layer_sizes(
        model.depth, model.width or 0, *sizes_of(params.data.dataset, params.data.own)
    )
    rates = params.tuning.hidden if model.depth else params.tuning.linear
    recipes = [params.train.recipe(sizes, rate) for rate in rates]
    table = trials(name, recipes, params.tuning.seeds, params.train.device, workers)
    files.write_csv(OUT / f"{name}.csv", table)
    trainings.forget(name)


def trials(
    name: str, recipes: list[Recipe], seeds: list[int], device: str, workers: int | None
) -> pd.DataFrame:
    """The last epoch of each training of a model; of one that diverges, no figures."""
    jobs = [job for recipe in recipes for job in jobs_of(SPLIT, recipe, seeds, device, None)]
    histories = trainings.run(name, jobs, workers)
    rows = []
    for job, history in zip(jobs, histories, strict=True):
        last = {row.seed: row[-2:] for row in history if row.epoch == job.recipe.epochs}
        rows += [
            (job.recipe.learning_rate, seed, *last.get(seed, (None, None))) for seed in job.seeds
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


if __name__ == "__main__":
    commands.run(main)
