"""The width of each depth that meets a budget: printed, or written to params.yaml."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from isoparam.budget import count_parameters, ideal_width, width_for_budget
from isoparam.images.datasets import sizes_of
from pipeline import parameters


def main(
    *,
    write: Annotated[
        bool, typer.Option("--write", help="Set the widths in params.yaml, keeping its comments.")
    ] = False,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Another budget than that of params.yaml.")
    ] = None,
    arguments: Annotated[
        bool, typer.Option("--arguments", help="Print arguments for `dvc exp run` instead.")
    ] = False,
) -> None:
    """Print the width that meets the budget at each depth of params.yaml."""
    params = parameters.read_params()
    budget = budget or params.budget
    sizes = sizes_of(params.data.dataset, params.data.own)
    table = Table("model", "depth", "ideal width", "width", "parameters", "deviation", "now")
    widths = {}
    for name, model in params.models.items():
        if model.depth == 0:
            count = count_parameters(0, 0, *sizes)
            table.add_row(name, "0", "", "", f"{count:,}", f"{count - budget:+,}")
            continue
        widths[name] = width_for_budget(budget, model.depth, *sizes)
        count = count_parameters(model.depth, widths[name], *sizes)
        table.add_row(
            name,
            str(model.depth),
            f"{ideal_width(budget, model.depth, *sizes):.2f}",
            str(widths[name]),
            f"{count:,}",
            f"{count - budget:+,}",
            "" if model.width == widths[name] else f"{model.width}: off the budget",
        )
    if arguments:
        values = {"budget": budget} | {f"models.{n}.width": width for n, width in widths.items()}
        print(*(f"--set-param {key}={value}" for key, value in values.items()))
    else:
        Console().print(table)
    if write:
        with parameters.edited_params() as document:
            document["budget"] = budget
            for name, width in widths.items():
                document["models"][name]["width"] = width
