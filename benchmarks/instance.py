"""Processor seconds of trainings on as many classes as images, and what they come to.

A run of params.yaml depends on its own parameters and the data alone, so that the figures are those
of stage instance, and RUN=EPOCHS those of
`dvc exp run --set-param instance.runs.RUN.epochs=EPOCHS`, which trains all the other runs too.

python -m benchmarks.instance
"""

import time
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer

from isoparam.images.datasets import sizes_of
from isoparam.images.files import load_images
from isoparam.sampled_study.instance import Probe, train_instances
from isoparam.sampled_study.recipes import InstanceRecipe
from isoparam.sampled_study.views import Views
from pipeline import commands, files, parameters
from pipeline.schema import Parameters

TRAIN = Path("data/split/train.safetensors")
RESULT = Path(__file__).parent / "results" / "instance.csv"
DEFAULT = ["full", "importance_1024", "importance_1024=60"]


def main(
    runs: Annotated[
        list[str] | None, typer.Argument(help=f"RUN or RUN=EPOCHS; {' '.join(DEFAULT)} if none")
    ] = None,
    out: Annotated[Path, typer.Option(help="the CSV file to write")] = RESULT,
) -> None:
    """Train runs of params.yaml one after another and write a row for each."""
    torch.set_num_threads(1)  # as in the stage: more of them round otherwise
    params = parameters.read_params()
    rows = []
    for text in runs or DEFAULT:
        name, _, epochs = text.partition("=")
        if name not in params.instance.runs:
            raise typer.BadParameter(
                f"no run {name!r}; there are {', '.join(params.instance.runs)}"
            )
        rows.append(measure(params, name, int(epochs) if epochs else None))
    files.write_csv(out, pd.DataFrame(rows))


def measure(params: Parameters, name: str, epochs: int | None) -> dict[str, Any]:
    """Train one run and evaluate it at its end, in one thread."""
    section = params.instance
    values = section.model_dump(exclude={"seed", "shift", "noise", "views", "runs"})
    values |= section.runs[name].model_dump() | {"evaluations": 1}
    recipe = InstanceRecipe(**values | ({} if epochs is None else {"epochs": epochs}))
    images = load_images(TRAIN, *sizes_of(params.data.dataset, params.data.own)).images
    views = Views(images, shift=section.shift, noise=section.noise)
    probe = Probe(views, section.views, recipe.images, seed=section.seed, held_out=False)
    start = time.process_time()
    with commands.progress(name, recipe.epochs) as advance:
        last = train_instances(views, probe, recipe, seed=section.seed, on_epoch=advance)[-1]
    return {
        "run": name,
        "epochs": recipe.epochs,
        "processor_s": round(time.process_time() - start, 1),
        "test_loss": last.loss,
        "test_accuracy": last.accuracy,
    }


if __name__ == "__main__":
    typer.run(main)
