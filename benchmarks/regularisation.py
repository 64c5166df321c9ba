"""What each way of regularising gives on the validation set, by itself and with others.

The parameters are those of params.yaml but for what a row names, and half of the learning rate, at
which all of them converge. No test image is looked at.

python -m benchmarks.regularisation
"""

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from isoparam.budget import layer_sizes
from isoparam.parameters import SHAPES, Train
from stages import processes, support, trainings

RESULT = Path(__file__).parent / "results" / "regularisation.csv"

WAYS: list[dict[str, float]] = [
    {},
    {"averaging": 0.999},
    {"max_norm": 2.0},
    {"label_smoothing": 0.05},
    {"input_noise": 0.3},
    {"dropout": 0.2},
    {"input_noise": 0.3, "dropout": 0.2, "label_smoothing": 0.05},
    {"adversarial": 2.0},
    {"adversarial": 3.0},
    {"adversarial": 4.0},
]


def main(
    model: Annotated[str, typer.Option(help="a model of params.yaml")] = "L3",
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="the first ones of the tuning")] = 1,
    out: Annotated[Path, typer.Option(help="the CSV file to write")] = RESULT,
    *,
    workers: processes.Workers = None,
) -> None:
    """Train one model in each of the ways."""
    params = support.read_params()
    shape = support.find_model(params.models, model)
    sizes = layer_sizes(shape.depth, shape.width or 0, *SHAPES[params.data.dataset])
    jobs = [
        job
        for way in WAYS
        for job in trainings.jobs(
            f"trial-{model}",
            sizes,
            params.tuning.seeds[:seeds],
            _recipe(params.train, way | {"epochs": epochs}, support.learning_rate_of(model) / 2),
            None,
        )
    ]
    histories = trainings.run(f"regularise {model}", jobs, workers)
    rows = []
    for job, history in zip(jobs, histories, strict=True):
        for seed in job.seeds:
            last = [row for row in history if row.seed == seed and row.epoch == epochs]
            way = {name: job.recipe[name] for name in sorted({k for way in WAYS for k in way})}
            rows.append(
                {"model": model, "epochs": epochs, "seed": seed}
                | way
                | {"validation_accuracy": last[0].validation_accuracy if last else None}
            )
    support.write_csv(out, pd.DataFrame(rows))
    trainings.forget(f"trial-{model}")


def _recipe(train: Train, changes: dict[str, Any], rate: float) -> dict[str, Any]:
    return train.model_dump() | changes | {"learning_rate": rate}


if __name__ == "__main__":
    typer.run(main)
