"""Trainings side by side, each of which stops and resumes by states in .checkpoints.

So the processes share the work evenly, and a run that was killed loses seconds. torch is imported
by the processes that train, not by the one that waits for them.
"""

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from safetensors import SafetensorError, safe_open

from pipeline import commands, files, processes

if TYPE_CHECKING:
    from torch import Tensor

    from isoparam.network.recipe import Job, Row, Schedule

CHECKPOINTS = Path(".checkpoints")

Each = TypeVar("Each", bound="Resumable")
Result = TypeVar("Result")

# How long a process trains before it leaves a checkpoint, at the end of the epoch.
PART_SECONDS = 2.0


class Resumable(Protocol):
    """What `run_jobs` needs to know of a job."""

    @property
    def recipe(self) -> "Schedule":
        """How to train, and so for how many epochs."""

    @property
    def checkpoint(self) -> Path | None:
        """Where to keep the state; None to keep none."""


class _Part(NamedTuple):
    job: "Job"
    checkpoint: Path

    @property
    def recipe(self) -> "Schedule":
        return self.job.recipe


def run(name: str, jobs: Sequence["Job"], workers: int | None) -> list[list["Row"]]:
    """Train all jobs of one model.

    Args:
        name: of the model.
        jobs: what to train.
        workers: number of parallel processes; the number of cores if None.

    Returns:
        The history of each job; of a trial that diverged, its epochs until then.

    Raises:
        ValueError: if data is missing or damaged, or a job other than a trial diverges.
    """
    texts = [f"{job.recipe} {job.seeds} {job.device}" for job in jobs]
    found = checkpoints(name, texts, jobs[0].split)
    parts = [_Part(job, checkpoint) for job, checkpoint in zip(jobs, found, strict=True)]
    return run_jobs(f"train {name}", _train, parts, workers, ["isoparam.network.jobs"])


def run_jobs(
    title: str,
    work: Callable[[Each, processes.Report], Result | None],
    jobs: Sequence[Each],
    workers: int | None,
    preload: Sequence[str],
) -> list[Result]:
    """Run resumable jobs side by side, with progress by epochs; arguments as of `run_all`."""
    with commands.progress(title, sum(job.recipe.epochs for job in jobs)) as advance:
        for _ in range(sum(_epochs_done(job.checkpoint) for job in jobs)):
            advance("done before")
        return processes.run_all(work, jobs, workers=workers, advance=advance, preload=preload)


def checkpoints(name: str, jobs: Sequence[Any], split: Path) -> list[Path]:
    """The checkpoint of each job, named by a hash of all that the job depends on.

    Args:
        name: of the stage.
        jobs: what to train; the text of each says all that its numbers depend on beside data and
            code.
        split: folder of the data.
    """
    common = f"{version('torch')} {_digest_of_data_and_code(split)}"
    names = (sha256(f"{job} {common}".encode()).hexdigest()[:32] for job in jobs)
    return [CHECKPOINTS / name / each for each in names]


def resume(checkpoint: Path | None) -> "dict[str, Tensor] | None":
    """The state to resume from; None if there is none that is whole."""
    from isoparam.images.files import load_tensors

    if checkpoint is None or not checkpoint.exists():
        return None
    try:
        return load_tensors(checkpoint)[0]
    except ValueError as error:
        print(f"starting again from the first epoch: {error}", file=sys.stderr)
        return None


def keep(checkpoint: Path | None) -> "Callable[[dict[str, Tensor]], None]":
    """A function to call with each state, which keeps one now and then."""
    kept_at = time.monotonic()

    def on_state(state: "dict[str, Tensor]") -> None:
        nonlocal kept_at
        if checkpoint is not None and time.monotonic() - kept_at >= PART_SECONDS:
            _save(checkpoint, state)
            kept_at = time.monotonic()

    return on_state


def forget(name: str) -> None:
    """Remove the checkpoints of a model, when its results are written."""
    shutil.rmtree(CHECKPOINTS / name, ignore_errors=True)


def _train(part: _Part, report: processes.Report) -> "list[Row] | None":
    """Continue a training for a while; the history if it is done, None otherwise."""
    from isoparam.network.jobs import train

    result = train(part.job, resume(part.checkpoint), PART_SECONDS, report)
    if isinstance(result, list):
        return result
    _save(part.checkpoint, result)
    return None


def _save(checkpoint: Path, state: "dict[str, Tensor]") -> None:
    from isoparam.images.files import save_tensors

    contiguous = {name: tensor.contiguous() for name, tensor in state.items()}
    try:
        with files.replacing(checkpoint) as partial:
            save_tensors(partial, contiguous, {})
    except ValueError:
        # A second run of the same training, as after two submissions to Slurm, may just have
        # removed the folder because it is done.
        with files.replacing(checkpoint) as partial:
            save_tensors(partial, contiguous, {})


def _epochs_done(checkpoint: Path | None) -> int:
    if checkpoint is None:
        return 0
    try:
        with safe_open(checkpoint, framework="np") as file:
            return int(file.get_slice("history").get_shape()[0])
    except (OSError, SafetensorError):
        return 0


def _digest_of_data_and_code(split: Path) -> str:
    """A hash of the split and of the code that decides numbers."""
    code = sorted(Path(__file__).parents[1].glob("isoparam/**/*.py"))
    digest = sha256()
    for path in (split / "train.safetensors", split / "validation.safetensors", *code):
        if path.is_file():  # what is missing is reported by whoever reads it
            digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()
