"""Stage train@MODEL: all seeds of one model, each a single-threaded process of its own on a CPU."""

from pathlib import Path

import pandas as pd

from isoparam.budget import layer_sizes
from isoparam.parameters import SHAPES
from stages import processes, support, trainings

OUT = Path("models")


def main(
    name: support.ModelName,
    *,
    workers: processes.Workers = None,
) -> None:
    """Train all seeds of one model on data/split, into models/NAME."""
    params = support.read_params()
    support.use_instructions(strict=params.train.strict)
    model = support.find_model(params.models, name)
    sizes = layer_sizes(model.depth, model.width or 0, *SHAPES[params.data.dataset])
    recipe = params.train.model_dump() | {"learning_rate": support.learning_rate_of(name)}
    with support.replacing(OUT / name) as partial:
        partial.mkdir()
        jobs = trainings.jobs(name, sizes, params.seeds, recipe, partial)
        histories = trainings.run(f"train {name}", jobs, workers)
        history = pd.DataFrame(sorted(row for rows in histories for row in rows))
        support.write_csv(partial / "history.csv", history)
    trainings.forget(name)


if __name__ == "__main__":
    support.run(main)
