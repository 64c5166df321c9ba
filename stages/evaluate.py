"""Stage evaluate@MODEL: the accuracy of all seeds of one model on the test set."""

from pathlib import Path
from statistics import fmean

import pandas as pd

from isoparam.budget import count_parameters, layer_sizes, width_for_budget
from isoparam.images.datasets import sizes_of
from isoparam.images.files import load_images
from isoparam.images.mnist import normalise
from isoparam.network import bits
from isoparam.network.files import load_replicas
from isoparam.network.training import evaluate
from isoparam.results.statistics import described
from pipeline import commands, files, parameters

TEST = Path("data/split/test.safetensors")
MODELS = Path("models/depths")
METRICS = Path("metrics/depths")
CURVES = Path("plots/curves")
HISTORY = ("seed", "epoch", "train_loss", "validation_loss", "validation_accuracy")


def main(name: commands.ModelName) -> None:
    """Evaluate models/depths/NAME, into metrics/depths/NAME.json and plots/curves/NAME.csv."""
    params = parameters.read_params()
    bits.use_instructions(strict=params.train.strict)
    model = parameters.find_model(params.models, name)
    inputs, classes = sizes_of(params.data.dataset, params.data.own)
    network = model.depth, model.width or 0, inputs, classes
    images, labels = load_images(TEST, inputs, classes)
    layers, scale = load_replicas(MODELS / name, params.seeds, layer_sizes(*network))
    losses, accuracies = (
        values.tolist() for values in evaluate(layers, normalise(images, *scale), labels.long())
    )
    history = files.read_csv(files.as_recorded(MODELS / name) / "history.csv", HISTORY)
    last = history[history["epoch"] == history["epoch"].max()]
    count = count_parameters(*network)
    metrics = {
        "depth": model.depth,
        "width": model.width or 0,
        "parameters": count,
        "deviation": count - params.budget,
        "on_budget": model.depth > 0
        and model.width == width_for_budget(params.budget, model.depth, inputs, classes),
        "seeds": len(params.seeds),
        # Short names, so that `dvc metrics show` fits a wide terminal.
        **described("test_accuracy", accuracies, prefix="test"),
        "test_loss": fmean(losses),
        **described("val_accuracy", last["validation_accuracy"].tolist(), prefix="val"),
        "val_loss": fmean(last["validation_loss"]),
        "test_accuracies": accuracies,
    }
    files.write_json(METRICS / f"{name}.json", metrics)
    files.write_csv(CURVES / f"{name}.csv", _curves(history))


def _curves(history: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of each epoch's figures, with the interval of the validation accuracy."""
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": fmean(rows["train_loss"]),
            "validation_loss": fmean(rows["validation_loss"]),
            **described(
                "validation_accuracy", rows["validation_accuracy"].tolist(), deviation=False
            ),
        }
        for epoch, rows in history.groupby("epoch")
    )


if __name__ == "__main__":
    commands.run(main)
