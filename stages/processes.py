"""Jobs side by side in single-threaded processes; what they return depends on the jobs alone.

torch is imported by the processes that work, not by the one that waits for them.
"""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from threading import Thread
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from stages import support

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

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
_worker: dict[str, "SimpleQueue[str | None]"] = {}


def run_all(
    work: Callable[[Job, Report], Result],
    jobs: Sequence[Job],
    *,
    workers: int | None,
    advance: Report,
    preload: Sequence[str],
) -> list[Result]:
    """Do all jobs, each in one thread of a process; they start in the given order.

    Args:
        work: a module's function; it gets a job and a function to report progress with.
        jobs: 1 or more, longest first so that no core waits for the last.
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
    reports: SimpleQueue[str | None] = context.SimpleQueue()
    listener = Thread(target=lambda: [advance(text) for text in iter(reports.get, None)])
    listener.start()
    count = min(workers or support.available_cores(), len(jobs))
    try:
        with ProcessPoolExecutor(count, context, _start, (reports,)) as pool:
            futures = [pool.submit(_call, work, job) for job in jobs]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenProcessPool:
        raise ValueError("a training process was killed; was there enough memory?") from None
    finally:
        reports.put(None)
        listener.join()


def _start(reports: "SimpleQueue[str | None]") -> None:
    import torch

    _worker["reports"] = reports
    support.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback beside the parent's message
    torch.set_num_threads(1)


def _call(work: Callable[[Job, Report], Result], job: Job) -> Result:
    return work(job, _worker["reports"].put)
