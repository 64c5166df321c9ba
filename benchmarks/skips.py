"""Why do deeper networks lose? The same depths with identity skips, tuned and trained likewise.

    dvc repro split
    python -m benchmarks.skips

Each model is tried at the learning rates and with the seeds of the tuning, and then trained with
the first five seeds of the study at its best rate. All figures are of validation images.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from isoparam.budget import layer_sizes
from isoparam.images.datasets import sizes_of
from isoparam.network import bits
from isoparam.network.recipe import jobs_of
from pipeline import files, parameters, trainings
from pipeline.schema import Parameters

SPLIT = Path("data/split")
OUT = Path(__file__).parent / "results/skips.csv"

SEEDS = 5


def trained(params: Parameters, name: str, rates: list[float], seeds: list[int]) -> pd.DataFrame:
    """The last epoch of each training of a model with skips; of one that diverges, no figures."""
    model = params.models[name]
    inputs, classes = sizes_of(params.data.dataset, params.data.own)
    sizes = layer_sizes(model.depth, model.width or 0, inputs, classes)
    jobs = [
        job
        for rate in rates
        for job in jobs_of(
            SPLIT,
            replace(params.train.recipe(sizes, rate), skips=True),
            seeds,
            params.train.device,
            None,
        )
    ]
    rows = []
    for job, history in zip(jobs, trainings.run(f"{name} with skips", jobs, None), strict=True):
        last = {row.seed: row for row in history if row.epoch == job.recipe.epochs}
        rows += [
            {
                "model": name,
                "depth": model.depth,
                "learning_rate": job.recipe.learning_rate,
                "seed": seed,
                "validation_loss": last[seed].validation_loss if seed in last else None,
                "validation_accuracy": last[seed].validation_accuracy if seed in last else None,
            }
            for seed in job.seeds
        ]
    return pd.DataFrame(rows)


def best_rate(trials: pd.DataFrame) -> float:
    """The rate of the highest mean validation accuracy, without those at which a seed diverges."""
    rates = trials.groupby("learning_rate")["validation_accuracy"]
    means = rates.mean().mask(rates.apply(lambda values: values.isna().any()))
    return float(means.round(9).idxmax())  # coarser than a rounding error


def main(
    models: Annotated[
        list[str] | None, typer.Argument(help="if none, all with two hidden layers or more")
    ] = None,
) -> None:
    """Train models of params.yaml with skips; write results/skips.csv."""
    params = parameters.read_params()
    bits.use_instructions(strict=params.train.strict)
    deep = [name for name, model in params.models.items() if model.depth >= 2]
    tables = []
    for name in models or deep:
        trials = trained(params, name, params.tuning.hidden, params.tuning.seeds)
        tables += [trials, trained(params, name, [best_rate(trials)], params.seeds[:SEEDS])]
        files.write_csv(OUT, pd.concat(tables))


if __name__ == "__main__":
    typer.run(main)
