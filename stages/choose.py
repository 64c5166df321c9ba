"""Stage choose of tuning/dvc.yaml: the learning rate of each model, by validation accuracy."""

from pathlib import Path

import pandas as pd

from isoparam.figures.depth import learning_rates, png
from pipeline import commands, files, parameters

GRID = Path("tuning")
TABLE = GRID / "learning_rates.csv"
FIGURE = GRID / "learning_rates.png"
# Finer than one right answer of all images and seeds, coarser than a rounding error.
DIGITS = 9
COLUMNS = ("learning_rate", "seed", "validation_loss", "validation_accuracy")


def main() -> None:
    """Choose from tuning/L*.csv, into learning_rates.yaml, a table and a figure.

    The rate with the highest mean validation accuracy over seeds wins, the lower of two equals. A
    rate at which a seed diverges is out, and so is the next lower one, at which another seed may.
    """
    params = parameters.read_params()
    tables = []
    for name, model in params.models.items():
        trials = files.read_csv(GRID / f"{name}.csv", COLUMNS)
        grid = trials.groupby("learning_rate")["validation_accuracy"]
        accuracy = mean_accuracies(trials)
        if accuracy.isna().all():
            raise ValueError(f"{name} diverges at each learning rate: add lower ones to tuning")
        best = best_rate(accuracy)
        if len(accuracy) > 1 and best in (accuracy.index[0], accuracy.index[-1]):
            print(f"the best learning rate of {name}, {best}, is at the edge of what was tried")
        tables.append(
            pd.DataFrame(
                {
                    "model": name,
                    "depth": model.depth,
                    "learning_rate": accuracy.index,
                    "accuracy": accuracy.to_numpy(),
                    "accuracy_sd": grid.std(skipna=False).to_numpy(),
                    "seeds": grid.size().to_numpy(),
                    "chosen": accuracy.index == best,
                }
            )
        )
    table = pd.concat(tables)
    files.write_csv(TABLE, table)
    files.write(FIGURE, png(learning_rates(table)))
    chosen = table[table["chosen"]]
    with parameters.edited_params(parameters.LEARNING_RATES) as rates:
        rates.update(zip(chosen["model"], chosen["learning_rate"].tolist(), strict=True))


def mean_accuracies(trials: pd.DataFrame) -> pd.Series:
    """Mean validation accuracy over seeds of each learning rate; none where a seed diverges."""
    return trials.groupby("learning_rate")["validation_accuracy"].mean(skipna=False)


def best_rate(accuracy: pd.Series) -> float:
    """The rate of the highest mean, the lower of two equals, if possible with one above it."""
    safe = accuracy.where(accuracy.shift(-1, fill_value=0.0).notna())
    # The means of equally many right answers may differ in their last bit.
    return float((accuracy if safe.isna().all() else safe).round(DIGITS).idxmax())


if __name__ == "__main__":
    commands.run(main)
