"""Jobs side by side in processes; what they return depends on the jobs alone.

torch is imported by the processes that work, not by the one that waits for them.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from pipeline import commands

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Job = TypeVar("Job")
Result = TypeVar("Result")
Report = Callable[[str], None]

# The option of a stage that hands its jobs to `run_all`.
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        envvar="ISOPARAM_WORKERS",
        help="Processes side by side, as many as there are cores unless said otherwise; "
        "results do not depend on it.",
    ),
]

# What a process gets from its parent at the start: where to report its progress.
_worker: dict[str, "Connection"] = {}


def run_all(
    work: Callable[[Job, Report], Result | None],
    jobs: Sequence[Job],
    *,
    workers: int | None,
    advance: Report,
    preload: Sequence[str],
) -> list[Result]:
    """Do all jobs, each in a process.

    A job may be done a part at a time: while `work` returns None it is called again, after the
    parts of the others and perhaps in another process. So no core waits for a long last job.

    Args:
        work: a module's function; it gets a job and a function to report progress with.
        jobs: 1 or more, begun in this order; those done in one part longest first.
        workers: processes side by side; as many as there are cores if None.
        advance: called with the text of each report, in a thread of this process.
        preload: modules that `work` imports, to be loaded once for all processes.

    Returns:
        The results, in the order of the jobs.

    Raises:
        ValueError: if a job raises one, or a process is killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    # All write to one pipe without a lock, which a process that is killed would keep; the kernel
    # does not mix writes as short as these.
    reader, writer = context.Pipe(duplex=False)
    listener = Thread(target=_listen, args=(reader, advance))
    listener.start()
    count = min(workers or commands.available_cores(), len(jobs))
    results: dict[int, Result] = {}
    try:
        with ProcessPoolExecutor(count, context, _start, (writer,)) as pool:
            running: dict[Future[Result | None], int] = {
                pool.submit(_call, work, job): index for index, job in enumerate(jobs)
            }
            try:
                while running:
                    done = wait(running, return_when=FIRST_COMPLETED).done
                    for future in [future for future in running if future in done]:  # in order
                        index = running.pop(future)
                        result = future.result()
                        if result is None:
                            running[pool.submit(_call, work, jobs[index])] = index
                        else:
                            results[index] = result
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenProcessPool:
        raise ValueError("a training process was killed; was there enough memory?") from None
    finally:
        writer.close()  # the last copy, now that the processes have ended
        listener.join()
    return [results[index] for index in range(len(jobs))]


def _listen(reader: "Connection", advance: Report) -> None:
    with reader, suppress(EOFError):
        while True:
            advance(reader.recv())


def _start(reports: "Connection") -> None:
    _worker["reports"] = reports
    Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback beside the parent's message


def _end_with_parent() -> None:
    """The kernel's signal at a parent's death would wait for the fork server, not for the stage."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _call(work: Callable[[Job, Report], Result | None], job: Job) -> Result | None:
    try:
        return work(job, _worker["reports"].send)
    except (MemoryError, RuntimeError) as error:  # torch has no class of its own for it on a CPU
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        reason = " ".join(str(error).split())
        raise ValueError(
            f"there is not enough memory ({reason}): lower the width, batch_size or the workers"
        ) from None
