"""What makes a function a command: arguments, one sentence for an error, progress; calls of DVC."""

import ctypes
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeRemainingColumn

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
    app.command(help=explanation(main))(main)
    run_application(app)


def run_application(app: typer.Typer) -> None:
    """Run commands; an error becomes one sentence and exit code 1."""
    die_with_parent()
    try:
        app()
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        text = str(error)
        if isinstance(error, subprocess.CalledProcessError):
            reason = (error.stderr or "").strip().splitlines()
            text = ": ".join([f"`{' '.join(map(str, error.cmd))}` failed", *reason[:1]])
        elif isinstance(error, FileNotFoundError) and error.filename == "git":
            text = "git is not installed"
        elif isinstance(error, OSError):  # without the error number that Python puts first
            text = ": ".join(str(part) for part in (error.filename, error.strerror) if part) or text
        print(f"error: {text}", file=sys.stderr)
        sys.exit(1)


def explanation(main: Callable[..., None]) -> str:
    """The docstring of a command, its paragraphs as lines of their own, to be broken anywhere."""
    paragraphs = inspect.cleandoc(main.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


@contextmanager
def progress(description: str, total: int, unit: str = "epochs") -> Iterator[Callable[[str], None]]:
    """Show a progress bar on a terminal, or a line for each tenth of the work in a log.

    Yields:
        A function to call after each of `total` pieces of work, with a text to show.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        count = TextColumn("{task.completed:.0f} of {task.total:.0f} " + unit)
        columns = *Progress.get_default_columns()[:2], count, TimeRemainingColumn()
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(description, total=total)
            yield lambda text: bar.update(task, advance=1, description=f"{description} {text}")
        return
    done = 0

    def advance(text: str) -> None:
        nonlocal done
        done += 1
        if done * 10 // total > (done - 1) * 10 // total:
            print(f"{description} {done}/{total} {unit} {text}", file=sys.stderr, flush=True)

    yield advance


def die_with_parent() -> None:
    """On Linux, let the kernel end a command of DVC or make with its parent: none is orphaned.

    If the parent died before this call, process 1 is the parent, and the command ends now. A
    command that was started by hand may outlive its shell, as those of `nohup` do.
    """
    if sys.platform != "linux" or not {"DVC_STAGE", "MAKELEVEL"} & os.environ.keys():
        return
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() == 1:
        # In a container process 1 may be the parent itself, or the shell that it starts this by.
        command = Path("/proc/1/cmdline").read_bytes()
        if not any(name in command for name in (b"dvc", b"make", b"stages.", b"tools")):
            sys.exit("error: the parent process has ended")


def dvc(*arguments: str) -> str:
    """What DVC prints.

    Raises:
        ValueError: if it fails.
    """
    command = sys.executable, "-m", "dvc", *arguments
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ValueError(f"`dvc {' '.join(arguments)}` failed")
    return done.stdout


def available_cores() -> int:
    """Processor cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
