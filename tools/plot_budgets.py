"""The sweep over budgets: studies/budgets/*.csv and the plain study, as one figure."""

from pathlib import Path

from isoparam.figures.budgets import error_by_budget
from isoparam.figures.depth import png
from pipeline import files, parameters

COLUMNS = ("depth", "width", "seeds", "accuracy", "accuracy_lo", "accuracy_hi")
FOLDER = Path("studies/budgets")
STUDY = Path("plots/depth_accuracy.csv")


def main() -> None:
    """Draw studies/budgets/error.png. The name of a table is its budget."""
    tables = {int(path.stem): path for path in FOLDER.glob("[0-9]*.csv")}
    tables[parameters.read_params().budget] = STUDY
    figure = error_by_budget(
        {budget: files.read_csv(path, COLUMNS) for budget, path in tables.items()}
    )
    with files.replacing(FOLDER / "error.png") as partial:
        partial.write_bytes(png(figure))
