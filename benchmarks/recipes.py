"""What other recipes give on the validation set: plain ones, and each way of regularising.

The parameters are those of params.yaml but for what a row names. No test image is looked at.

python -m benchmarks.recipes plain --model L1 --model L3 --seeds 3
python -m benchmarks.recipes regularisation --model L3 --change epochs=20 --rate 0.5
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from isoparam.budget import layer_sizes
from isoparam.images.datasets import SIZES
from pipeline import commands, files, parameters, processes, trainings

RESULTS = Path(__file__).parent / "results"


class Kind(StrEnum):
    """Which recipes to try."""

    plain = "plain"
    regularisation = "regularisation"


# A `rate` is a factor of the learning rate: smaller batches, longer momentum and adversarial
# training want a lower one.
RECIPES: dict[Kind, list[dict[str, float]]] = {
    Kind.plain: [
        {},
        {"weight_decay": 0.0001},
        {"weight_decay": 0.0005},
        {"warmup": 0.1},
        {"warmup": 0.5},
        {"momentum": 0.95, "rate": 0.5},
        {"batch_size": 64, "rate": 0.5},
        {"epochs": 25},
        {"epochs": 25, "weight_decay": 0.0005},
    ],
    Kind.regularisation: [
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
    ],
}


def main(
    kind: Kind,
    model: Annotated[list[str], typer.Option(help="A model of params.yaml; may be repeated.")],
    seeds: Annotated[int, typer.Option(min=1, help="The first ones of the tuning.")] = 1,
    rate: Annotated[float, typer.Option(help="Factor of the learning rates.")] = 1.0,
    change: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of train for all; may be repeated.")
    ] = None,
    *,
    workers: processes.Workers = None,
) -> None:
    """Train each model by each recipe, into benchmarks/results/KIND.csv."""
    params = parameters.read_params()
    names = sorted({key for recipe in RECIPES[kind] for key in recipe} - {"rate"} | {"epochs"})
    for_all = {
        key: float(value) for key, _, value in (text.partition("=") for text in change or [])
    }
    rows: list[dict[str, Any]] = []
    for name in model:
        network = parameters.find_model(params.models, name)
        sizes = layer_sizes(network.depth, network.width or 0, *SIZES[params.data.dataset])
        jobs = []
        for recipe in RECIPES[kind]:
            whole = params.train.model_dump() | for_all | recipe
            factor = rate * whole.pop("rate", 1.0)
            whole |= {
                "learning_rate": factor * parameters.learning_rate_of(name),
                "epochs": int(whole["epochs"]),
            }
            chosen = params.tuning.seeds[:seeds]
            jobs += trainings.jobs(f"trial-{name}", sizes, chosen, whole, None)
        histories = trainings.run(f"{kind} {name}", jobs, workers)
        for job, history in zip(jobs, histories, strict=True):
            for seed in job.seeds:
                last = [r for r in history if (r.seed, r.epoch) == (seed, job.recipe["epochs"])]
                rows.append(
                    {"model": name, "seed": seed}
                    | {key: job.recipe[key] for key in ("learning_rate", *names)}
                    | {"validation_accuracy": last[0].validation_accuracy if last else None}
                )
        trainings.forget(f"trial-{name}")
    files.write_csv(RESULTS / f"{kind}.csv", pd.DataFrame(rows))


if __name__ == "__main__":
    commands.run(main)
