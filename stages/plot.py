"""Stage plot: the figures, from tables alone; nothing is computed again."""

from pathlib import Path

from matplotlib.figure import Figure

from isoparam.figures import depth_accuracy, learning_curves
from stages import support

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
    params = support.read_params()
    table = support.read_csv(TABLE, TABLE_COLUMNS)
    curves = {
        name: support.read_csv(CURVES / f"{name}.csv", CURVE_COLUMNS) for name in table["model"]
    }
    _save(depth_accuracy(table, params.budget), OUT / "depth_accuracy.png")
    _save(learning_curves(curves), OUT / "learning_curves.png")


def _save(figure: Figure, path: Path) -> None:
    with support.replacing(path) as partial:
        # Without the metadata the same figure gives the same bytes.
        figure.savefig(partial, format="png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    support.run(main)
