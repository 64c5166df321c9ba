"""Why do deeper networks lose? The same depths with identity skips, tuned and trained likewise.

    dvc repro split
    python -m benchmarks.skips

Each model is tried at the learning rates and with the seeds of the tuning, and then trained with
the first five seeds of the study at its best rate. All figures are of validation images.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from isoparam.budget import layer_sizes
from isoparam.images.datasets import sizes_of
from isoparam.network import bits
from isoparam.network.recipe import Recipe
from pipeline import files, parameters, trainings
from pipeline.schema import Parameters
from stages.choose import best_rate, mean_accuracies
from stages.tune import trials

OUT = Path(__file__).parent / "results/skips.csv"

SEEDS = 5


def of_rate(params: Parameters, sizes: Sequence[int], rate: float) -> Recipe:
    """The recipe of the study with skips, at a learning rate."""
    return replace(params.train.recipe(sizes, rate), skips=True)


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
        model = params.models[name]
        inputs, classes = sizes_of(params.data.dataset, params.data.own)
        sizes = layer_sizes(model.depth, model.width or 0, inputs, classes)
        arguments = params.train.device, None
        recipes = [of_rate(params, sizes, rate) for rate in params.tuning.hidden]
        tried = trials(name, recipes, params.tuning.seeds, *arguments)
        best = of_rate(params, sizes, best_rate(mean_accuracies(tried)))
        final = trials(name, [best], params.seeds[:SEEDS], *arguments)
        both = pd.concat([tried, final])
        both.insert(0, "model", name)
        both.insert(1, "depth", model.depth)
        tables.append(both)
        files.write_csv(OUT, pd.concat(tables))
        trainings.forget(name)


if __name__ == "__main__":
    typer.run(main)
