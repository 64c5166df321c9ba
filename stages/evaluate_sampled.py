"""Stage evaluate_sampled: results of training on sampled classes, as tables and metrics."""

from pathlib import Path
from typing import Any

import pandas as pd

from isoparam.images.datasets import sizes_of
from isoparam.images.files import load_images
from isoparam.images.mnist import normalise
from isoparam.network import bits
from isoparam.network.files import load_replicas
from isoparam.network.training import evaluate
from isoparam.results.statistics import described
from pipeline import commands, files, parameters

TEST = Path("data/split/test.safetensors")
SAMPLED = Path("models/sampled")
INSTANCE = Path("models/instance")
METRICS = Path("metrics")
PLOTS = Path("plots")


def main() -> None:
    """Evaluate models/sampled on the test set and gather the figures of models/instance.

    Writes metrics/sampled.json, metrics/instance.json, plots/sampled.csv and plots/instance.csv.
    """
    params = parameters.read_params()
    bits.use_instructions(strict=params.train.strict)
    sizes = sizes_of(params.data.dataset, params.data.own)
    images, labels = load_images(TEST, *sizes)
    metrics: dict[str, Any] = {}
    for name, run in params.sampled.runs.items():
        layers, scale = load_replicas(SAMPLED / name, params.seeds, list(sizes))
        losses, accuracies = (
            values.tolist() for values in evaluate(layers, normalise(images, *scale), labels.long())
        )
        metrics[name] = {
            "weighting": run.weighting,
            "samples": run.samples,
            "learning_rate": run.learning_rate,
            "seeds": len(params.seeds),
            **described("test_accuracy", accuracies),
            **described("test_loss", losses, share=False),
        }
    files.write_json(METRICS / "sampled.json", metrics)
    files.write_csv(PLOTS / "sampled.csv", _table(metrics))

    history = files.read_csv(
        files.as_recorded(INSTANCE) / "history.csv", ("run", "epoch", "loss", "accuracy")
    )
    metrics = {}
    for name, instance in params.instance.runs.items():
        last = history[history["run"] == name].iloc[-1]
        metrics[name] = instance.model_dump() | {
            "test_loss": float(last["loss"]),
            "test_accuracy": float(last["accuracy"]),
        }
    files.write_json(METRICS / "instance.json", metrics)
    columns = ["weighting", "samples", "images", "epochs"]
    of_runs = _table(metrics)[["run", *columns]].rename(columns={"epochs": "of_epochs"})
    files.write_csv(PLOTS / "instance.csv", history.merge(of_runs, on="run"))


def _table(metrics: dict[str, Any]) -> pd.DataFrame:
    table = pd.DataFrame([{"run": name} | values for name, values in metrics.items()])
    return table.astype({"samples": "Int64"})  # whole numbers, empty for the full softmax


if __name__ == "__main__":
    commands.run(main)
