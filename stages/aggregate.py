"""Stage aggregate: one table of all models, the one that validation chooses, and comparisons."""

from pathlib import Path
from typing import Any, Literal

import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from isoparam.results.comparisons import LEVEL, Crossed, compare_pooled
from pipeline import commands, files, parameters

METRICS = Path("metrics")
PREDICTIONS = Path("models/predictions")
TABLE = Path("plots/depth_accuracy.csv")

# Each column of the table takes this metric.
COLUMNS = {name: name for name in "depth width parameters off_budget on_budget seeds".split()} | {
    "accuracy": "test_accuracy",
    "accuracy_sd": "test_sd",
    "accuracy_lo": "test_lo",
    "accuracy_hi": "test_hi",
    "validation_accuracy": "val_accuracy",
}

# The trend is the leading coefficient of a curve of this degree.
DEGREES: dict[str, Literal[1, 2]] = {"slope": 1, "curvature": 2}

# A seed with a test accuracy below this learnt next to nothing.
COLLAPSED = 0.5

# Finer than one right answer of all images and seeds, coarser than a rounding error.
DIGITS = 9


def main() -> None:
    """Gather metrics/depths: the table, metrics/summary.json and metrics/comparisons.json.

    The summary is of the model with the highest validation accuracy, the shallower of two equals.
    """
    params = parameters.read_params()
    metrics = {name: _read(name) for name in params.models}
    metrics = dict(sorted(metrics.items(), key=lambda item: (item[1]["depth"], item[1]["width"])))
    predictions = {name: _read_predictions(name) for name in metrics}
    comparisons = compare(metrics, predictions)
    table = pd.DataFrame(
        {"model": name}
        | {column: values[key] for column, key in COLUMNS.items()}
        | {
            "collapsed": sum(each < COLLAPSED for each in values["test_accuracies"]),
            "may_be_best": name in comparisons["may_be_best"],
            "new_images_lo": comparisons["intervals"][name]["lo"],
            "new_images_hi": comparisons["intervals"][name]["hi"],
        }
        for name, values in metrics.items()
    )
    files.write_csv(TABLE, table)
    files.write_json(METRICS / "comparisons.json", comparisons)
    # Validation chooses: a maximum over test accuracies would be biased upwards.
    chosen = table.loc[table["validation_accuracy"].round(DIGITS).idxmax(), "model"]
    files.write_json(METRICS / "summary.json", metrics[chosen])


def compare(
    metrics: dict[str, dict[str, Any]], predictions: dict[str, dict[str, NDArray[Any]]]
) -> dict[str, Any]:
    """Test accuracies compared: those of the models on the budget."""
    on_budget = [name for name, values in metrics.items() if values["on_budget"]]
    depths = {name: metrics[name]["depth"] for name in on_budget}
    right = {name: predictions[name]["right"] for name in on_budget}
    pooled = compare_pooled({name: metrics[name]["test_accuracies"] for name in on_budget})
    return {
        "test_images": next(iter(predictions.values()))["right"].shape[1],
        "intervals": {
            name: Crossed({name: found["right"]}).interval(name)._asdict()
            for name, found in predictions.items()
        },
        **_compared(right),
        "trend": {
            name: Crossed(right).trend(depths, degree)._asdict()
            if len(set(depths.values())) > degree
            else None
            for name, degree in DEGREES.items()
        },
        "log_likelihood": _compared({name: -predictions[name]["loss"] for name in on_budget}),
        # For new seeds alone.
        "these_images": pooled._asdict() | {"pairs": [pair._asdict() for pair in pooled.pairs]},
    }


def _compared(values: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """The set of those that may be the best, and all pairs, for new seeds and test images."""
    study = Crossed(values) if values else None
    p_best = study.p_best() if study else {}
    return {
        "may_be_best": [name for name, p in p_best.items() if p > LEVEL],
        "p_best": p_best,
        "pairs": [pair._asdict() for pair in study.pairs()] if study else [],
        "seed_deviation": study and study.seed_deviation,
    }


def _read_predictions(name: str) -> dict[str, NDArray[Any]]:
    path = files.as_recorded(PREDICTIONS / f"{name}.safetensors")
    try:
        with safe_open(path, framework="np") as file:
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is missing or damaged ({error}): run `dvc repro evaluate@{name}`"
        ) from None
    shapes = {values.shape for values in found.values()}
    if set(found) != {"right", "loss"} or len(shapes) != 1 or len(shapes.pop()) != 2:
        raise ValueError(f"{path} must hold `right` and `loss` of one shape (seeds, images)")
    return found


def _read(name: str) -> dict[str, Any]:
    path = METRICS / f"depths/{name}.json"
    metrics = files.read_json(path)
    missing = [key for key in (*COLUMNS.values(), "test_accuracies") if key not in metrics]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: run `dvc repro evaluate@{name}`")
    return metrics


if __name__ == "__main__":
    commands.run(main)
