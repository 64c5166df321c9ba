"""`python -m tools` lists the commands for people; `python -m tools NAME --help` explains one."""

import sys
from importlib import import_module

import typer

from pipeline import commands

NAMES = (
    "accept demo docs export guard mend own plot-budgets plots-page predict report repro verify "
    "widths"
).split()

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback()
def main() -> None:
    """Commands for people, beside the stages that `dvc repro` runs."""


# Only the requested command is imported: torch alone takes seconds.
for name in [name for name in sys.argv[1:2] if name in NAMES] or NAMES:
    main_of = import_module(f"tools.{name.replace('-', '_')}").main
    app.command(name, help=commands.explanation(main_of))(main_of)

commands.run_application(app)
