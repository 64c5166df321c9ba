"""The sweep over budgets: studies/budgets/*.csv and the plain study, as one figure."""

from isoparam.figures.budgets import differences_by_budget
from isoparam.figures.depth import png
from pipeline import files
from tools import findings


def main() -> None:
    """Draw studies/budgets/differences.png from the tables there, each named by its budget."""
    figure = differences_by_budget(findings.read_budgets())
    files.write(findings.STUDIES / "budgets/differences.png", png(figure))
