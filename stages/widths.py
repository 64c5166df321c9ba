"""The width of each depth that meets the budget: printed, or written to params.yaml."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from isoparam.budget import count_parameters, ideal_width, width_for_budget
from isoparam.parameters import SHAPES
from stages import support


def main(
    *,
    write: Annotated[
        bool, typer.Option("--write", help="Set the widths in params.yaml, keeping its comments.")
    ] = False,
) -> None:
    """Print the width that meets the budget at each depth of params.yaml."""
    params = support.read_params()
    shape = SHAPES[params.data.dataset]
    table = Table("model", "depth", "ideal width", "width", "parameters", "deviation", "now")
    widths = {}
    for name, model in params.models.items():
        if model.depth == 0:
            parameters = count_parameters(0, 0, *shape)
            table.add_row(name, "0", "", "", f"{parameters:,}", f"{parameters - params.budget:+,}")
            continue
        widths[name] = width_for_budget(params.budget, model.depth, *shape)
        parameters = count_parameters(model.depth, widths[name], *shape)
        table.add_row(
            name,
            str(model.depth),
            f"{ideal_width(params.budget, model.depth, *shape):.2f}",
            str(widths[name]),
            f"{parameters:,}",
            f"{parameters - params.budget:+,}",
            "" if model.width == widths[name] else f"{model.width}: off the budget",
        )
    Console().print(table)
    if write:
        with support.edited_params() as document:
            for name, width in widths.items():
                document["models"][name]["width"] = width


if __name__ == "__main__":
    support.run(main)
