"""Stage train@MODEL: all seeds of one model, each a single-threaded process of its own on a CPU."""

from pathlib import Path

import pandas as pd

from isoparam.budget import layer_sizes
from isoparam.images.datasets import sizes_of
from isoparam.network import bits
from isoparam.network.recipe import jobs_of
from pipeline import commands, files, parameters, processes, trainings

SPLIT = Path("data/split")
OUT = Path("models/depths")


def main(name: commands.ModelName, *, workers: processes.Workers = None) -> None:
    """Train all seeds of one model on data/split, into models/depths/NAME."""
    params = parameters.read_params()
    bits.use_instructions(strict=params.train.strict)
    model = parameters.find_model(params.models, name)
    sizes = layer_sizes(
        model.depth, model.width or 0, *sizes_of(params.data.dataset, params.data.own)
    )
    recipe = params.train.recipe(sizes, parameters.learning_rate_of(name))
    with files.replacing(OUT / name) as partial:
        partial.mkdir()
        jobs = jobs_of(SPLIT, recipe, params.seeds, params.train.device, partial)
        histories = trainings.run(name, jobs, workers)
        history = pd.DataFrame(sorted(row for rows in histories for row in rows))
        files.write_csv(partial / "history.csv", history)
    trainings.forget(name)


if __name__ == "__main__":
    commands.run(main)
