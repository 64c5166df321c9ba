"""Stage aggregate: one table of all models, and the one that validation chooses."""

from pathlib import Path
from typing import Any

import pandas as pd

from stages import support

METRICS = Path("metrics")
TABLE = Path("plots/depth_accuracy.csv")

# Columns of the table, and the metric that each one takes.
COLUMNS = {
    "depth": "depth",
    "width": "width",
    "parameters": "parameters",
    "deviation": "deviation",
    "on_budget": "on_budget",
    "seeds": "seeds",
    "accuracy": "test_accuracy",
    "accuracy_sd": "test_sd",
    "accuracy_lo": "test_lo",
    "accuracy_hi": "test_hi",
    "validation_accuracy": "val_accuracy",
}


def main() -> None:
    """Gather metrics/L*.json into plots/depth_accuracy.csv, and the best into metrics/summary.json.

    The best is the model with the highest validation accuracy.
    """
    params = support.read_params()
    metrics = {name: _read(name) for name in params.models}
    rows = [
        {"model": name} | {column: values[key] for column, key in COLUMNS.items()}
        for name, values in metrics.items()
    ]
    table = pd.DataFrame(rows).sort_values(["depth", "width"], kind="stable")
    support.write_csv(TABLE, table)
    # Chosen by validation: a maximum over test accuracies would flatter the best.
    chosen = table.loc[table["validation_accuracy"].idxmax(), "model"]
    support.write_json(METRICS / "summary.json", metrics[chosen])


def _read(name: str) -> dict[str, Any]:
    path = METRICS / f"{name}.json"
    metrics = support.read_json(path)
    missing = [key for key in COLUMNS.values() if key not in metrics]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: run `dvc repro evaluate@{name}`")
    return metrics


if __name__ == "__main__":
    support.run(main)
