"""Jobs side by side in processes; what they return depends on the jobs alone.

torch is imported by the processes that work, not by the one that waits for them.
"""

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from tempfile import gettempdir
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from pipeline import commands, lack_of_memory

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

Job = TypeVar("Job")
Result = TypeVar("Result")
Report = Callable[[str], None]

# The option of a stage that hands its jobs to `run_all`.
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        envvar="ISOPARAM_WORKERS",
        help="Number of parallel processes, by default that of cores. Results do not depend on it.",
    ),
]


def run_all(
    work: Callable[[Job, Report], Result | None],
    jobs: Sequence[Job],
    *,
    workers: int | None,
    advance: Report,
    preload: Sequence[str],
) -> list[Result]:
    """Do all jobs, each in a process.

    A job may be done in parts: while `work` returns None it is called again, after the parts of the
    others and perhaps in another process, so that no core waits for a long last job.

    Args:
        work: a module's function; it gets a job and a function to report progress with.
        jobs: 1 or more, begun in this order; those done in one part longest first.
        workers: number of parallel processes; the number of cores if None.
        advance: called with the text of each report.
        preload: modules that `work` imports, to be loaded once for all processes.

    Returns:
        The results, in the order of the jobs.

    Raises:
        ValueError: if there is no job, a job raises one or finds too little memory, or a process
            is killed. Every error is raised at once, whatever the other processes do; they end.
        OSError: if a job raises one.
        RuntimeError: if a job raises anything else, with its traceback.
    """
    if not jobs:
        raise ValueError("there is nothing to do: the list of jobs is empty")
    waiting = deque(range(len(jobs)))
    busy: dict[Connection, int] = {}
    results: dict[int, Result] = {}

    def begin(connection: Connection) -> None:
        busy[connection] = waiting.popleft()
        with _death_is_an_error():
            connection.send(jobs[busy[connection]])

    count = min(workers or commands.available_cores(), len(jobs))
    with _start(count, work, preload) as processes:
        for connection in processes:
            begin(connection)
        for connection, kind, content in _messages(processes):
            if kind == "report":
                advance(content)
                continue
            index = busy.pop(connection)
            if content is None:
                waiting.append(index)
            else:
                results[index] = content
            if waiting:
                begin(connection)
            if not busy:
                break
    return [results[index] for index in range(len(jobs))]


@contextmanager
def _start(
    count: int, work: Callable[[Any, Report], Any], preload: Sequence[str]
) -> "Iterator[dict[Connection, BaseProcess]]":
    """Processes that do `work`, each by its connection; they end with the block, done or not."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *preload])
    processes: dict[Connection, BaseProcess] = {}
    try:
        for _ in range(count):
            connection, end = context.Pipe()
            with end:
                started = context.Process(target=_serve, args=(end, work), daemon=True)
                _begin(started)
            processes[connection] = started
        yield processes
    finally:
        for process in processes.values():
            process.kill()
        for process in processes.values():
            process.join()


def _begin(process: "BaseProcess") -> None:
    """Start a process; the first start also starts the server that forks them all."""
    try:
        process.start()
    except OSError as error:
        if "AF_UNIX" not in str(error):
            raise
        raise ValueError(
            f"the folder for temporary files, {gettempdir()}, has too long a name for a socket in "
            "it: set TMPDIR to one of at most 70 characters, such as /tmp"
        ) from None


def _messages(processes: "dict[Connection, BaseProcess]") -> Iterator[tuple[Connection, str, Any]]:
    """Reports and results as they come in; raises a job's error, or one if a process is killed."""
    sentinels = {process.sentinel for process in processes.values()}
    while True:
        ready = set(wait([*processes, *sentinels]))
        if not sentinels.isdisjoint(ready):
            raise ValueError(_KILLED)
        for connection in [connection for connection in processes if connection in ready]:
            with _death_is_an_error():
                kind, content = connection.recv()
            if kind == "error":
                raise content
            yield connection, kind, content


_KILLED = "a training process was killed; was there enough memory?"


@contextmanager
def _death_is_an_error() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):
        raise ValueError(_KILLED) from None


def _serve(connection: Connection, work: Callable[[Any, Report], Any]) -> None:
    """Do jobs, one after the other, until this process is killed or its parent dies."""
    Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which kills this
    try:
        while True:
            job = connection.recv()
            connection.send(_call(work, job, lambda text: connection.send(("report", text))))
    except (EOFError, ConnectionError):
        os._exit(1)  # the parent is gone


def _end_with_parent() -> None:
    """The kernel's signal at a parent's death would wait for the fork server, not for the stage."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _call(work: Callable[[Any, Report], Any], job: Any, report: Report) -> tuple[str, Any]:
    """The result for the parent, or an error whose class it knows without importing torch."""
    try:
        return "result", work(job, report)
    except OSError as error:
        return "error", error
    except ValueError as error:
        return "error", ValueError(str(error))
    except Exception as error:  # noqa: BLE001 (the parent raises it)
        if sentence := lack_of_memory(error):
            return "error", ValueError(sentence)
        return "error", RuntimeError(traceback.format_exc())
