"""What makes a function a command: arguments, one sentence for an error, progress."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

# The model of a stage's command. DVC starts commands by a shell, so a name from params.yaml is no
# part of them: it comes from the name of the stage, such as train@L3.
ModelName = Annotated[
    str,
    typer.Argument(
        envvar="DVC_STAGE",
        parser=lambda text: text.rpartition("@")[2],
        metavar="NAME",
        help="A model of params.yaml, such as L3.",
    ),
]


def run(main: Callable[..., None]) -> None:
    """Run a stage's function as a command."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    run_application(app)


def run_application(app: typer.Typer) -> None:
    """Run commands; an error becomes one sentence and exit code 1."""
    die_with_parent()
    try:
        app()
    except (ValueError, OSError) as error:
        text = str(error)
        if isinstance(error, OSError):  # without the number that Python puts first
            text = ": ".join(str(part) for part in (error.filename, error.strerror) if part) or text
        print(f"error: {text}", file=sys.stderr)
        sys.exit(1)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, a line at each tenth of the way in a log.

    Yields:
        A function to call after each of `total` pieces of work, with a text to show.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console) as bar:
            task = bar.add_task(description, total=total)
            yield lambda text: bar.update(task, advance=1, description=f"{description} {text}")
        return
    done = 0

    def advance(text: str) -> None:
        nonlocal done
        done += 1
        if done * 10 // total > (done - 1) * 10 // total:
            print(f"{description} {done}/{total} {text}", file=sys.stderr, flush=True)

    yield advance


def die_with_parent() -> None:
    """On Linux, let the kernel end a stage of DVC when DVC dies, so that none is orphaned.

    One whose parent died before that was said has process 1 for a parent, and ends now. A command
    that was started by hand may outlive its shell, as those of `nohup` do.
    """
    if sys.platform != "linux" or "DVC_STAGE" not in os.environ:
        return
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() == 1:
        # In a container process 1 may be DVC itself, or the shell that it starts this command by.
        command = Path("/proc/1/cmdline").read_bytes()
        if b"dvc" not in command and b"stages." not in command:
            sys.exit("error: the dvc that started this stage is gone")


def available_cores() -> int:
    """Processor cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
