"""What runs the stages: parameters and their schema, commands, files, processes, trainings.

Here belongs what cannot change a byte of a stage's output. No stage depends on this folder in
dvc.yaml; the study on digits, whose hashes are recorded, stands guard over it.
"""

import re
import sys
from types import TracebackType

_NO_MEMORY = re.compile("memory|failed to map segment|only be initialized once per process")


def refuse_to_run(package: str) -> None:
    """End where Python is to run a module of a package that is no command: it would do nothing."""
    names = [name.removeprefix("-m") for name in sys.orig_argv[1:]]
    modules = [name for name in names if name.startswith(f"{package}.")]
    if sys.argv[0] == "-m" and modules:  # while Python looks for the module
        sys.exit(f"error: {modules[0]} is no command: `python -m tools` lists the commands")


def lack_of_memory(error: BaseException) -> str | None:
    """A sentence on an error that says that there is too little memory; None for another one.

    torch has no special class for this error on a CPU. A library that finds no memory while it is
    loaded raises ImportError, then and at the next import.
    """
    reason = " ".join(str(error).split())
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError) and _NO_MEMORY.search(reason)
    ):
        return f"there is not enough memory ({reason}): lower the width, batch_size or the workers"
    return None


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What Python does with an error that nobody handles, as in an import."""
    if sentence := lack_of_memory(error):
        print(f"error: {sentence}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _report
refuse_to_run("pipeline")
