"""Would another depth choose another recipe? One number of the study's is changed at a time.

    dvc repro split
    python -m benchmarks.recipes

Models keep their learning rates and are trained with seeds of the tuning, in which the same seeds
have the recipe as it is. All figures are of validation images.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from isoparam.budget import layer_sizes
from isoparam.images.datasets import sizes_of
from isoparam.network import bits
from pipeline import files, parameters, trainings
from stages.tune import trials

OUT = Path(__file__).parent / "results/recipes.csv"

MODELS = ("L1", "L4", "L8")
SEEDS = 3
# About half as much and twice as much as in the study.
CHANGES: Sequence[dict[str, Any]] = (
    {"epochs": 10},
    {"epochs": 25},
    {"weight_decay": 0.0001},
    {"weight_decay": 0.0005},
    {"warmup": 0.1},
    {"warmup": 0.5},
)
CHANGED = ("epochs", "weight_decay", "warmup")


def main(
    models: Annotated[list[str] | None, typer.Argument(help="if none, L1, L4 and L8")] = None,
) -> None:
    """Train models of params.yaml by each recipe; write results/recipes.csv."""
    params = parameters.read_params()
    bits.use_instructions(strict=params.train.strict)
    size = sizes_of(params.data.dataset, params.data.own)
    tables = []
    for name in models or MODELS:
        model = parameters.find_model(params.models, name)
        rate = parameters.learning_rate_of(name)
        recipe = params.train.recipe(layer_sizes(model.depth, model.width or 0, *size), rate)
        for change in CHANGES:
            changed = replace(recipe, **change)
            seeds = params.tuning.seeds[:SEEDS]
            table = trials(name, [changed], seeds, params.train.device, None)
            numbers = {column: asdict(changed)[column] for column in CHANGED}
            tables.append(table.assign(model=name, **numbers))
            files.write_csv(OUT, pd.concat(tables))
        trainings.forget(name)


if __name__ == "__main__":
    typer.run(main)
