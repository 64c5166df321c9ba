"""Stage evaluate@MODEL: the accuracy of all seeds of one model on the test set, image by image."""

from pathlib import Path
from statistics import fmean

import pandas as pd

from isoparam.budget import count_parameters, layer_sizes, width_for_budget
from isoparam.images.datasets import sizes_of
from isoparam.images.files import load_images, save_tensors
from isoparam.images.mnist import normalise
from isoparam.network import bits
from isoparam.network.files import load_replicas
from isoparam.network.mlp import logits
from isoparam.network.softmax import cross_entropy
from isoparam.results.statistics import described
from pipeline import commands, files, parameters

TEST = Path("data/split/test.safetensors")
MODELS = Path("models/depths")
METRICS = Path("metrics/depths")
PREDICTIONS = Path("models/predictions")
CURVES = Path("plots/curves")
HISTORY = ("seed", "epoch", "train_loss", "validation_loss", "validation_accuracy")


def main(name: commands.ModelName) -> None:
    """Evaluate models/depths/NAME.

    Writes metrics/depths/NAME.json, models/predictions/NAME.safetensors with what each seed makes
    of each test image, and plots/curves/NAME.csv.
    """
    params = parameters.read_params()
    bits.use_instructions(strict=params.train.strict)
    model = parameters.find_model(params.models, name)
    inputs, classes = sizes_of(params.data.dataset, params.data.own)
    network = model.depth, model.width or 0, inputs, classes
    images, labels = load_images(TEST, inputs, classes)
    layers, scale = load_replicas(MODELS / name, params.seeds, layer_sizes(*network))
    z = logits(layers, normalise(images, *scale)).double()  # (R, N, C)
    loss = cross_entropy(z, labels.long().expand(z.shape[:-1]))  # (R, N)
    right = z.argmax(-1) == labels  # (R, N)
    accuracies = right.double().mean(1).tolist()
    history = files.read_csv(files.as_recorded(MODELS / name) / "history.csv", HISTORY)
    last = history[history["epoch"] == history["epoch"].max()]
    count = count_parameters(*network)
    metrics = {
        "depth": model.depth,
        "width": model.width or 0,
        "parameters": count,
        "off_budget": count - params.budget,
        "on_budget": model.depth > 0
        and model.width == width_for_budget(params.budget, model.depth, inputs, classes),
        "seeds": len(params.seeds),
        # Short names, so that `dvc metrics show` fits a wide terminal.
        **described("test_accuracy", accuracies, prefix="test"),
        "test_loss": fmean(loss.mean(1).tolist()),
        **described("val_accuracy", last["validation_accuracy"].tolist(), prefix="val"),
        "val_loss": fmean(last["validation_loss"]),
        "test_accuracies": accuracies,
    }
    with files.replacing(PREDICTIONS / f"{name}.safetensors") as partial:
        save_tensors(partial, {"right": right, "loss": loss.float()}, {})
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
