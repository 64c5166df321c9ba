"""Would another depth choose another recipe? One number of the study's is changed at a time.

    dvc repro split
    python -m benchmarks.recipes

Models keep their learning rates and are trained with seeds of the tuning, in which the same seeds
have the recipe as it is. All figures are of validation images.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

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


def main() -> None:
    """Train models of params.yaml by each recipe; write results/recipes.csv."""
    params = parameters.read_params()
    bits.use_instructions(strict=params.train.strict)
    inputs, classes = sizes_of(params.data.dataset, params.data.own)
    tables = []
    for name in MODELS:
        model = params.models[name]
        sizes = layer_sizes(model.depth, model.width or 0, inputs, classes)
        recipe = params.train.recipe(sizes, parameters.learning_rate_of(name))
        studied = {key: getattr(recipe, key) for change in CHANGES for key in change}
        for change in CHANGES:
            recipes, seeds = [replace(recipe, **change)], params.tuning.seeds[:SEEDS]
            table = trials(name, recipes, seeds, params.train.device, None)
            tables.append(table.assign(model=name, **(studied | change)))
            files.write_csv(OUT, pd.concat(tables))
        trainings.forget(name)


if __name__ == "__main__":
    main()
