"""Stage grid@MODEL of tuning/dvc.yaml: one model at each learning rate of params.yaml."""

from pathlib import Path

import pandas as pd

from isoparam.budget import layer_sizes
from isoparam.images.datasets import sizes_of
from isoparam.network import bits
from isoparam.network.recipe import jobs_of
from pipeline import commands, files, parameters, processes, trainings

SPLIT = Path("data/split")
OUT = Path("tuning")


def main(
    name: commands.ModelName,
    *,
    workers: processes.Workers = None,
) -> None:
    """Train one model at each learning rate of tuning in params.yaml, into tuning/NAME.csv.

    A training that diverges has no loss and no accuracy there.
    """
    params = parameters.read_params()
    bits.use_instructions(strict=params.train.strict)
    model = parameters.find_model(params.models, name)
    sizes = layer_sizes(
        model.depth, model.width or 0, *sizes_of(params.data.dataset, params.data.own)
    )
    jobs = [
        job
        for rate in (params.tuning.hidden if model.depth else params.tuning.linear)
        for job in jobs_of(
            SPLIT,
            params.train.recipe(sizes, rate),
            params.tuning.seeds,
            params.train.device,
            None,
        )
    ]
    histories = trainings.run(name, jobs, workers)
    trials = []
    for job, rows in zip(jobs, histories, strict=True):
        last = {row.seed: row for row in rows if row.epoch == job.recipe.epochs}
        trials += [
            {
                "learning_rate": job.recipe.learning_rate,
                "seed": seed,
                "validation_loss": last[seed].validation_loss if seed in last else None,
                "validation_accuracy": last[seed].validation_accuracy if seed in last else None,
            }
            for seed in job.seeds
        ]
    files.write_csv(OUT / f"{name}.csv", pd.DataFrame(trials))
    trainings.forget(name)


if __name__ == "__main__":
    commands.run(main)
