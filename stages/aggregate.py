"""Stage aggregate: one table of all models, the one that validation chooses, and comparisons."""

from pathlib import Path
from typing import Any, Literal

import pandas as pd

from isoparam.images.datasets import dataset_of
from isoparam.results.comparisons import LEVEL, compare_pairs, compare_pooled, trend
from isoparam.results.statistics import share_of_trials
from pipeline import commands, files, parameters

METRICS = Path("metrics")
TABLE = Path("plots/depth_accuracy.csv")

# Each column of the table takes this metric.
COLUMNS = {name: name for name in "depth width parameters deviation on_budget seeds".split()} | {
    "accuracy": "test_accuracy",
    "accuracy_sd": "test_sd",
    "accuracy_lo": "test_lo",
    "accuracy_hi": "test_hi",
    "validation_accuracy": "val_accuracy",
}

# The trend is the leading coefficient of a curve of this degree.
DEGREES: dict[str, Literal[1, 2]] = {"slope": 1, "curvature": 2}


def main() -> None:
    """Gather metrics/depths: the table, metrics/summary.json and metrics/comparisons.json.

    The summary is of the model with the highest validation accuracy.
    """
    params = parameters.read_params()
    metrics = {name: _read(name) for name in params.models}
    metrics = dict(sorted(metrics.items(), key=lambda item: (item[1]["depth"], item[1]["width"])))
    comparisons = compare(metrics, dataset_of(params.data.dataset, params.data.own).test_images)
    table = pd.DataFrame(
        {"model": name}
        | {column: values[key] for column, key in COLUMNS.items()}
        | {
            "may_be_best": name in comparisons["may_be_best"],
            "sampling_error": comparisons["sampling"][name]["standard_error"],
        }
        for name, values in metrics.items()
    )
    files.write_csv(TABLE, table)
    files.write_json(METRICS / "comparisons.json", comparisons)
    # Validation chooses: a maximum over test accuracies would be biased upwards.
    chosen = table.loc[table["validation_accuracy"].idxmax(), "model"]
    files.write_json(METRICS / "summary.json", metrics[chosen])


def compare(metrics: dict[str, dict[str, Any]], test_images: int) -> dict[str, Any]:
    """Test accuracies compared: those of the models on the budget."""
    on_budget = [name for name, values in metrics.items() if values["on_budget"]]
    samples = {name: metrics[name]["test_accuracies"] for name in on_budget}
    depths = [metrics[name]["depth"] for name in on_budget]
    pooled = compare_pooled(samples)
    return {
        "test_images": test_images,
        "may_be_best": [name for name, p in pooled.p_best.items() if p > LEVEL],
        **pooled._asdict(),
        "pairs": [pair._asdict() for pair in pooled.pairs],
        # These test each pair alone, over seeds that share the order of their images.
        "paired": [pair._asdict() for pair in compare_pairs(samples)],
        "trend": {
            name: trend(depths, list(samples.values()), degree)._asdict()
            if len(set(depths)) > degree
            else None
            for name, degree in DEGREES.items()
        },
        "sampling": {
            name: share_of_trials(values["test_accuracy"], test_images)._asdict()
            for name, values in metrics.items()
        },
    }


def _read(name: str) -> dict[str, Any]:
    path = METRICS / f"depths/{name}.json"
    metrics = files.read_json(path)
    missing = [key for key in (*COLUMNS.values(), "test_accuracies") if key not in metrics]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: run `dvc repro evaluate@{name}`")
    return metrics


if __name__ == "__main__":
    commands.run(main)
