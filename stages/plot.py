"""Stage plot: the figures, from tables alone; nothing is computed again."""

from pathlib import Path

from isoparam.figures.depth import depth_accuracy, learning_curves, png
from pipeline import commands, files, parameters

TABLE = Path("plots/depth_accuracy.csv")
CURVES = Path("plots/curves")
OUT = Path("plots")
TABLE_COLUMNS = (
    "model",
    "depth",
    "width",
    "parameters",
    "on_budget",
    "seeds",
    "accuracy",
    "accuracy_lo",
    "accuracy_hi",
    "may_be_best",
    "sampling_error",
)
CURVE_COLUMNS = (
    "epoch",
    "train_loss",
    "validation_loss",
    "validation_accuracy",
    "validation_accuracy_lo",
    "validation_accuracy_hi",
)


def main() -> None:
    """Draw plots/depth_accuracy.png and plots/learning_curves.png."""
    params = parameters.read_params()
    table = files.read_csv(TABLE, TABLE_COLUMNS)
    curves = {
        name: files.read_csv(CURVES / f"{name}.csv", CURVE_COLUMNS) for name in table["model"]
    }
    figures = {
        "depth_accuracy": depth_accuracy(table, params.budget),
        "learning_curves": learning_curves(curves),
    }
    for name, figure in figures.items():
        with files.replacing(OUT / f"{name}.png") as partial:
            partial.write_bytes(png(figure))


if __name__ == "__main__":
    commands.run(main)
