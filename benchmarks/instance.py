"""Processor seconds of trainings on as many classes as images, and the accuracy they reach.

A run of params.yaml depends on its own parameters and the data alone, so that the figures are those
of stage instance, and RUN=EPOCHS those of
`dvc exp run --set-param instance.runs.RUN.epochs=EPOCHS`, which trains all the other runs too.

python -m benchmarks.instance
"""

import time
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
import typer

from benchmarks import timing
from isoparam.images.datasets import sizes_of
from isoparam.images.files import load_images
from isoparam.sampled_study.instance import Probe, train_instances
from isoparam.sampled_study.recipes import InstanceRecipe
from isoparam.sampled_study.views import Views
from pipeline import commands, files, parameters
from pipeline.schema import Parameters

TRAIN = Path("data/split/train.safetensors")
CURVES = Path("plots/instance.csv")
RESULT = timing.RESULTS / "instance.csv"
# Beside the runs of params.yaml.
LONG = "importance_1024=60"


def main(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help=f"RUN or RUN=EPOCHS; if none, those of params.yaml and {LONG}"),
    ] = None,
    out: Annotated[Path, typer.Option(help="the CSV file to write")] = RESULT,
) -> None:
    """Train runs of params.yaml one after another; write a row for each, and a figure."""
    torch.set_num_threads(1)  # as in the stage: more of them round otherwise
    params = parameters.read_params()
    rows = []
    for text in runs or [*params.instance.runs, LONG]:
        name, _, epochs = text.partition("=")
        if name not in params.instance.runs:
            raise typer.BadParameter(
                f"no run {name!r}; there are {', '.join(params.instance.runs)}"
            )
        rows.append(measure(params, name, int(epochs) if epochs else None))
    files.write_csv(out, pd.DataFrame(rows))
    curves = pd.read_csv(CURVES) if CURVES.exists() else None
    draw(pd.read_csv(out), curves).savefig(out.with_suffix(".png"), dpi=150)


def draw(table: pd.DataFrame, curves: pd.DataFrame | None) -> plt.Figure:
    """Top-1 against processor seconds: at the ends of runs, in all epochs that the study recorded.

    All epochs of a run are taken to cost the same: they have equally many steps. The study may have
    been recorded on another processor, whose bits differ.
    """
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.set_prop_cycle(timing.LINES)
    for run in table.itertuples():
        seconds, shares = [run.processor_s], [run.test_accuracy]
        if curves is not None:
            epochs = curves[curves["run"] == run.run]
            if len(epochs) and epochs["epoch"].iloc[-1] == run.epochs:
                seconds = epochs["epoch"] * run.processor_s / run.epochs
                shares = epochs["accuracy"]
        axes.plot(
            seconds, [100 * share for share in shares], label=f"{run.run}, {run.epochs} epochs"
        )
    axes.set(xlabel="processor time, seconds", ylabel="top-1 accuracy on new views, %")
    axes.set(xlim=(0, None), ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center right")
    return figure


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
