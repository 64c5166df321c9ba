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
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from safetensors import SafetensorError, safe_open

from pipeline import commands, files, processes

if TYPE_CHECKING:
    from torch import Tensor

    from isoparam.network.recipe import Job, Row, Schedule

CHECKPOINTS = Path(".checkpoints")

Each = TypeVar("Each", bound="WithRecipe")
Result = TypeVar("Result")

# How long a process trains before it leaves a checkpoint, at the end of the epoch.
PART_SECONDS = 2.0


class WithRecipe(Protocol):
    """A job whose recipe says for how many epochs to train."""

    @property
    def recipe(self) -> "Schedule": ...  # noqa: D102


class Part(NamedTuple, Generic[Each]):
    """A job, and where to keep its state; None to keep none."""

    job: Each
    checkpoint: Path | None


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
    kept = checkpoints(name, texts, jobs[0].split)
    return run_jobs(f"train {name}", _train, jobs, workers, ["isoparam.network.jobs"], kept)


def run_jobs(
    title: str,
    work: Callable[[Part[Each], processes.Report], Result | None],
    jobs: Sequence[Each],
    workers: int | None,
    preload: Sequence[str],
    kept: Sequence[Path | None] | None = None,
) -> list[Result]:
    """Run jobs with recipes side by side, with progress by epochs; arguments as of `run_all`."""
    parts = [*map(Part, jobs, kept or [None] * len(jobs))]
    with commands.progress(title, sum(job.recipe.epochs for job in jobs)) as advance:
        for _ in range(sum(_epochs_done(part.checkpoint) for part in parts)):
            advance("done before")
        return processes.run_all(work, parts, workers=workers, advance=advance, preload=preload)


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
        if time.monotonic() - kept_at >= PART_SECONDS:
            _save(checkpoint, state)
            kept_at = time.monotonic()

    return on_state


def forget(name: str) -> None:
    """Remove the checkpoints of a model, when its results are written."""
    shutil.rmtree(CHECKPOINTS / name, ignore_errors=True)


def _train(part: "Part[Job]", report: processes.Report) -> "list[Row] | None":
    """Continue a training for a while; the history if it is done, None otherwise."""
    from isoparam.network.jobs import train

    result = train(part.job, resume(part.checkpoint), PART_SECONDS, report)
    if isinstance(result, list):
        return result
    _save(part.checkpoint, result)
    return None


def _save(checkpoint: Path | None, state: "dict[str, Tensor]") -> None:
    from isoparam.images.files import save_tensors

    if checkpoint is None:
        return
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
