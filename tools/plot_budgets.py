"""The sweep over budgets: studies/budgets/*.csv and the plain study, as one figure."""

from matplotlib.figure import Figure

from isoparam.figures.budgets import error_by_budget
from isoparam.figures.depth import png
from pipeline import files
from tools import findings


def main() -> None:
    """Draw studies/budgets/error.png from the tables there, each named by its budget."""
    files.write(findings.STUDIES / "budgets/error.png", png(figure()))


def figure() -> Figure:
    """The figure of all recorded budgets, without collapsed networks."""
    return error_by_budget(
        {
            budget: table[table["accuracy"] >= findings.COLLAPSED]
            for budget, table in findings.read_budgets().items()
        }
    )
