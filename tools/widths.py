"""The width of each depth that meets a budget, printed or written to params.yaml."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from isoparam.budget import count_parameters, ideal_width, width_for_budget
from pipeline import parameters


def main(
    *,
    write: Annotated[
        bool, typer.Option("--write", help="Set the widths in params.yaml, keeping its comments.")
    ] = False,
    budget: Annotated[
        int | None, typer.Option(min=1, help="A budget other than that of params.yaml.")
    ] = None,
    arguments: Annotated[
        bool, typer.Option("--arguments", help="Print arguments for `dvc exp run` instead.")
    ] = False,
) -> None:
    """Print the width that meets the budget at each depth of params.yaml."""
    params = parameters.read_params()
    budget = budget or params.budget
    sizes = params.data.sizes
    # The table has 39 columns at the study's budget, for the narrowest terminals.
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for head in ("", "depth", "ideal\nwidth", "width", "para-\nmeters", "off by"):
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    widths, others = {}, []
    for name, model in params.models.items():
        ideal, width = "", 0
        if model.depth:
            ideal = f"{ideal_width(budget, model.depth, *sizes):.2f}"
            width = widths[name] = width_for_budget(budget, model.depth, *sizes)
            if model.width != width:
                others.append(f"{name} {model.width}")
        count = count_parameters(model.depth, width, *sizes)
        cells = str(model.depth), ideal, str(width or ""), f"{count:,}", f"{count - budget:+,}"
        table.add_row(name, *cells)
    if arguments:
        values = {"budget": budget} | {f"models.{n}.width": width for n, width in widths.items()}
        print(*(f"--set-param {key}={value}" for key, value in values.items()))
    else:
        note = [f"Off the budget in params.yaml: {', '.join(others)}"] if others else []
        Console().print(table, *note, highlight=False)
    if write:
        with parameters.edited_params() as document:
            document["budget"] = budget
            fit(document, *sizes)


def fit(document: Any, inputs: int, classes: int) -> None:
    """Set the widths in the content of params.yaml to its budget."""
    for model in document["models"].values():
        if model["depth"]:
            model["width"] = width_for_budget(document["budget"], model["depth"], inputs, classes)
