"""A longer training of stage instance, by itself.

`dvc exp run --set-param instance.runs.importance_1024.epochs=60` trains all the other runs too. A
run depends on its own parameters and the data alone, so that its figures are the same here.

python -m benchmarks.instance_long
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from isoparam.files import load_images
from isoparam.instance import Probe, train_instances
from isoparam.parameters import SHAPES
from isoparam.views import Views
from stages import support

TRAIN = Path("data/split/train.safetensors")
RESULT = Path(__file__).parent / "results" / "instance_long.json"


def main(
    run: Annotated[str, typer.Option(help="a run of params.yaml")] = "importance_1024",
    epochs: Annotated[int, typer.Option(min=1)] = 60,
    out: Annotated[Path, typer.Option(help="the JSON file to write")] = RESULT,
) -> None:
    """Train one run of params.yaml for more epochs and write its last evaluation."""
    torch.set_num_threads(1)  # as in the stage: other numbers of threads round otherwise
    params = support.read_params()
    recipe = params.instance.model_dump()
    count, law = recipe.pop("views"), recipe["runs"][run].pop("images")
    recipe |= recipe.pop("runs")[run] | {"epochs": epochs}
    images = load_images(TRAIN, *SHAPES[params.data.dataset]).images
    views = Views(images, shift=recipe.pop("shift"), noise=recipe.pop("noise"))
    probe = Probe(views, count, law, seed=recipe["seed"], held_out=False)
    with support.progress(run, epochs) as advance:
        last = train_instances(views, probe, law=law, on_epoch=advance, **recipe)[-1]
    support.write_json(
        out,
        {"run": run, "epochs": epochs, "test_loss": last.loss, "test_accuracy": last.accuracy},
    )


if __name__ == "__main__":
    typer.run(main)
