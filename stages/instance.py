"""Stage instance: each training image a class of its own, the full softmax against sampled ones.

torch is imported by the processes that train, not by the one that waits for them.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import product
from math import inf, nan
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import typer

from isoparam.images.datasets import sizes_of
from isoparam.network import bits
from isoparam.sampled_study.recipes import InstanceRecipe
from pipeline import commands, files, parameters, processes, trainings

TRAIN = Path("data/split/train.safetensors")
OUT = Path("models/instance")
COLUMNS = ("run", "epoch", "loss", "accuracy")
TUNING = ("run", "epochs", "class_rate", "learning_rate", "loss", "accuracy")
RATES = [0.05, 0.1, 0.2, 0.4]
PRELOAD = ("isoparam.images.files", "isoparam.sampled_study.instance")


class Job(NamedTuple):
    """What one process is to do."""

    run: str
    sizes: tuple[int, int]  # pixels of an image, and classes of its labels
    views: dict[str, Any]  # arguments of `isoparam.sampled_study.views.Views`
    probe: int  # views to evaluate on
    held_out: bool  # whether on the views to choose by, not on those to report
    seed: int  # of everything that is drawn
    recipe: InstanceRecipe


def main(
    *,
    workers: processes.Workers = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune", help="Write nothing; print each run's figures on held-out views at all rates."
        ),
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="With --tune: this run; may be repeated.")
    ] = None,
    rate: Annotated[
        list[float] | None, typer.Option(help="With --tune: this learning rate; may be repeated.")
    ] = None,
    class_rate: Annotated[
        list[float] | None, typer.Option(help="With --tune: this class_rate; may be repeated.")
    ] = None,
) -> None:
    """Train all runs on data/split/train.safetensors, into models/instance/history.csv."""
    params = parameters.read_params()
    _check_options(tune, only or [], [*(rate or []), *(class_rate or [])], params.instance.runs)
    bits.use_instructions(strict=params.train.strict)
    section, sizes = params.instance, sizes_of(params.data.dataset, params.data.own)
    common = section.model_dump(exclude={"seed", "shift", "noise", "views", "runs"})
    recipes = {
        name: InstanceRecipe(**common, **run.model_dump()) for name, run in section.runs.items()
    }
    views = {"shift": section.shift, "noise": section.noise}
    names = [name for name in recipes if not (tune and only) or name in only]
    # Longest first, so that no core waits for the last: a step of the encoder costs about as much
    # as 2,000 sampled classes, and the full softmax as 30,000.
    cost = {
        name: recipes[name].epochs * (2_000 + (recipes[name].samples or 30_000)) for name in names
    }
    changes: list[dict[str, Any]] = [{}]
    if tune:
        changes = [
            {"class_rate": by_class, "learning_rate": by_rate, "evaluations": 1}
            for by_class, by_rate in product(class_rate or [section.class_rate], rate or RATES)
        ]
    jobs = [
        Job(name, sizes, views, section.views, tune, section.seed, replace(recipes[name], **change))
        for name in sorted(names, key=lambda name: -cost[name])
        for change in changes
    ]
    kept = None if tune else trainings.checkpoints("instance", jobs, TRAIN.parent)
    results = trainings.run_jobs("instance", _train, jobs, workers, PRELOAD, kept)
    if tune:
        print(*TUNING, sep=",")
        for job, history in zip(jobs, results, strict=True):
            _, loss, accuracy = history[-1]
            recipe = job.recipe
            chosen = recipe.epochs, recipe.class_rate, recipe.learning_rate
            print(job.run, *chosen, f"{loss:.6f}", f"{accuracy:.4f}", sep=",")
        return
    histories = dict(zip((job.run for job in jobs), results, strict=True))
    rows = [(name, *row) for name in recipes for row in histories[name]]
    with files.replacing(OUT) as partial:
        partial.mkdir()
        files.write_csv(partial / "history.csv", pd.DataFrame(rows, columns=COLUMNS))
    trainings.forget("instance")


def _check_options(tune: bool, only: list[str], rates: list[float], runs: Collection[str]) -> None:
    if not tune and (only or rates):
        raise ValueError(
            "--only, --rate and --class-rate go with --tune: without it the stage trains all runs "
            "of params.yaml at the rates that stand there"
        )
    if unknown := [name for name in only if name not in runs]:
        raise ValueError(
            f"params.yaml has no run {', '.join(map(repr, unknown))} under instance.runs; "
            f"it has {', '.join(runs)}"
        )
    if wrong := [rate for rate in rates if not 0 < rate < inf]:
        raise ValueError(f"--rate and --class-rate must be above 0 and finite, got {wrong[0]}")


def _train(
    part: trainings.Part[Job], report: processes.Report
) -> Sequence[tuple[int, float, float]]:
    from isoparam.images.files import load_images
    from isoparam.network.training import DivergenceError
    from isoparam.sampled_study.instance import Probe, train_instances
    from isoparam.sampled_study.views import Views

    bits.use_one_thread()
    job = part.job
    views = Views(load_images(TRAIN, *job.sizes).images, **job.views)
    probe = Probe(views, job.probe, job.recipe.images, seed=job.seed, held_out=job.held_out)
    try:
        return train_instances(
            views,
            probe,
            job.recipe,
            seed=job.seed,
            on_epoch=lambda text: report(f"{job.run} {text}"),
            state=trainings.resume(part.checkpoint),
            on_state=trainings.keep(part.checkpoint),
        )
    except DivergenceError:
        if not job.held_out:
            raise
        return [(job.recipe.epochs, nan, nan)]  # a rate that is too high is a result too


if __name__ == "__main__":
    commands.run(main)
