"""Stage aggregate: one table of all models, and the summary of the study."""

from pathlib import Path

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
    "accuracy_sd": "test_accuracy_sd",
    "accuracy_lo": "test_accuracy_lo",
    "accuracy_hi": "test_accuracy_hi",
    "validation_accuracy": "validation_accuracy",
}


def main() -> None:
    """Gather metrics/L*.json into plots/depth_accuracy.csv and metrics/summary.json."""
    params = support.read_params()
    rows = []
    for name in params.models:
        path = METRICS / f"{name}.json"
        metrics = support.read_json(path)
        missing = [key for key in COLUMNS.values() if key not in metrics]
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}: run `dvc repro evaluate@{name}`")
        rows.append({"model": name} | {column: metrics[key] for column, key in COLUMNS.items()})
    table = pd.DataFrame(rows).sort_values(["depth", "width"], kind="stable")
    support.write_csv(TABLE, table)
    # Chosen by validation: a maximum over test accuracies would flatter the best.
    best = table.loc[table["validation_accuracy"].idxmax()]
    support.write_json(
        METRICS / "summary.json",
        {
            "models": len(table),
            "best_depth_by_validation": int(best["depth"]),
            "its_test_accuracy": float(best["accuracy"]),
        },
    )


if __name__ == "__main__":
    support.run(main)
