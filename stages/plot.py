"""Stage plot: the figures, from tables alone; nothing is computed again."""

from pathlib import Path

from isoparam.figures.depth import depth_accuracy, learning_curves, png
from pipeline import commands, files, parameters

TABLE = Path("plots/depth_accuracy.csv")
CURVES = Path("plots/curves")
OUT = Path("plots")
TABLE_COLUMNS = (
    "model depth width parameters on_budget seeds accuracy accuracy_lo accuracy_hi may_be_best "
    "new_images_lo new_images_hi"
).split()
CURVE_COLUMNS = (
    "epoch train_loss validation_loss validation_accuracy validation_accuracy_lo "
    "validation_accuracy_hi"
).split()


def main() -> None:
    """Draw plots/depth_accuracy.png and plots/learning_curves.png."""
    params = parameters.read_params()
    table = files.read_csv(TABLE, TABLE_COLUMNS)
    curves = {
        name: files.read_csv(CURVES / f"{name}.csv", CURVE_COLUMNS) for name in table["model"]
    }
    files.write(OUT / "depth_accuracy.png", png(depth_accuracy(table, params.budget)))
    files.write(OUT / "learning_curves.png", png(learning_curves(curves)))


if __name__ == "__main__":
    commands.run(main)
