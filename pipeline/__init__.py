"""What runs the stages: parameters and their schema, commands, files, processes, trainings.

Here belongs what cannot change a byte of a stage's output. No stage depends on this folder in
dvc.yaml; the study on digits, whose hashes are recorded, stands guard over it.
"""

import sys


def refuse_to_run(package: str) -> None:
    """Say so where Python is to run a module that is no command: it would do nothing.

    Args:
        package: that is imported on the way to the module.

    Raises:
        SystemExit: as by `python -m tools.predict` instead of `python -m tools predict`.
    """
    names = [name.removeprefix("-m") for name in sys.orig_argv[1:]]
    modules = [name for name in names if name.startswith(f"{package}.")]
    if sys.argv[0] == "-m" and modules:  # while Python looks for the module
        sys.exit(f"error: {modules[0]} is no command: `python -m tools` lists the commands")


refuse_to_run("pipeline")
